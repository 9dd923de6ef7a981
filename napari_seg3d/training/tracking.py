"""TensorBoard files of a run: a second view of its recorded events, for who likes to watch several runs at once.

Every number is a mean that its event has made over its own count: over the steps of a round, or over the validation
cases. The horizontal axis is the step. Files are written here and now, not in a thread of their own, so that a full
disk is noticed and nothing is left behind when a run is killed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..events import EpochDone, Event, Validated
from .run import RunFolder, read_history

#: In the run folder.
TENSORBOARD = "tensorboard"


class TensorBoard:
    """Writes the scalars of a run.

    A round that is gone through again, after a kill or because the training went back, replaces the earlier one.

    Parameters
    ----------
    run : RunFolder
        Its recorded events must already hold what is given to `add`.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._file: _EventFile | None = None
        self._broken = False
        self._newest = -1
        self._kinds: set[type[Event]] = set()

    def add(self, event: Event) -> str:
        """Write what an event says, if it has numbers; return in words why that is not possible, once."""
        if self._broken or not isinstance(event, EpochDone | Validated):
            return ""
        try:
            self._add(event)
        except (OSError, ImportError) as error:
            self._broken = True
            reason = getattr(error, "strerror", None) or error
            return f"No more TensorBoard files are written ({reason}). The training goes on; history.csv has the same."
        return ""

    def _add(self, event: EpochDone | Validated) -> None:
        step = _step(event)
        first = self._file is None
        if self._file is None:
            folder = self._run.folder / TENSORBOARD
            folder.mkdir(exist_ok=True)
            earlier = len(list(folder.glob("events.out.tfevents.*")))
            self._file = _EventFile(folder, earlier)
            # A run from before there were such files shows all its rounds.
            since = step if earlier else 0
        else:
            since = step
        if first or step < self._newest or (step == self._newest and type(event) in self._kinds):
            self._file.forget_from(since)
            again = [past for past in read_history(self._run.folder) if since <= _step(past) <= step]
            self._kinds = {type(past) for past in again if _step(past) == step}
        else:
            again = [event]
            self._kinds = {*(self._kinds if step == self._newest else ()), type(event)}
        self._newest = step
        for past in again:
            self._file.write(_step(past), dict(scalars(past)))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            # What a full disk did not take was reported when it was written.
            with suppress(OSError):
                self._file.close()


def scalars(event: EpochDone | Validated) -> Iterator[tuple[str, float]]:
    """Yield the tags and values of an event.

    Examples
    --------
    >>> dict(scalars(Validated(1, 50, {"core": 0.5, "rim": 0.7}, 0.6, {}, True, 9.0, 0.8)))
    {'loss/validation': 0.8, 'dice/validation': 0.6, 'dice_validation/core': 0.5, 'dice_validation/rim': 0.7}
    """
    if isinstance(event, EpochDone):
        # The part that validation measures too: the two curves are there to be held against each other.
        yield "loss/train", event.segmentation_loss
        if event.dice:
            yield "dice/train", sum(event.dice.values()) / len(event.dice)
        yield from ((f"dice_train/{_tag(name)}", value) for name, value in event.dice.items())
        yield "learning_rate", event.learning_rate
        yield from ((f"details/{_tag(name)}", value) for name, value in event.details.items())
        return
    if event.loss is not None:
        yield "loss/validation", event.loss
    yield "dice/validation", event.mean_dice
    yield from ((f"dice_validation/{_tag(name)}", value) for name, value in event.dice.items())


def command(run: Path) -> str:
    """Return the command that shows a run's files in the browser."""
    return f'tensorboard --logdir "{run / TENSORBOARD}"'


class _EventFile:
    """One file of TensorBoard's events. `number` counts those before it: TensorBoard reads them in that order.

    tensorboardX's own writer has a thread that waits for ever when the disk is full, names files by the second and
    puts the name of the computer into them.
    """

    def __init__(self, folder: Path, number: int) -> None:
        from tensorboardX.proto.event_pb2 import Event as Message
        from tensorboardX.record_writer import RecordWriter

        self._message = Message
        self._records = RecordWriter(str(folder / f"events.out.tfevents.{int(time.time()):010d}.{number:04d}"))
        self._put(file_version="brain.Event:2")

    def forget_from(self, step: int) -> None:
        """Let TensorBoard drop what earlier files, or earlier parts of this one, say from a step on."""
        from tensorboardX.proto.event_pb2 import SessionLog

        self._put(step=step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: dict[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._put(step=step, summary=summary)

    def flush(self) -> None:
        self._records.flush()

    def close(self) -> None:
        self._records.close()

    def _put(self, **content: object) -> None:
        self._records.write(self._message(wall_time=time.time(), **content).SerializeToString())


def _step(event: EpochDone | Validated) -> int:
    return event.steps if isinstance(event, EpochDone) else event.step


def _tag(name: str) -> str:
    """A name as TensorBoard takes it: no spaces, and no slash, which would make a group."""
    return re.sub(r"[^-\w.]", "_", name)
