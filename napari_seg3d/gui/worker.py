"""One long-lived worker thread that carries out jobs one after the other, here or in a child process that it owns.

The thread is a napari worker, so that napari asks before the window closes while it is busy, and ends it at exit. It
is our own kind of worker, because superqt's generator worker swallows every RuntimeError (with them torch's
out-of-memory error) and changes Python's warning filters while it runs. Events wait in an `Outbox` and are handed out
in the window's thread at most ten times a second, a few milliseconds at a time, however fast the job is.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, Protocol, cast

from qtpy.QtCore import QObject, QThreadPool, QTimer, Signal
from superqt.utils import WorkerBase

from ..events import Event, Failed
from .work import Control, Ending, Job, Outbox, Wish, carry_out, fleeting

__all__ = ["Job", "JobRunner"]

#: Seconds a job gets to save when the window closes.
SHUTDOWN_S = 4.5
#: Seconds after the last job at which the child process is let go, and with it its GPU memory.
IDLE_S = 20.0
#: Seconds between two deliveries of events to the window, and the part of it that may be spent on them.
DELIVERY_S, DELIVERY_SHARE = 0.1, 0.1
#: Python's switch interval while a job shares the interpreter with the window (the default of 5 ms makes it stutter).
SWITCH_S = 0.0005


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Runner(Protocol):
    """Where a job is carried out. Both runners give the same events."""

    def run(self, job: Job, control: Control, emit: Callable[[Event], None]) -> Ending:
        """Carry out one job in or from this thread; return how it ended."""

    def kill(self) -> None:
        """End the job at once if that is possible; called from another thread."""

    def release(self) -> None:
        """Give back what is kept between jobs."""


class ShortTurns:
    """Short turns at the interpreter as long as a job shares it with the window; counted, for several workers.

    Workers of one process share one of these: two that each restored what they had found would leave it changed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._before = sys.getswitchinterval()

    def __enter__(self) -> None:
        with self._lock:
            if self._count == 0:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before, SWITCH_S))
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                sys.setswitchinterval(self._before)


class InThread:
    """Carries out jobs in the worker thread itself."""

    def __init__(self, turns: ShortTurns) -> None:
        self._turns = turns

    def run(self, job: Job, control: Control, emit: Callable[[Event], None]) -> Ending:
        """Carry out the job with short turns at the interpreter; a long one leaves one core to the window."""
        if job.quick:
            with self._turns:
                return carry_out(job.function, job.kwargs, control, emit)
        with self._turns, _LeaveOneCore() as leave_one_core:

            def emit_and_leave_one_core(event: Event) -> None:
                # After every event, because it is the job that imports torch.
                leave_one_core()
                emit(event)

            return carry_out(job.function, job.kwargs, control, emit_and_leave_one_core)

    def kill(self) -> None:
        """A thread cannot be killed; it ends at its next event."""

    def release(self) -> None:
        """Nothing is kept."""


class _LeaveOneCore:
    def __enter__(self) -> Callable[[], None]:
        self._before: int | None = None
        return self

    def __call__(self) -> None:
        torch: Any = sys.modules.get("torch")
        # While another thread imports torch, the half-made module has no functions yet.
        if self._before is None and hasattr(torch, "set_num_threads"):
            self._before = torch.get_num_threads()
            torch.set_num_threads(max(1, min(self._before, cores() - 1)))

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            sys.modules["torch"].set_num_threads(self._before)


