"""What long work reports.

Long work is a generator of these frozen events. It knows no thread, queue or callback: the command line prints the
events, the window turns them into signals, a test lists them. Whoever consumes a job stops it by closing the
generator, whose ``finally`` saves and frees in the thread that ran it. A job that is not closed early ends with
exactly one `Finished` or `Failed`; no exception leaves it (see `job`).
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec

from .errors import Seg3dError

P = ParamSpec("P")

#: Those details of a `Step` or `EpochDone` that lie between 0 and 1.
SHARES = ("D accuracy", "D updated")


@dataclass(frozen=True)
class Event:
    """Base of all events; they are small, picklable facts."""


@dataclass(frozen=True)
class Progress(Event):
    """Work is under way: `done` of `total` (None: unknown), and the seconds that are probably left."""

    what: str
    done: float
    total: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Step(Event):
    """One optimiser step was made. `loss` is the batch's, `memory_mb` the peak on the device (or of the process).

    `details` holds further numbers by name where the training has them, such as those of a discriminator.
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    elapsed_s: float
    seconds_left: float | None = None
    memory_mb: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def segmentation_loss(self) -> float:
        """The part of the loss that validation measures too: all of it, unless a discriminator adds its judgement."""
        return self.details.get("voxel loss", self.loss)


@dataclass(frozen=True)
class EpochDone(Event):
    """A round of steps is over; `epochs` is None when a time budget decides.

    All are means over its steps: `loss`, the soft Dice of the training patches by label name in `dice`, and `details`
    as in `Step`.
    """

    epoch: int
    epochs: int | None
    loss: float
    learning_rate: float
    steps: int
    elapsed_s: float
    seconds_left: float | None = None
    dice: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def segmentation_loss(self) -> float:
        """As in `Step`."""
        return self.details.get("voxel loss", self.loss)


@dataclass(frozen=True)
class Validated(Event):
    """Whole validation cases were predicted: mean hard Dice by label name, over all, and by case and label name.

    Empty truths count as `napari_seg3d.comparison.overlap` says. `best` tells whether this is the best model so far.
    `loss` is the training's loss on these whole cases, on the network's grid.
    """

    epoch: int
    step: int
    dice: Mapping[str, float]
    mean_dice: float
    by_case: Mapping[str, Mapping[str, float]]
    best: bool
    elapsed_s: float
    loss: float | None = None


@dataclass(frozen=True)
class Saved(Event):
    """A file or folder was written whole. `what` is a word for it: "model", "checkpoint", "prediction" …"""

    path: Path
    what: str


@dataclass(frozen=True)
class RunBegan(Event):
    """One of several trainings begins or goes on, in its own run folder; the events that follow are its own."""

    run: Path
    what: str


@dataclass(frozen=True)
class Warned(Event):
    """Something a user should know that does not stop the work."""

    message: str


@dataclass(frozen=True)
class Failed(Event):
    """The work ended without its result. `message` is for the user, `details` (a traceback) for a report."""

    message: str
    details: str = ""


@dataclass(frozen=True)
class Finished(Event):
    """The work is done; `result` is what it was for."""

    result: Any = None
    message: str = ""
    seconds: float = field(default=0.0)


def details_in_words(details: Mapping[str, float]) -> str:
    """Return the details of a `Step` or `EpochDone` for one line of text; empty when there are none.

    Examples
    --------
    >>> details_in_words({"D loss": 0.2113, "D accuracy": 0.75, "D updated": 1.0})
    'D loss 0.211 · D accuracy 75 % · D updated'
    >>> details_in_words({"D updated": 0.0}), details_in_words({"D updated": 0.25})
    ('D rested', 'D updated in 25 % of the steps')
    """
    return " · ".join(_detail_in_words(name, value) for name, value in details.items())


def _detail_in_words(name: str, value: float) -> str:
    if name == "D updated":
        return {0.0: "D rested", 1.0: name}.get(value, f"{name} in {100 * value:.0f} % of the steps")
    return f"{name} {100 * value:.0f} %" if name == "D accuracy" else f"{name} {value:.3f}"


def job(function: Callable[P, Iterator[Event]]) -> Callable[P, Iterator[Event]]:
    """Make a generator function a job: what it raises becomes its last event, a `Failed`.

    A worker thread or process can then iterate it blindly. Closing the generator runs its ``finally`` as usual; what
    that raises leaves `close`, because a generator that is being closed can yield nothing any more.
    """

    @functools.wraps(function)
    def events(*args: P.args, **kwargs: P.kwargs) -> Iterator[Event]:
        try:
            yield from function(*args, **kwargs)
        except Exception as error:
            if _is_closing(error):
                raise
            yield Failed(_in_words(error), traceback.format_exc())

    return events


def _is_closing(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, GeneratorExit):
        error = error.__context__
    return error is not None


def _in_words(error: Exception) -> str:
    if isinstance(error, Seg3dError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The computer's memory is full. Close other programs, or choose a smaller patch or batch."
    # torch is not imported here: the core must start without it, so its error is known by name.
    if type(error).__name__ == "OutOfMemoryError":
        return "The GPU's memory is full. Choose a smaller patch or batch, close other GPU programs, or use the CPU."
    return (
        f"Unexpected {type(error).__name__}: {error}. "
        "This is a defect of napari-seg3d; please report it with the details."
    )


def result_of(events: Iterator[Event]) -> Any:
    """Run a job to its end and return the result of its `Finished`.

    Raises
    ------
    Seg3dError
        With the message of the job's `Failed`.
    """
    finished: Finished | None = None
    for event in events:
        if isinstance(event, Failed):
            raise Seg3dError(event.message)
        if isinstance(event, Finished):
            # Not the end of the loop: what a job still has to tidy up comes behind its last event.
            finished = event
    if finished is None:
        raise Seg3dError("The work ended without a result.")
    return finished.result
