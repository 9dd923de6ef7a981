"""The folder of a training run: what lies in it, written whole, and read back for curves and lists.

::

    plan.json                 the plan it runs with
    run.json                  dataset, case ids, device, versions, state ("running", "stopped", "finished", "failed")
    model.safetensors, .json  the best model so far: the file to share and to predict with
    last.safetensors, .json   the newest model
    checkpoint.safetensors    all that resuming needs
    history.csv               one row a round
    events.jsonl              what happened, one JSON object a line
    validation/<case>.nii.gz  the newest predictions of the validation cases
    tensorboard/              the same numbers for TensorBoard
"""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import FileError, TrainingError
from ..events import EpochDone, Event, Saved, Validated, Warned
from ..model.plan import Plan
from ..volumes.atomic import PREFIX, sweep_leftovers, write_text_whole

#: So many validations are seen together when their losses are judged.
_TOGETHER = 3
#: In the folder of a cross-validation, above the run folders of its folds.
CROSS_VALIDATION = "cross_validation.json"
PLAN, RUN, HISTORY, EVENTS, CHECKPOINT, LAST = (
    "plan.json",
    "run.json",
    "history.csv",
    "events.jsonl",
    "checkpoint.safetensors",
    "last.safetensors",
)
_RECORDED = {kind.__name__: kind for kind in (EpochDone, Validated, Warned)}


@dataclass(frozen=True)
class RunFacts:
    """What `run.json` holds about a run.

    `older_ids` are cases of an older dataset that are mixed in, `test_ids` those that are never learned from, and
    `earlier_ids` those that the start model had learned from, as far as that is known.
    `leg_step` and `leg_s` are where the schedule of the learning rate began anew, because the run was given more time
    or cases.
    `fold` of `folds` counts from 1 and is None outside a cross-validation.
    """

    dataset: str
    train_ids: tuple[str, ...]
    validation_ids: tuple[str, ...]
    started: str
    state: str
    device: str
    threads: int
    start_model: str | None
    versions: Mapping[str, str]
    folds: int | None = None
    fold: int | None = None
    older_dataset: str = ""
    older_ids: tuple[str, ...] = ()
    test_ids: tuple[str, ...] = ()
    leg_step: int = 0
    leg_s: float = 0.0
    earlier_ids: tuple[str, ...] = ()


class RunFolder:
    """A run on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, plan: Plan, facts: RunFacts) -> RunFolder:
        """Make the folder of a new run.

        Raises
        ------
        FileError
            If something is there already, or it cannot be written.
        """
        if not is_free(folder):
            raise FileError(
                f"The folder {folder} is not empty. Resume the run in it, or choose another folder for the new one."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"The run folder {folder} cannot be made: {error.strerror or error}.") from None
        write_text_whole(folder / PLAN, plan.to_json())
        run = cls(folder)
        run.write_facts(facts)
        return run

    @classmethod
    def open(cls, folder: Path) -> RunFolder:
        """Open the folder of an earlier run; raises `FileError` if it is none."""
        if not (folder / PLAN).is_file() or not (folder / RUN).is_file():
            raise FileError(f"Expected a training run in {folder}; it has no {PLAN} and {RUN}.")
        return cls(folder)

    @property
    def plan(self) -> Plan:
        """The plan it runs with."""
        return Plan.from_json((self.folder / PLAN).read_text("utf-8"))

    @property
    def checkpoint(self) -> Path:
        """Where the state to resume from is kept."""
        return self.folder / CHECKPOINT

    def facts(self) -> RunFacts:
        """Read `run.json`; raises `FileError` if it is damaged."""
        try:
            values = json.loads((self.folder / RUN).read_text("utf-8"))
            # What a newer field means was so in runs that do not name it: it keeps its default.
            named: dict[str, Any] = {
                f.name: values[f.name] for f in fields(RunFacts) if f.name in values or f.default is MISSING
            }
            return RunFacts(**{name: _as_tuple(value) for name, value in named.items()})
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise FileError(f"The file {RUN} in {self.folder} is damaged. Start a new run.") from None

    def write_plan(self, plan: Plan) -> None:
        """Write `plan.json` whole; nothing if it says the same already."""
        text = plan.to_json()
        if (self.folder / PLAN).read_text("utf-8") != text:
            write_text_whole(self.folder / PLAN, text)

    def write_facts(self, facts: RunFacts) -> None:
        """Write `run.json` whole."""
        write_text_whole(self.folder / RUN, json.dumps(asdict(facts), indent=1))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process alone.

        Raises
        ------
        TrainingError
            If another program is training in it.
        """
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise TrainingError(f"Another program is training in {self.folder}. Stop it there first.") from None
        try:
            sweep_leftovers(self.folder)
            yield
        finally:
            lock.release()

    def record(self, event: Event) -> None:
        """Append an event to `events.jsonl`, and a round's numbers to `history.csv`."""
        values = {"event": type(event).__name__, "time": now(), **_plain(event)}
        with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def write_history(self) -> None:
        """Rewrite `history.csv` from the events: one row a round."""
        rows: dict[int, dict[str, object]] = {}
        for event in read_history(self.folder):
            if isinstance(event, EpochDone):
                row = rows.setdefault(event.epoch, {})
                row |= {"epoch": event.epoch, "step": event.steps, "loss": event.loss, "elapsed_s": event.elapsed_s}
                row["learning_rate"] = event.learning_rate
                row |= {f"train dice {name}": v for name, v in event.dice.items()} | dict(event.details)
            elif isinstance(event, Validated):
                row = rows.setdefault(event.epoch, {})
                row |= {"mean_dice": event.mean_dice, **{f"dice {name}": v for name, v in event.dice.items()}}
                row |= {} if event.loss is None else {"validation_loss": event.loss}
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
        lines: list[list[object]] = [list(columns), *([row.get(name, "") for name in columns] for row in rows.values())]
        write_text_whole(self.folder / HISTORY, _csv(lines))


