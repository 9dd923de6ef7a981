"""What belongs to one viewer: its workspace, its workers, the shown case. Found again through the viewer's window.

The session is a child of napari's main window, so that panels opened one by one share it and it ends with the window.
"""

from __future__ import annotations

import io
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.settings import get_settings
from napari.utils.progress import cancelable_progress
from napari.utils.task_status import Status
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QLabel

from ..events import Event, Progress, Step
from .case_view import CaseView, modality_layers
from .keeping import Keeper
from .keys import bind_keys
from .linked_views import IMAGES_MODE, PLANES_MODE, LinkedViewsDock
from .queueing import CaseQueue
from .saving import Saver
from .teaching import Teacher
from .worker import Job, JobRunner, ShortTurns
from .workspace import Settings, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari import Viewer
    from napari.components import Dims
    from qtpy.QtWidgets import QMainWindow

_NAME = "napari-seg3d"
#: Seconds between two updates of napari's activity dock, each of which makes napari process all waiting events.
_ACTIVITY_S = 0.5


def session_for(viewer: Viewer) -> Session:
    """Return the session of a viewer, a new one for a viewer that has none."""
    # Plugins get the viewer in a wrapping that hides its window.
    viewer = getattr(viewer, "__wrapped__", viewer)
    window = viewer.window._qt_window
    return window.findChild(Session, _NAME) or Session(viewer, window)


def workspace_for(viewer: Viewer) -> Workspace:
    """Return the workspace that all panels of a viewer share."""
    return session_for(viewer).workspace


class Session(QObject):
    """Workspace, workers and case view of one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    window : QMainWindow
        Its main window; the session is deleted with it.
    """

    def __init__(self, viewer: Viewer, window: QMainWindow) -> None:
        super().__init__(window)
        self.setObjectName(_NAME)
        config = get_settings().config_path
        settings = Settings(None if config is None else Path(config).with_name("napari-seg3d.json"))
        turns = ShortTurns()
        self._runners = (JobRunner(self, turns=turns), JobRunner(self, turns=turns))
        self.workspace = Workspace(*self._runners, settings)
        self.view = CaseView(self.workspace, viewer)
        self.saver = Saver(self.workspace, self.view)
        self.queue = CaseQueue(self.workspace)
        self.saver.saved.connect(self.queue.after_saving)
        self.teacher = Teacher(self.workspace, self.queue)
        self.keeper = Keeper(self.workspace, viewer, self.view, self.saver, self)
        self.linked_views = LinkedViewsDock(
            viewer, lambda: modality_layers(viewer, self.workspace), self._take_in_hand, self
        )
        bind_keys(
            viewer,
            self.linked_views,
            {
                "all_planes": lambda views: views.toggle(PLANES_MODE),
                "all_images": lambda views: views.toggle(IMAGES_MODE),
            },
        )
        self._activity = _Activity(self.workspace, window)
        self._close_question = _CloseQuestion(self.workspace, viewer, self.shutdown)
        window.destroyed.connect(self.shutdown)

    def _take_in_hand(self, dims: Dims | None) -> None:
        self.view.dims_in_hand = dims

    def shutdown(self) -> None:
        """Save and end what runs, within five seconds."""
        self.linked_views.close()
        # A case that is still appearing layer by layer would reach for a viewer that has gone.
        self.view.stop_steps()
        self.keeper.close()
        for runner in self._runners:
            runner.shutdown()
        self._activity.end()


class _CloseQuestion:
    """Lets napari ask before its window closes over running work or unsaved edits."""

    def __init__(self, workspace: Workspace, viewer: Viewer, shutdown: Callable[[], None]) -> None:
        self._workspace = workspace
        self._window = viewer.window
        self._ids = [
            self._window._register_task_status(_NAME, Status.COMPLETED, "", shutdown),
            self._window._register_task_status(_NAME, Status.COMPLETED, "", None),
        ]
        for signal in (workspace.job_started, workspace.job_ended, workspace.jobs_changed):
            signal.connect(self._update_work)
        workspace.unsaved_changed.connect(self._update_edits)

    def _update_work(self) -> None:
        job = self._workspace.current_job
        # A lesson that is not over has no model to keep.
        end = "stopped; the model stays as it is" if job is not None and job.kind == "learn" else "saved and stopped"
        self._update(0, "" if job is None else f"{job.title} is running. It will be {end}.")

    def _update_edits(self) -> None:
        names = ", ".join(sorted(self._workspace.unsaved))
        self._update(1, f"Edits that are not saved: {names}" if names else "")

    def _update(self, which: int, text: str) -> None:
        self._window._update_task_status(self._ids[which], Status.BUSY if text else Status.COMPLETED, text)


class _Bar(cancelable_progress):
    """A bar in napari's activity dock that prints nothing and stops the job when cancelled there."""

    def __init__(self, title: str, stop: Callable[[], None]) -> None:
        self._stop = stop
        super().__init__(desc=title, total=0, file=io.StringIO())

    def cancel(self) -> None:
        super().cancel()
        self._stop()


class _Activity:
    """Shows the long job in napari's activity dock."""

    def __init__(self, workspace: Workspace, window: QMainWindow) -> None:
        self._workspace = workspace
        # Weakly: the window owns the session, and each would keep the other alive.
        self._status_bar = weakref.ref(window.statusBar())
        self._bar: _Bar | None = None
        self._updated = 0.0
        workspace.job_started.connect(self._begin)
        workspace.job_event.connect(self._update)
        workspace.job_ended.connect(self._end_job)

    def _begin(self, job: Job) -> None:
        if not job.quick:
            self.end()
            self._bar = _Bar(job.title, self._workspace.stop)
            self._hold_still()

    def _hold_still(self) -> None:
        # napari's turning sign draws the whole window again 30 times a second, because it stands beside the canvas:
        # with OpenGL in software that alone makes the window stutter (p99 of the gaps of a 10 ms timer: 56 ms, not 11).
        bar = self._status_bar()
        for label in [] if bar is None else bar.findChildren(QLabel):
            if label.movie() is not None:
                label.movie().setPaused(True)

    def _update(self, job: Job, event: Event) -> None:
        now = time.monotonic()
        if job.quick or self._bar is None or now - self._updated < _ACTIVITY_S:
            return
        done, total = _part(event)
        if total:
            self._updated = now
            if self._bar.total != 1000:
                self._bar.total = 1000
            self._bar.update(round(1000 * done / total) - self._bar.n)

    def _end_job(self, job: Job, _how: Any) -> None:
        if not job.quick:
            self.end()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _part(event: Event) -> tuple[float, float]:
    """Return how much of how much is done; 0 of 0 if the event does not tell."""
    if isinstance(event, Progress) and event.total:
        return event.done, event.total
    if isinstance(event, Step) and event.seconds_left is not None:
        return event.elapsed_s, event.elapsed_s + event.seconds_left
    return 0.0, 0.0
