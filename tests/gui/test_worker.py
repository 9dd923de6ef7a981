"""Both runners give the same events and end properly, whatever happens to the job, the child or the window."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from qtpy.QtCore import QThreadPool
from qtpy.QtGui import QImage
from superqt.utils import WorkerBase

from napari_seg3d.events import Event, Failed, Finished, Progress, Saved, Step, Warned
from napari_seg3d.gui import worker as worker_module
from napari_seg3d.gui.work import Job, Outbox, fleeting
from napari_seg3d.gui.worker import JobRunner

BOTH = pytest.mark.parametrize("runner", ["thread", "process"])


class Log:
    """A job runner and all that it reported."""

    def __init__(self, qtbot: Any, idle_s: float = 20.0) -> None:
        self.qtbot = qtbot
        self.jobs = JobRunner(idle_s=idle_s)
        self.heard: list[tuple[str, Any]] = []
        self.jobs.started.connect(lambda job: self.heard.append((job.title, "started")))
        self.jobs.reported.connect(lambda job, event: self.heard.append((job.title, event)))
        self.jobs.ended.connect(lambda job, how: self.heard.append((job.title, how)))

    def start(self, function: str, runner: str, title: str = "job", **kwargs: Any) -> Job:
        job = Job(title, f"worker_jobs:{function}", kwargs, runner)
        self.jobs.start(job)
        return job

    def wait_for_end(self, title: str = "job", count: int = 1) -> str:
        self.qtbot.waitUntil(lambda: len(self.endings(title)) >= count, timeout=60_000)
        return self.endings(title)[-1]

    def endings(self, title: str) -> list[str]:
        return [item for name, item in self.heard if name == title and isinstance(item, str) and item != "started"]

    def events(self, kind: type[Event] = Event, title: str = "job") -> list[Any]:
        return [item for name, item in self.heard if name == title and isinstance(item, kind)]

    def wait_for_event(self, kind: type[Event] = Progress, title: str = "job") -> None:
        self.qtbot.waitUntil(lambda: bool(self.events(kind, title)), timeout=60_000)


@pytest.fixture
def log(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    log = Log(qtbot, idle_s=1.0)
    yield log
    assert log.jobs.shutdown(), "the worker did not end in time"
    assert QThreadPool.globalInstance().waitForDone(2000)
    assert not [child for child in psutil.Process().children() if "napari_seg3d.gui.child" in " ".join(child.cmdline())]


@BOTH
def test_events_come_in_order_and_none_that_matters_is_lost(log: Log, runner: str) -> None:
    log.start("count", runner, n=500)
    assert log.wait_for_end() == "finished"
    assert log.heard[0] == ("job", "started")
    assert log.events(Saved) == [Saved(Path(str(i)), "number") for i in range(0, 500, 10)]
    done = [event.done for event in log.events(Progress)]
    assert done == sorted(done)
    assert log.events()[-1] == Finished(500)
    assert len(log.events(Finished)) == 1
    assert log.jobs.current is None


@BOTH
def test_a_fast_job_cannot_flood_the_window(log: Log, runner: str) -> None:
    start = time.monotonic()
    log.start("steps_and_progress", runner, n=20_000)
    assert log.wait_for_end() == "finished"
    # The first and the last go out at once, and a delivery may end within two of the others.
    most = 2 * (time.monotonic() - start) / worker_module.DELIVERY_S + 5
    assert len(log.events(Step)) <= most
    assert len(log.events(Progress)) <= most
    assert log.events(Step)[-1].step == 19_999


@BOTH
@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("out_of_memory", "CUDA out of memory"),
        ("raises_without_being_a_job", "Unexpected ValueError: three"),
        ("ends_without_result", "ended without a result"),
        ("there_is_no_such_job", "no attribute"),
    ],
)
def test_every_failure_ends_in_words_and_the_next_job_runs(log: Log, runner: str, function: str, words: str) -> None:
    log.start(function, runner)
    log.start("count", runner, title="next", n=3)
    assert log.wait_for_end() == "failed"
    [failed] = log.events(Failed)
    assert words in failed.message
    assert log.wait_for_end("next") == "finished"


def test_a_result_that_cannot_be_sent_is_a_failure_in_words(log: Log) -> None:
    log.start("unsendable", "process")
    assert log.wait_for_end() == "failed"
    assert log.events(Warned) == [Warned("before")]
    assert "could not be passed to the window" in log.events(Failed)[0].message


def test_arguments_that_cannot_be_sent_are_a_failure_in_words(log: Log) -> None:
    log.start("count", "process", n=lambda: 1)
    assert log.wait_for_end() == "failed"
    log.start("count", "process", title="next", n=3)
    assert log.wait_for_end("next") == "finished"


@BOTH
def test_stop_closes_the_generator_which_saves(log: Log, runner: str, tmp_path: Path) -> None:
    log.start("saves_when_stopped", runner, marker=tmp_path / "marker")
    log.wait_for_event()
    log.jobs.stop()
    assert log.wait_for_end() == "stopped"
    assert (tmp_path / "marker").read_text() == "saved"
    assert not log.events(Failed)


@BOTH
def test_stop_at_once(log: Log, runner: str) -> None:
    for ended in range(1, 4):
        log.start("count", runner, n=100_000, pause_s=0.01)
        # Before the window has heard that it began; in a child even before the process is there.
        log.qtbot.waitUntil(lambda: log.jobs._desk.current is not None, timeout=30_000)
        log.jobs.stop()
        log.wait_for_end(count=ended)
    assert log.endings("job") == ["stopped"] * 3


@BOTH
def test_a_clean_up_that_fails_is_told(log: Log, runner: str) -> None:
    log.start("cannot_save", runner)
    log.wait_for_event()
    log.jobs.stop()
    assert log.wait_for_end() == "stopped"
    assert "disk full" in log.events(Warned)[0].message


@BOTH
def test_pause_holds_the_job_and_resume_goes_on(log: Log, runner: str) -> None:
    log.start("count", runner, n=40, pause_s=0.02)
    log.wait_for_event()
    log.jobs.pause()
    assert log.jobs.paused
    log.qtbot.wait(400)
    heard = len(log.heard)
    log.qtbot.wait(400)
    assert len(log.heard) == heard
    log.jobs.resume()
    assert log.wait_for_end() == "finished"
    assert not log.jobs.paused
    assert log.events(Saved) == [Saved(Path(str(i)), "number") for i in range(0, 40, 10)]


@BOTH
def test_a_paused_job_can_be_stopped(log: Log, runner: str, tmp_path: Path) -> None:
    log.start("saves_when_stopped", runner, marker=tmp_path / "marker")
    log.wait_for_event()
    log.jobs.pause()
    log.qtbot.wait(100)
    log.jobs.stop()
    assert log.wait_for_end() == "stopped"
    assert (tmp_path / "marker").exists()


def test_jobs_queue_and_can_be_dropped(log: Log) -> None:
    log.start("count", "thread", title="first", n=10, pause_s=0.02)
    second = log.start("count", "process", title="second", n=3)
    log.start("count", "thread", title="third", n=3)
    assert len(log.jobs.queue) >= 2
    log.jobs.drop(second)
    assert log.wait_for_end("third") == "finished"
    assert [name for name, item in log.heard if item == "started"] == ["first", "third"]


def test_dropping_the_running_job_stops_it(log: Log) -> None:
    job = log.start("count", "thread", n=100_000, pause_s=0.01)
    log.wait_for_event()
    log.jobs.drop(job)
    assert log.wait_for_end() == "stopped"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_of_the_child_ends_in_words_and_leaves_the_window_alive(log: Log, number: signal.Signals) -> None:
    log.start("dies", "process", signal_number=int(number))
    assert log.wait_for_end() == "crashed"
    assert log.events(Warned) == [Warned("alive")]
    [failed] = log.events(Failed)
    assert number.name in failed.message
    assert "resume" in failed.message
    log.start("count", "process", title="next", n=3)
    assert log.wait_for_end("next") == "finished"


def test_the_child_is_reused_and_let_go_when_idle(log: Log) -> None:
    pids = []
    for title in ("one", "two"):
        log.start("facts", "process", title=title)
        log.wait_for_end(title)
        pids.append(log.events(Finished, title)[0].result["pid"])
    assert pids[0] == pids[1] != os.getpid()
    assert psutil.pid_exists(pids[0])
    log.qtbot.waitUntil(lambda: not psutil.pid_exists(pids[0]), timeout=30_000)


def test_the_child_is_polite_and_light(log: Log) -> None:
    log.start("facts", "process")
    log.wait_for_end()
    facts = log.events(Finished)[0].result
    assert facts["nice"] == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10)
    assert facts["policy"] == os.SCHED_IDLE
    assert not {"torch", "napari", "qtpy", "PyQt5", "PyQt6"} & set(facts["modules"])
    assert facts["threads"] == os.environ["OMP_NUM_THREADS"]


def test_a_job_in_the_thread_gets_short_turns_and_leaves_the_process_as_it_was(log: Log) -> None:
    interval, filters = sys.getswitchinterval(), list(warnings.filters)
    log.start("facts", "thread")
    log.wait_for_end()
    facts = log.events(Finished)[0].result
    assert facts["switch_s"] == pytest.approx(worker_module.SWITCH_S)
    assert facts["filters"] == filters
    log.qtbot.waitUntil(lambda: sys.getswitchinterval() == pytest.approx(interval), timeout=10_000)


def test_overlapping_workers_leave_the_interpreter_as_it_was() -> None:
    before = sys.getswitchinterval()
    turns = worker_module.ShortTurns()
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(turns)
        second.enter_context(turns)
        first.close()
        assert sys.getswitchinterval() == pytest.approx(worker_module.SWITCH_S)
    assert sys.getswitchinterval() == pytest.approx(before)


def test_a_job_in_the_thread_leaves_one_core_to_the_window(log: Log) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(worker_module.cores() + 1)
        log.start("torch_threads", "thread")
        log.wait_for_end()
        assert log.events(Finished)[0].result[1] == max(1, worker_module.cores() - 1)
    finally:
        torch.set_num_threads(before)


def test_many_jobs_leak_no_threads(log: Log) -> None:
    log.start("count", "thread", title="first", n=1)
    log.wait_for_end("first")
    threads = threading.active_count()
    for _ in range(50):
        log.start("count", "thread", n=5)
    log.wait_for_end(count=50)
    assert log.endings("job") == ["finished"] * 50
    assert threading.active_count() == threads


def test_an_idle_worker_leaves_its_place_in_the_pool_to_others(log: Log) -> None:
    log.start("count", "thread", n=1)
    log.wait_for_end()
    log.qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=10_000)


def test_busy_workers_leave_qts_pool_to_qt(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Qt converts images for the screen in its pool while the window's thread, which holds the interpreter, waits."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    places = QThreadPool.globalInstance().maxThreadCount()
    logs = [Log(qtbot) for _ in range(places)]
    for log in logs:
        log.start("count", "thread", n=1_000_000, pause_s=0.001)
    for log in logs:
        log.wait_for_event()
    # Large enough that Qt cuts it into parts for its pool; this hangs for ever if the workers hold all places.
    image = QImage(2000, 2000, QImage.Format.Format_RGB32)
    image.fill(0x123456)
    assert image.convertToFormat(QImage.Format.Format_RGBA8888).pixelColor(1999, 1999).name() == "#123456"
    for log in logs:
        assert log.jobs.shutdown()


@BOTH
def test_napari_ends_the_worker_at_exit(log: Log, runner: str, tmp_path: Path) -> None:
    log.start("saves_when_stopped", runner, marker=tmp_path / "marker")
    log.wait_for_event()
    # What napari calls when the application is about to quit.
    WorkerBase.await_workers(6000)
    assert (tmp_path / "marker").exists()


@BOTH
def test_shutdown_saves_within_five_seconds(log: Log, runner: str, tmp_path: Path) -> None:
    log.start("saves_when_stopped", runner, marker=tmp_path / "marker")
    log.start("count", runner, title="waiting", n=1)
    log.wait_for_event()
    start = time.monotonic()
    assert log.jobs.shutdown()
    assert time.monotonic() - start < 5
    assert (tmp_path / "marker").exists()
    log.qtbot.wait(200)
    assert ("waiting", "started") not in log.heard


def test_shutdown_kills_a_child_that_does_not_listen(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "SHUTDOWN_S", 0.5)
    log.start("deaf", "process", seconds=60)
    log.wait_for_event()
    start = time.monotonic()
    assert log.jobs.shutdown()
    assert time.monotonic() - start < 3


def test_a_listener_that_fails_does_not_stop_the_delivery(log: Log) -> None:
    def fail(_job: Job, event: Event) -> None:
        if isinstance(event, Saved):
            raise ZeroDivisionError

    with log.qtbot.captureExceptions() as exceptions:
        log.jobs.reported.connect(fail)
        log.start("count", "thread", n=30)
        assert log.wait_for_end() == "finished"
    assert [kind for kind, *_ in exceptions] == [ZeroDivisionError] * 3


WINDOW = """
    import sys
    from pathlib import Path
    from qtpy.QtCore import QCoreApplication
    from napari_seg3d.gui.worker import Job, JobRunner
    sys.path.insert(0, sys.argv[1])
    app = QCoreApplication([])
    jobs = JobRunner()
    kwargs = {"marker": Path(sys.argv[2]) / "marker", "heartbeat": Path(sys.argv[2]) / "heartbeat"}
    jobs.start(Job("job", "worker_jobs:saves_when_stopped", kwargs))
    app.exec()