def is_free(folder: Path) -> bool:
    """Whether a new run can begin here: nothing is here but what is left of a start that was killed."""
    if not folder.is_dir() or (folder / RUN).exists():
        return not folder.exists()
    return all(path.name in (".lock", PLAN) or path.name.startswith(PREFIX) for path in folder.iterdir())


def read_history(folder: Path) -> list[EpochDone | Validated]:
    """Return the rounds and validations of a run so far, oldest first; empty when there are none.

    A round that a resumed run went through again replaces the earlier one. Torn or foreign lines are passed over.
    """
    events: dict[tuple[str, int], EpochDone | Validated] = {}
    path = folder / EVENTS
    if not path.is_file():
        return []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
            kind = _RECORDED[values["event"]]
            event = kind(**{field.name: values[field.name] for field in fields(kind) if field.name in values})
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(event, EpochDone | Validated):
            key = (type(event).__name__, event.epoch)
            events.pop(key, None)
            events[key] = event
    return list(events.values())


def best_validation(history: Sequence[EpochDone | Validated]) -> Validated | None:
    """Return the validation of the model that is kept (`model.safetensors`); None if nothing was validated."""
    validations = [event for event in history if isinstance(event, Validated)]
    # The last one that was the best so far is the one whose weights were kept.
    return next((event for event in reversed(validations) if event.best), validations[-1] if validations else None)


def looks_overfitted(history: Sequence[EpochDone | Validated]) -> bool:
    """Tell whether the validation loss rises while the training loss falls.

    Means over three successive validations are compared, because single ones are noisy: the newest must be a twentieth
    above the lowest, and the training loss must have fallen in between.
    """
    training = {event.epoch: event.segmentation_loss for event in history if isinstance(event, EpochDone)}
    pairs = [
        (training[event.epoch], event.loss)
        for event in history
        if isinstance(event, Validated) and event.loss is not None and event.epoch in training
    ]
    means = [
        [sum(losses) / _TOGETHER for losses in zip(*pairs[i : i + _TOGETHER], strict=True)]
        for i in range(len(pairs) - _TOGETHER + 1)
    ]
    if len(means) <= _TOGETHER:
        return False
    (trained, validated), (lowest_trained, lowest) = means[-1], min(means, key=lambda mean: mean[1])
    return bool(validated > lowest + 0.05 * abs(lowest) and trained < lowest_trained)


def learned_by(model: Path) -> RunFacts | None:
    """Return the record of the run that a model came from; None where only its file is known."""
    folder = model if model.is_dir() else model.parent
    return RunFolder(folder).facts() if (folder / RUN).is_file() else None


def list_runs(folder: Path) -> list[Path]:
    """Return the run folders directly inside a folder and the folds of its cross-validations, newest first."""
    if not folder.is_dir():
        return []
    runs = [path.parent for pattern in (f"*/{RUN}", f"*/fold*/{RUN}") for path in folder.glob(pattern)]
    # Hidden ones are still being judged (see `learning`).
    runs = [run for run in runs if not run.relative_to(folder).parts[0].startswith(".")]
    return sorted(runs, key=lambda run: (run / RUN).stat().st_mtime, reverse=True)


def run_name(run: Path) -> str:
    """Return what a run is called: its folder; that of the cross-validation before it if it is one of its folds."""
    return f"{run.parent.name}/{run.name}" if (run.parent / CROSS_VALIDATION).is_file() else run.name


def relative(path: Path, start: Path) -> str:
    """A path as seen from a folder: records should not tell where somebody's home is."""
    try:
        return os.path.relpath(path, start)
    except ValueError:
        return str(path)  # on Windows: another drive


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    names = ("napari-seg3d", "torch", "monai", "nibabel", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _plain(event: Event) -> dict[str, Any]:
    values = asdict(event)
    if isinstance(event, Saved):
        values["path"] = event.path.name
    return values


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _csv(rows: list[list[object]]) -> str:
    from io import StringIO

    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