class InChild:
    """Carries out jobs in a child process: low priority, own memory, and a crash leaves the window alive."""

    def __init__(self) -> None:
        self._child: _ChildProcess | None = None
        self._killed = False

    def run(self, job: Job, control: Control, emit: Callable[[Event], None]) -> Ending:
        """Carry out the job in the child, which is started when there is none."""
        if control.stopped:
            return "stopped"
        try:
            child = self._started()
            child.connection.send((job.function, dict(job.kwargs)))
        except Exception as error:
            self.release()
            emit(Failed(f"The work process could not be started ({error}).", traceback.format_exc()))
            return "failed"
        failed = False
        try:
            with control.heard_by(child.tell):
                while True:
                    for item in cast("list[Event | Ending]", child.connection.recv()):
                        if isinstance(item, str):
                            return "failed" if failed else item
                        failed = failed or isinstance(item, Failed)
                        emit(item)
        except (EOFError, OSError):
            emit(Failed(child.last_words(), child.log()))
            self.release()
            return "stopped" if self._killed else "crashed"

    def _started(self) -> _ChildProcess:
        if self._child is not None and self._child.process.poll() is not None:
            self.release()
        if self._child is None:
            self._child = _ChildProcess()
        return self._child

    def kill(self) -> None:
        """End the child process at once; what its job had not saved is lost."""
        self._killed = True
        if self._child is not None:
            self._child.process.kill()

    def release(self) -> None:
        """Let the child process go, and with it all memory it holds, on the GPU too."""
        if self._child is not None:
            self._child.close()
            self._child = None

    @property
    def pid(self) -> int | None:
        """Process number of the child, if there is one."""
        return None if self._child is None else self._child.process.pid


