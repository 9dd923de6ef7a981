"""Which models an ensemble is made of, and whether they belong together. Needs no torch: only plans are read.

An ensemble averages the probabilities of its members. They may differ in network, voxel size, patch and normalisation;
they must want the same images and find the same things.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..cases.names import natural_key
from ..errors import ModelError
from .plan import Plan

#: As in `checkpoint`, which cannot be imported here without torch.
_SUFFIX = ".safetensors"
_MODEL_FILE = f"model{_SUFFIX}"


def members_of(path: Path) -> tuple[Path, ...]:
    """Return the models that a path stands for: those of its folds for a cross-validation's folder, else itself.

    While a cross-validation is still going on, these are the folds that have a model already.
    """
    if not path.is_dir() or (path / _MODEL_FILE).is_file():
        return (path,)
    folds = [file.parent for file in path.glob(f"fold*/{_MODEL_FILE}")]
    return tuple(sorted(folds, key=lambda fold: natural_key(fold.name))) or (path,)


def model_name(path: Path) -> str:
    """Return what a model is called, in words that can be a file's name: its run folder, or else its file.

    Examples
    --------
    >>> model_name(Path("runs/first")), model_name(Path("runs/cv/fold2"))
    ('first', 'cv fold2')
    """
    if path.suffix == _SUFFIX and path.name != _MODEL_FILE:
        return path.stem
    run = path.parent if path.name == _MODEL_FILE else path
    return f"{run.parent.name} {run.name}" if re.fullmatch(r"fold\d+", run.name) else run.name


def check_members(names: Sequence[str], plans: Sequence[Plan]) -> None:
    """Refuse models that do not belong together.

    Raises
    ------
    ModelError
        Naming the first that differs from the first model, and in what.
    """
    for name, plan in zip(names[1:], plans[1:], strict=True):
        for what, ours, theirs in (
            ("wants the images", sorted(plan.modalities), sorted(plans[0].modalities)),
            ("knows the labels", _labels(plan), _labels(plans[0])),
            ("learns", _outputs(plan), _outputs(plans[0])),
        ):
            if ours != theirs:
                raise ModelError(
                    f"These models cannot predict together: {name} {what} {', '.join(ours)}; {names[0]} has "
                    f"{', '.join(theirs)}. Choose models of the same images and labels."
                )


def output_order(plan: Plan, first: Plan) -> list[int]:
    """Return which of a model's outputs stands at each place of the first model's."""
    background = plan.outputs - len(plan.output_names)
    found = [plan.output_names.index(name) + background for name in first.output_names]
    return [*range(background), *found]


def _labels(plan: Plan) -> list[str]:
    return sorted(f"{label.value} {label.name}" for label in plan.labels)


def _outputs(plan: Plan) -> list[str]:
    if plan.targets == "classes":
        return [plan.targets]
    return sorted(f"region {region.name} ({'+'.join(map(str, sorted(region.values)))})" for region in plan.regions)
