"""A workspace without threads, studies on disk, and a viewer that is closed properly."""

from __future__ import annotations

import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psygnal import Signal

from napari_seg3d.events import Event
from napari_seg3d.gui.work import Control, Job, carry_out
from napari_seg3d.gui.workspace import Settings, Workspace
from napari_seg3d.volumes.files import write_label_map, write_volume
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume


class InlineJobs:
    """A job runner without threads: a job is carried out when it is started, or at `go` if `hold` is set."""

    started = Signal(Job)
    reported = Signal(Job, Event)
    ended = Signal(Job, str)
    changed = Signal()

    def __init__(self) -> None:
        self.hold = False
        self.current: Job | None = None
        self.paused = False
        self._waiting: deque[Job] = deque()
        self._control = Control()

    @property
    def queue(self) -> tuple[Job, ...]:
        return tuple(self._waiting)

    def start(self, job: Job) -> None:
        self._waiting.append(job)
        self.changed.emit()
        if not self.hold and self.current is None:
            self.go()

    def go(self) -> None:
        while self._waiting:
            job = self.current = self._waiting.popleft()
            self._control = Control()
            self.started.emit(job)
            how = carry_out(
                job.function, job.kwargs, self._control, lambda event, job=job: self.reported.emit(job, event)
            )
            self.current = None
            self.ended.emit(job, how)

    def drop(self, job: Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        elif job is self.current:
            self._control.ask("stop")
        self.changed.emit()

    def stop(self) -> None:
        self._control.ask("stop")

    def pause(self) -> None:
        self.paused = True
        self.changed.emit()

    def resume(self) -> None:
        self.paused = False
        self.changed.emit()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace whose jobs are carried out at once, in the test's own thread."""
    return Workspace(InlineJobs(), InlineJobs(), Settings(tmp_path / "settings.json"))


def oblique_affine(codes: str = "LPS", spacing_mm: tuple[float, float, float] = (1.0, 1.2, 2.5)) -> np.ndarray:
    """Affine of an anisotropic grid near the axis `codes`, turned by 17 degrees."""
    world = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
    angle = np.deg2rad(17)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([world[code] for code in codes], dtype=float).T @ np.diag(spacing_mm)
    affine[:3, 3] = (-12.5, 30.25, 7.0)
    return affine


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A small dataset, images/ and labels/: two labelled cases and one without truth, oblique and anisotropic."""
    return write_study(tmp_path / "study")


#: Settings with which a network of a few hundred numbers makes a step in some milliseconds.
TINY = {
    "network.widths": (4, 8),
    "network.strides": ((1, 1, 1), (2, 2, 1)),
    "network.kernels": ((3, 3, 3), (3, 3, 3)),
    "patch_voxels": (12, 12, 8),
    "batch_size": 1,
    "steps_per_epoch": 2,
}


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from napari_seg3d.cases.dataset import open_dataset
    from napari_seg3d.cases.fingerprint import fingerprint
    from napari_seg3d.events import result_of
    from napari_seg3d.model.planner import make_plan
    from napari_seg3d.training.loop import train

    study = write_study(tmp_path_factory.mktemp("trained") / "study")
    first, second = open_dataset(study).labelled
    plan = make_plan(result_of(fingerprint((first, second))), device="cpu", epochs=2, changes=TINY)
    run = study.with_name("study-seg3d") / "runs" / "tiny"
    result_of(train(plan, [first], run, validation=[second], device="cpu", threads=1, dataset="study"))
    return study.parent


@pytest.fixture
def trained_study(_trained: Path, tmp_path: Path) -> Path:
    """The small dataset, with a finished run "tiny" of two epochs in its project folder."""
    shutil.copytree(_trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "study"


def write_study(folder: Path) -> Path:
    """Write the small dataset."""
    rng = np.random.default_rng(0)
    geometry = Geometry((20, 24, 11), oblique_affine())
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for case, labelled in (("case1", True), ("case2", True), ("case10", False)):
        truth = np.zeros(geometry.shape, np.uint8)
        truth[6:14, 8:18, 3:8] = 1
        truth[8:11, 10:14, 4:6] = 2
        image = rng.normal(100, 10, geometry.shape) + 60.0 * truth
        write_volume(folder / "images" / f"{case}.nii.gz", Volume(image.astype(np.float32), geometry))
        if labelled:
            table = LabelTable.from_names({1: "oedema", 2: "enhancing"})
            write_label_map(folder / "labels" / f"{case}.nii.gz", LabelMap(truth, geometry, table))
    return folder


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Iterator[Any]:
    """A real viewer; whatever session was opened for it is shut down before it closes."""
    from napari_seg3d.gui.session import Session

    viewer = make_napari_viewer()
    yield viewer
    window = getattr(viewer.window, "_qt_window", None)
    if window is not None:
        for session in window.findChildren(Session):
            session.shutdown()


@pytest.fixture
def viewer_workspace(viewer: Any) -> tuple[Any, Workspace]:
    """A real viewer and its workspace with real workers."""
    from napari_seg3d.gui.session import workspace_for

    return viewer, workspace_for(viewer)


@pytest.fixture
def without_child(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the window's worker thread do what a child process would: both runners are held to the same tests.

    A child takes some seconds to load torch, for each test.
    """
    from napari_seg3d.gui import worker

    before, turns = sys.getswitchinterval(), worker.ShortTurns()
    monkeypatch.setattr(worker, "InChild", lambda: worker.InThread(turns))
    yield
    sys.setswitchinterval(before)
