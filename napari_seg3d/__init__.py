"""Learn, predict, compare and correct 3D segmentations of MRI, in napari and from scripts.

The everyday nouns and verbs stand here; each is loaded when it is first used, so importing the package is quick and
loads neither torch nor Qt. Verbs that take long are generators of events (see `napari_seg3d.events`); `result_of` runs
one to its end::

    dataset = open_dataset("Task04_Hippocampus")
    plan = make_plan(dataset, budget_s=600)
    run = result_of(train(plan, dataset.labelled, Path("run")))
    prediction = result_of(predict(dataset["hippocampus_001"], run))
    scores = compare(prediction.label_map, dataset["hippocampus_001"].load().truth)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cases.case import Case
    from .cases.dataset import Dataset, open_dataset
    from .cases.fingerprint import Fingerprint
    from .comparison.report import compare
    from .events import result_of
    from .model.plan import Plan
    from .prediction.predict import predict
    from .training.loop import train
    from .volumes.geometry import Geometry
    from .volumes.volume import LabelMap, Volume

__all__ = [
    "Case",
    "Geometry",
    "LabelMap",
    "Volume",
    "__version__",
    "compare",
    "make_plan",
    "open_dataset",
    "predict",
    "result_of",
    "train",
]

#: Name -> where it is defined.
_HOMES = {
    "Case": ".cases.case",
    "Geometry": ".volumes.geometry",
    "LabelMap": ".volumes.volume",
    "Volume": ".volumes.volume",
    "compare": ".comparison.report",
    "open_dataset": ".cases.dataset",
    "predict": ".prediction.predict",
    "result_of": ".events",
    "train": ".training.loop",
}


def make_plan(dataset: Dataset | Fingerprint, **choices: Any) -> Plan:
    """Plan a training for a dataset.

    Parameters
    ----------
    dataset : Dataset or Fingerprint
        A dataset's labelled cases are read, which takes a while; a fingerprint is used as it is.
    **choices
        As `napari_seg3d.model.planner.make_plan` takes them: network, preset, budget_s, epochs, device, seed, changes.

    Raises
    ------
    PlanError
        If a choice is unknown, impossible, or contradicts another.
    """
    from .cases.dataset import Dataset
    from .cases.fingerprint import fingerprint
    from .events import result_of
    from .model import planner

    facts = result_of(fingerprint(dataset.labelled)) if isinstance(dataset, Dataset) else dataset
    return planner.make_plan(facts, **choices)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-seg3d")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