class _ChildProcess:
    def __init__(self) -> None:
        key = secrets.token_bytes(32)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from napari_seg3d.gui.child import main; main()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=_child_environment(),
            # Unix children lower their own priority.
            creationflags=getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),
        )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            # The child takes the end of its standard input for the end of the window, so it stays open.
            self.process.stdin.write(json.dumps({"key": key.hex(), "path": sys.path}).encode() + b"\n")
            self.process.stdin.flush()
            address = json.loads(self.process.stdout.readline() or "null")
            if address is None:
                raise OSError(self.last_words())
            self.connection: Connection = Client(tuple(address) if isinstance(address, list) else address, authkey=key)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def tell(self, wish: Wish) -> None:
        # A child that has just died is noticed by the thread that reads from it.
        with contextlib.suppress(OSError):
            self.connection.send(wish)

    def close(self) -> None:
        self.connection.close()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self.process.wait(SHUTDOWN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def last_words(self) -> str:
        """Say in words why the process has gone."""
        try:
            code = self.process.wait(2)
        except subprocess.TimeoutExpired:
            return "The connection to the work process was lost. Start the work again."
        cause = f"with status {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                cause = f"by {signal.Signals(-code).name}"
        advice = "What it had saved is kept; start or resume it again."
        if cause == "by SIGKILL":
            advice = (
                "Usually that means that the computer's memory was full: close other programs or choose a smaller "
                f"patch or batch. {advice}"
            )
        return f"The work process was ended {cause}. {advice}"

    def log(self) -> str:
        """Return the last lines that it wrote to standard error."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - 8000))
        return self._log.read().decode(errors="replace")


def _child_environment() -> dict[str, str]:
    environment = dict(os.environ)
    package_parent = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package_parent, environment.get("PYTHONPATH"))))
    environment.setdefault("OMP_NUM_THREADS", str(cores()))
    # Threads that wait for work by spinning would take the window's core although the priority is low.
    environment.setdefault("OMP_WAIT_POLICY", "passive")
    return environment


class _Started:
    """Stands in the outbox where a job begins."""


_Mail = tuple[Job, "Event | Ending | _Started"]


def _fleeting_mail(mail: _Mail) -> object | None:
    return fleeting(mail[1])


class _Desk:
    """What the window's thread and the worker thread share: waiting jobs, the running one, and the outbox."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: deque[Job] = deque()
        self.current: tuple[Job, Control] | None = None
        self.closing = False
        self.closed = threading.Event()
        self.outbox: Outbox[_Mail] = Outbox(_fleeting_mail)

    def next(self, patience_s: float | None) -> tuple[Job, Control] | None:
        """Wait for a job at most `patience_s` seconds and make it the current one."""
        with self.changed:
            self.changed.wait_for(lambda: self.closing or self.waiting, patience_s)
            if self.closing or not self.waiting:
                return None
            self.current = (self.waiting.popleft(), Control())
            return self.current

    def done(self) -> None:
        with self.changed:
            self.current = None


class _Worker(WorkerBase):
    def __init__(self, desk: _Desk, wake: Callable[[], None], idle_s: float, turns: ShortTurns) -> None:
        super().__init__()
        self._desk = desk
        self._wake = wake
        self._idle_s = idle_s
        self._killer: threading.Timer | None = None
        self.runners: dict[str, Runner] = {"thread": InThread(turns), "process": InChild()}

    def run(self) -> None:
        """Work until `quit`. Unlike the base class's, it leaves Python's warning filters as they are."""
        self._running = True
        # A worker that lives as long as the window must not hold one of the few places in Qt's pool. Qt converts
        # images for the screen in the same pool, while the window's thread waits for it and, under PyQt5, holds the
        # interpreter: with every place taken by a worker that needs the interpreter, neither would ever go on.
        pool = QThreadPool.globalInstance()
        pool.releaseThread()
        try:
            self._work()
        finally:
            pool.reserveThread()
            self._running = False
            with self._desk.changed:
                self._desk.closed.set()
                if self._killer is not None:
                    self._killer.cancel()
            # At the end of the program Qt may have deleted the signals already.
            with contextlib.suppress(RuntimeError):
                self.finished.emit()
                self._finished.emit(self)

    def _work(self) -> None:
        busy = False
        while not self._desk.closing:
            found = self._desk.next(self._idle_s if busy else None)
            busy = found is not None
            if found is None:
                self._release()
                continue
            job, control = found
            self._put((job, _Started()))
            try:
                ending = self.runners[job.runner].run(job, control, partial(self._report, job))
            except Exception as error:
                # Whatever happens to one job, the thread lives on for the next.
                self._report(job, Failed(f"The work broke off ({error}).", traceback.format_exc()))
                ending = "failed"
            self._desk.done()
            self._put((job, ending))
            del found, job, control
        self._release()

    def _report(self, job: Job, event: Event) -> None:
        self._put((job, event))

    def _put(self, mail: _Mail) -> None:
        self._desk.outbox.put(mail)
        self._wake()

    def _release(self) -> None:
        for runner in self.runners.values():
            runner.release()

    def quit(self) -> None:
        """Stop the running job and end the thread. A job that does not stop in time is killed if it can be."""
        super().quit()
        desk = self._desk
        with desk.changed:
            desk.closing = True
            desk.waiting.clear()
            current = desk.current
            desk.changed.notify_all()
        desk.outbox.close()
        if current is None:
            return
        job, control = current
        control.ask("stop")
        with desk.changed:
            if self._killer is None and not desk.closed.is_set():
                self._killer = threading.Timer(SHUTDOWN_S, self.runners[job.runner].kill)
                self._killer.daemon = True
                self._killer.start()


class JobRunner(QObject):
    """Carries out jobs one at a time; further ones queue.

    All signals come in the thread of this object. For every job that begins: `started`, any number of `reported`,
    `ended`. A queued job that is dropped only makes the queue change.
    """

    started = Signal(object)  # Job
    reported = Signal(object, object)  # Job, Event
    ended = Signal(object, str)  # Job, Ending
    changed = Signal()  # the queue, or whether the job is paused
    _woken = Signal()

    def __init__(
        self, parent: QObject | None = None, *, idle_s: float = IDLE_S, turns: ShortTurns | None = None
    ) -> None:
        super().__init__(parent)
        self._turns = turns or ShortTurns()
        self._desk = _Desk()
        self._worker: _Worker | None = None
        self._idle_s = idle_s
        self._current: Job | None = None
        #: Started, and neither dropped nor known to this thread to have ended.
        self._open: list[Job] = []
        self._paused = False
        self._last_delivery = 0.0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._deliver)
        self._woken.connect(self._deliver_soon)

    @property
    def current(self) -> Job | None:
        """The job that runs or is paused."""
        return self._current

    @property
    def queue(self) -> tuple[Job, ...]:
        """The jobs that wait; also one that the worker has begun but that was not announced yet."""
        return tuple(job for job in self._open if job is not self._current)

    @property
    def paused(self) -> bool:
        """Whether the current job is paused."""
        return self._paused

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return self._current is not None or bool(self._desk.waiting) or self._desk.current is not None

    def start(self, job: Job) -> None:
        """Carry out `job` as soon as the jobs before it have ended."""
        desk = self._desk
        if desk.closing:
            return
        self._open.append(job)
        with desk.changed:
            desk.waiting.append(job)
            desk.changed.notify_all()
        if self._worker is None:
            self._worker = _Worker(desk, self._wake, self._idle_s, self._turns)
            self._worker.start()
            # A program that ends without `shutdown` would wait for the idle thread for ever.
            weakref.finalize(self, self._worker.quit)
        self.changed.emit()

    def drop(self, job: Job) -> None:
        """Take a job that waits out of the queue, or stop it if it runs already."""
        with self._desk.changed:
            waits = job in self._desk.waiting
            if waits:
                self._desk.waiting.remove(job)
                self._open.remove(job)
            current = self._desk.current
        if not waits and current is not None and current[0] is job:
            current[1].ask("stop")
        self.changed.emit()

    def stop(self) -> None:
        """Ask the current job to save and end."""
        self._ask("stop")

    def pause(self) -> None:
        """Ask the current job to wait after its next event."""
        self._ask("pause")

    def resume(self) -> None:
        """Let a paused job go on."""
        self._ask("resume")

    def _ask(self, wish: Wish) -> None:
        current = self._desk.current
        # What the user sees may have ended a moment ago; the wish is not meant for the job after it.
        if current is not None and self._current in (None, current[0]):
            current[1].ask(wish)
            self._paused = current[1].paused
            self.changed.emit()

    def shutdown(self, timeout_s: float = SHUTDOWN_S + 0.5) -> bool:
        """Stop the current job, drop the others and wait for the worker to end; return whether it did in time.

        Nothing is reported any more. Safe to call more than once.
        """
        # At the end of the program Qt deletes its objects in an order of its own.
        with contextlib.suppress(RuntimeError):
            self._timer.stop()
        if self._worker is None:
            self._desk.closing = True
            return True
        self._worker.quit()
        return self._desk.closed.wait(timeout_s)

    def _wake(self) -> None:
        # From the worker thread; when the window is being deleted there is nobody to wake.
        with contextlib.suppress(RuntimeError):
            self._woken.emit()

    def _deliver_soon(self) -> None:
        if not self._timer.isActive() and not self._desk.closing:
            rest_s = self._last_delivery + DELIVERY_S - time.monotonic()
            self._timer.start(max(0, round(rest_s * 1000)))

    def _deliver(self) -> None:
        start = self._last_delivery = time.monotonic()
        try:
            while time.monotonic() - start < DELIVERY_S * DELIVERY_SHARE:
                mail = self._desk.outbox.take(1)
                if not mail:
                    return
                self._hand_out(*mail[0])
        finally:
            # Also when a listener raised.
            if len(self._desk.outbox):
                self._deliver_soon()

    def _hand_out(self, job: Job, item: Any) -> None:
        if isinstance(item, _Started):
            self._current, self._paused = job, False
            self.started.emit(job)
            self.changed.emit()
        elif isinstance(item, Event):
            self.reported.emit(job, item)
        else:
            self._current, self._paused = None, False
            self._open.remove(job)
            self.ended.emit(job, item)
            self.changed.emit()
