"""Jobs and how one is carried out, without a window: shared by the worker thread and the child process.

Nothing here may import Qt, napari or torch: the child process starts with it.
"""

from __future__ import annotations

import importlib
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from ..events import Event, Failed, Finished, Progress, Step, Warned, job

T = TypeVar("T")

#: How a job came to its end.
Ending = Literal["finished", "failed", "stopped", "crashed"]
#: What is asked of a running job.
Wish = Literal["pause", "resume", "stop"]


@dataclass(frozen=True, eq=False)
class Job:
    """Long work for the worker: which generator of events, with which arguments.

    Parameters
    ----------
    title : str
        For people: "Training run 3", "Predicting case 035".
    function : str
        Where the generator function of events stands, as ``"module:name"``.
    kwargs : mapping
        Its arguments; picklable when `runner` is ``"process"``.
    runner : {"process", "thread"}
        In a child process at low priority (for training and prediction), or in the worker thread itself (for what the
        window has in memory).
    kind : str
        A word by which panels know their own jobs: "train", "predict", "check", "load", "score" …
    quick : bool
        Small work for the window itself. It does not queue behind the long jobs and is not shown among them.
    """

    title: str
    function: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    runner: Literal["process", "thread"] = "process"
    kind: str = ""
    quick: bool = False


class Control:
    """What is asked of one running job, from any thread: pause, go on, stop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._going = threading.Event()
        self._going.set()
        self._stopped = False
        self._listener: Callable[[Wish], None] | None = None

    @property
    def paused(self) -> bool:
        """Whether the job waits."""
        return not self._going.is_set()

    @property
    def stopped(self) -> bool:
        """Whether the job shall end."""
        return self._stopped

    def ask(self, wish: Wish) -> None:
        """Ask for a change; once stopped, nothing else counts."""
        with self._lock:
            if self._stopped:
                return
            if wish == "pause":
                self._going.clear()
            else:
                self._stopped = wish == "stop"
                self._going.set()
            if self._listener is not None:
                self._listener(wish)

    def may_go_on(self) -> bool:
        """Wait while the job is paused, then tell whether it may take its next step."""
        self._going.wait()
        return not self._stopped

    @contextmanager
    def heard_by(self, listener: Callable[[Wish], None]) -> Iterator[None]:
        """Pass every wish on to `listener` as well, also the one that was there before."""
        with self._lock:
            self._listener = listener
            if self._stopped:
                listener("stop")
            elif self.paused:
                listener("pause")
        try:
            yield
        finally:
            with self._lock:
                self._listener = None


def fleeting(event: object) -> type | None:
    """Return the kind of an event of which only the newest matters (Step, Progress), None for all others."""
    for kind in (Step, Progress):
        if isinstance(event, kind):
            return kind
    return None


class Outbox(Generic[T]):
    """A queue between two threads that keeps the order and loses nothing but outdated steps and progress.

    Parameters
    ----------
    kind : callable
        Gives for an item the kind of which only the newest matters, or None if the item must arrive.
    limit : int
        `put` waits while so many items are waiting, so that a fast job cannot fill the memory.
    """

    def __init__(self, kind: Callable[[T], object | None], limit: int = 1000) -> None:
        self._kind = kind
        self._limit = limit
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> None:
        """Add an item; it takes the place of an outdated one if nothing that must arrive came between."""
        with self._changed:
            self._drop_outdated(self._kind(item))
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._limit)
            self._items.append(item)
            self._changed.notify_all()

    def _drop_outdated(self, kind: object | None) -> None:
        if kind is None:
            return
        for place in range(len(self._items) - 1, -1, -1):
            other = self._kind(self._items[place])
            if other is None:
                return
            if other == kind:
                del self._items[place]
                return

    def take(self, most: int | None = None) -> list[T]:
        """Return and remove what is waiting, at most `most` items, without waiting."""
        with self._changed:
            count = len(self._items) if most is None else min(most, len(self._items))
            taken = [self._items.popleft() for _ in range(count)]
            self._changed.notify_all()
        return taken

    def wait(self) -> None:
        """Wait until something is there."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items))

    def close(self) -> None:
        """Never let `put` wait again: nobody will take any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)


@job
def _events(function: str, kwargs: Mapping[str, Any]) -> Iterator[Event]:
    module, _, name = function.partition(":")
    yield from getattr(importlib.import_module(module), name)(**kwargs)


def carry_out(function: str, kwargs: Mapping[str, Any], control: Control, emit: Callable[[Event], None]) -> Ending:
    """Iterate a job's events in this thread until it ends or is stopped; pausing is not advancing, stopping is closing.

    Every job that is not stopped emits exactly one Finished or Failed, whatever its generator does.

    Returns
    -------
    {"finished", "failed", "stopped"}
    """
    events = _events(function, kwargs)
    ending: Ending = "stopped"
    try:
        while control.may_go_on():
            event = next(events, None)
            if event is None:
                event = Failed("The work ended without a result. This is a defect of napari-seg3d; please report it.")
            emit(event)
            if isinstance(event, Finished | Failed):
                ending = "finished" if isinstance(event, Finished) else "failed"
                break
    except (SystemExit, KeyboardInterrupt) as error:
        emit(Failed(f"The work was broken off ({type(error).__name__}).", traceback.format_exc()))
        ending = "failed"
    try:
        events.close()  # type: ignore[attr-defined]  # a job is a generator; its type says iterator
    except Exception as error:
        # The clean-up itself failed: the end of the job stands, but the user must know that saving may have failed.
        emit(Warned(f"Cleaning up after the work failed ({error}). What it was writing last may be incomplete."))
    return ending
