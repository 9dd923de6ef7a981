"""The far end of the worker: a process at low priority that carries out jobs and ends soon after its window.

It is started as a fresh interpreter, not by `multiprocessing.Process`, whose spawn method runs the user's main script
again: a script that opens napari without a main guard would open a second window. What passes between the two
processes is the same, a `multiprocessing.connection`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Listener
from typing import Any

from ..events import Event, Failed
from .work import Control, Ending, Outbox, carry_out, fleeting

#: Seconds that a job gets to save when the window has gone, before the process ends itself.
GRACE_S = 4.0
#: Seconds between two parcels of events; what is outdated within one is dropped.
PARCEL_S = 0.1


class _Child:
    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[tuple[str, dict[str, Any], Control] | Failed | None] = queue.SimpleQueue()
        self._outbox: Outbox[Event | Ending] = Outbox(fleeting)
        self._control = Control()

    def listen(self, connection: Connection) -> None:
        """Take requests and wishes until the window has gone."""
        while True:
            try:
                message = connection.recv()
            except (EOFError, OSError):
                return
            except Exception as error:
                self._requests.put(Failed(f"The work process could not read what it was given ({error})."))
                continue
            if isinstance(message, str):
                self._control.ask(message)  # type: ignore[arg-type]  # the window sends nothing but wishes
            else:
                self._control = Control()
                self._requests.put((*message, self._control))

    def work(self) -> None:
        """Carry out requests, one after the other, until `leave`."""
        while (request := self._requests.get()) is not None:
            ending: Ending = "failed"
            if isinstance(request, Failed):
                self._outbox.put(request)
            else:
                ending = carry_out(*request, self._outbox.put)
            self._outbox.put(ending)

    def send(self, connection: Connection) -> None:
        """Send parcels of events until the window has gone."""
        while True:
            self._outbox.wait()
            parcel = self._outbox.take()
            try:
                _send(connection, parcel)
            except OSError:
                return
            if not isinstance(parcel[-1], str):
                time.sleep(PARCEL_S)

    def leave(self) -> None:
        """Stop the job, let it save for a while, then end this process in any case."""
        watchdog = threading.Timer(GRACE_S, os._exit, (1,))
        watchdog.daemon = True
        watchdog.start()
        self._outbox.close()
        self._requests.put(None)
        self._control.ask("stop")


def _send(connection: Connection, parcel: list[Event | Ending]) -> None:
    try:
        connection.send(parcel)
    except OSError:
        raise
    except Exception as error:
        # Something in the parcel cannot be pickled: send one by one, so that only that one is lost, and said to be.
        if len(parcel) == 1:
            connection.send([Failed(f"The result could not be passed to the window ({error}).")])
        for event in parcel if len(parcel) > 1 else ():
            _send(connection, [event])


def _start(target: Callable[..., None], *args: Any) -> None:
    threading.Thread(target=target, args=args, daemon=True).start()


def _leave_with_window(child: _Child) -> None:
    # Not through sys.stdin: a thread that holds its lock makes the interpreter abort at exit.
    while os.read(0, 1):
        pass
    child.leave()


def _step_back() -> None:
    """Take the lowest priority, so that the window gets a core the moment it wants one."""
    if hasattr(os, "nice"):
        os.nice(10)
    if hasattr(os, "SCHED_IDLE"):
        # Linux: whatever wakes up in the window goes first at once. Some containers forbid it; then nice has to do.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main() -> None:
    """Say on standard output where to connect, then carry out what comes through the connection."""
    faulthandler.enable()
    # Ctrl+C in the terminal is for the window, which then stops the job in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _step_back()
    hello = json.loads(sys.stdin.readline())
    sys.path.extend(entry for entry in hello["path"] if entry not in sys.path)
    child = _Child()
    _start(_leave_with_window, child)
    with Listener(authkey=bytes.fromhex(hello["key"])) as listener:
        print(json.dumps(listener.address), flush=True)
        # From here on whatever a library prints goes to the log, not into the window's ear.
        os.dup2(2, 1)
        connection = listener.accept()
    _start(child.listen, connection)
    _start(child.send, connection)
    child.work()
    # The work is over and its files are whole; taking torch's libraries down in order would keep the window waiting.
    os._exit(0)