"""


def test_the_child_saves_and_ends_when_the_window_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WINDOW), str(Path(__file__).parent), str(tmp_path)]
    window = subprocess.Popen(command, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"})
    heartbeat = tmp_path / "heartbeat"
    try:
        _wait(lambda: heartbeat.exists() and heartbeat.read_text().isdigit(), 20)
        child = int(heartbeat.read_text())
        assert child != window.pid
    finally:
        window.kill()
        window.wait()
    _wait(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE, 5)
    assert (tmp_path / "marker").read_text() == "saved"


FORGETFUL = """
    import sys
    from qtpy.QtCore import QCoreApplication
    from napari_seg3d.gui.worker import Job, JobRunner
    sys.path.insert(0, sys.argv[1])
    app = QCoreApplication([])
    jobs = JobRunner()
    jobs.ended.connect(lambda *_: app.quit())
    jobs.start(Job("job", "worker_jobs:count", {"n": 3}, sys.argv[2]))
    app.exec()
"""


@BOTH
def test_a_program_that_forgets_to_shut_down_ends_all_the_same(runner: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(FORGETFUL), str(Path(__file__).parent), runner]
    done = subprocess.run(command, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"}, timeout=60, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_outbox_keeps_order_and_drops_only_what_is_outdated() -> None:
    outbox: Outbox[Any] = Outbox(fleeting)
    first, second = Progress("a", 1), Progress("b", 2)
    step = Step(1, 0, 0.5, 0.1, 1.0)
    saved = Saved(Path("x"), "model")
    for item in (first, step, second, saved, first):
        outbox.put(item)
    assert outbox.take() == [step, second, saved, first]
    assert outbox.take() == []


def test_outbox_makes_a_fast_job_wait() -> None:
    outbox: Outbox[Any] = Outbox(fleeting, limit=5)
    thread = threading.Thread(target=lambda: [outbox.put(Saved(Path(str(i)), "x")) for i in range(20)], daemon=True)
    thread.start()
    _wait(lambda: len(outbox) == 5, 2)
    time.sleep(0.05)
    assert len(outbox) == 5
    taken = []
    while len(taken) < 20:
        taken += outbox.take()
    thread.join(2)
    assert [int(saved.path.name) for saved in taken] == list(range(20))


def _wait(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
