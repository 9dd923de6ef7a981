"""A job's events on a terminal: progress with the time left on standard error, and stopping it with Ctrl-C."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any, TextIO

from ..errors import Seg3dError
from ..events import EpochDone, Event, Failed, Finished, Progress, Step, Validated, Warned, details_in_words

#: A terminal's line is rewritten at most this often; without a terminal a line is written at most this often.
_REWRITE_S, _SPARSE_S = 0.1, 10.0
#: Without a terminal nothing is written in the first seconds.
_SILENT_S = 2.0


class StoppedError(Exception):
    """The user stopped a job, and it has saved its work; the message says what is left."""


class JobFailedError(Seg3dError):
    """A job ended without its result; `details` is for a report."""

    def __init__(self, message: str, details: str) -> None:
        super().__init__(message)
        self.details = details


class Terminal:
    """Where progress is written.

    On a terminal one line is rewritten; into a file or pipe a line is written now and then. Warnings and validations
    always get a line of their own.

    Parameters
    ----------
    stream : TextIO, optional
        Standard error by default.
    quiet : bool
        Whether only warnings are written.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._rewrites = self._stream.isatty()
        self._quiet = quiet
        # Work that takes a moment only leaves no line in a file.
        self._written_at = -_SPARSE_S if self._rewrites else time.monotonic() - _SPARSE_S + _SILENT_S
        self._line_is_open = False

    def show(self, event: Event) -> None:
        """Write what an event says."""
        if isinstance(event, Warned):
            self.line(f"warning: {event.message}")
        elif isinstance(event, Validated):
            if not self._quiet:
                self.line(in_words(event))
        elif text := in_words(event):
            self._progress(text)

    def line(self, text: str) -> None:
        """Write a line that stays."""
        self.end()
        print(text, file=self._stream, flush=True)

    def note(self, text: str) -> None:
        """Write a line that stays, unless the user wants quiet."""
        if not self._quiet:
            self.line(text)

    def end(self) -> None:
        """Wipe the line that is being rewritten."""
        if self._line_is_open:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._line_is_open = False

    def _progress(self, text: str) -> None:
        now = time.monotonic()
        if self._quiet or now - self._written_at < (_REWRITE_S if self._rewrites else _SPARSE_S):
            return
        self._written_at = now
        if not self._rewrites:
            self.line(text)
            return
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[K{text[:width]}")
        self._stream.flush()
        self._line_is_open = True


def follow(events: Iterator[Event], terminal: Terminal) -> Finished:
    """Run a job to its end and show its events.

    Ctrl-C (SIGINT) or SIGTERM closes the job at its next event, which lets it save; a second one ends at once.

    Raises
    ------
    JobFailedError
        With the message of the job's `Failed`.
    StoppedError
        If the user stopped it.
    """
    finished: Finished | None = None
    with _stop_signals() as stop, closing(_closable(events)) as running:
        for event in running:
            if isinstance(event, Finished):
                # Not the end of the loop: what a job still has to tidy up comes behind its last event.
                finished = event
            elif isinstance(event, Failed):
                terminal.end()
                raise JobFailedError(event.message, event.details)
            else:
                terminal.show(event)
                if stop:
                    terminal.note("stopping, and saving what is done …")
                    break
    terminal.end()
    if finished is not None:
        return finished
    if stop:
        raise StoppedError("interrupted.")
    raise Seg3dError("The work ended without a result.")


def _closable(events: Iterator[Event]) -> Any:
    # Jobs are generators; a plain iterator (in a script) has nothing to close.
    return events if hasattr(events, "close") else (event for event in events)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """While in the context, the first SIGINT or SIGTERM is put into the list that comes back."""
    received: list[int] = []
    old: dict[int, Any] = {}

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each, handler in old.items():
            signal.signal(each, handler)

    try:
        for each in (signal.SIGINT, signal.SIGTERM):
            old[each] = signal.signal(each, remember)
    except ValueError:
        # Not in the main thread, which alone receives signals.
        old.clear()
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def in_words(event: Event) -> str:
    """What an event says, on one line; empty if there is nothing to say."""
    match event:
        case Progress(what, done, total, left):
            share = "" if not total else f" {done:.0f}/{total:.0f}" if total > 1 else f" {done / total:.0%}"
            return f"{what}{share}{_left(left)}"
        case Step(step=step, epoch=epoch, loss=loss, seconds_left=left, details=details):
            # The time left stands in front of what a narrow terminal may cut off.
            return f"epoch {epoch + 1} · step {step}{_left(left)} · {_losses(loss, details)}"
        case EpochDone(epoch=epoch, epochs=epochs, loss=loss, seconds_left=left, details=details):
            of = "" if epochs is None else f" of {epochs}"
            return f"epoch {epoch}{of} done{_left(left)} · {_losses(loss, details)}"
        case Validated(dice=dice, mean_dice=mean, epoch=epoch, best=best, loss=loss):
            parts = ", ".join(f"{name} {value:.3f}" for name, value in dice.items())
            also = "" if loss is None else f" · loss {loss:.3f}"
            return f"epoch {epoch} validated · mean Dice {mean:.3f} ({parts}){also}{' · best so far' if best else ''}"
    return ""


def _losses(loss: float, details: Mapping[str, float]) -> str:
    # Of a generator the loss is among the details.
    return details_in_words(details) if details else f"loss {loss:.3f}"


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f" · {duration(seconds)} left"


def duration(seconds: float) -> str:
    """A time span for people.

    Examples
    --------
    >>> duration(8), duration(90), duration(7260)
    ('8 s', '1 min 30 s', '2 h 1 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
