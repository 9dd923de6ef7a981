"""The dock and what belongs to its viewer: one workspace, the question at closing, a clean end."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from napari.utils.progress import progress
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QTabBar, QTableView, QWidget

from napari_seg3d.events import Progress
from napari_seg3d.gui.dock import PAGES, Seg3DDock, make_page
from napari_seg3d.gui.session import session_for
from napari_seg3d.gui.work import Job
from napari_seg3d.gui.workspace import Workspace


def controls(page: QWidget) -> list[QWidget]:
    """What a user can press or type in, without the inner parts of Qt's own controls."""
    found = [
        widget
        for kind in (QAbstractButton, QComboBox, QAbstractSpinBox, QLineEdit)
        for widget in page.findChildren(kind)
        if not isinstance(widget.parentWidget(), QComboBox | QAbstractSpinBox | QTabBar | QLineEdit)
    ]
    return [widget for widget in found if not _is_inner(widget)]


def _is_inner(widget: QWidget) -> bool:
    # A table's corner button has no name.
    return widget.objectName().startswith("qt_") or isinstance(widget.parentWidget(), QTableView)


def test_all_pages_share_one_workspace_and_fit_a_narrow_dock(viewer_workspace: tuple[Any, Workspace]) -> None:
    viewer, workspace = viewer_workspace
    dock = Seg3DDock(viewer)
    viewer.window.add_dock_widget(dock, name="Seg3D", area="right")
    for name in PAGES:
        page = dock.show_page(name)
        assert page.workspace is workspace
        assert page.minimumSizeHint().width() <= 360, name
        silent = [widget for widget in controls(page) if not widget.toolTip()]
        assert not silent, (name, [(type(w).__name__, getattr(w, "text", str)()) for w in silent])
    alone = make_page("Data", viewer)
    viewer.window.add_dock_widget(alone, name="Data", area="right")
    assert alone.workspace is workspace
    assert session_for(viewer).workspace is workspace


def test_pages_that_were_closed_hear_nothing_more(
    viewer_workspace: tuple[Any, Workspace], qtbot: Any, study: Path
) -> None:
    viewer, workspace = viewer_workspace
    pages = [make_page(name, viewer) for name in PAGES]
    docks = [viewer.window.add_dock_widget(page, name="page", area="right") for page in pages]
    for page, dock in zip(pages, docks, strict=True):
        with qtbot.waitSignal(page.destroyed):
            viewer.window.remove_dock_widget(dock)
            page.deleteLater()
    # The Python halves are still here; whatever reached them would raise.
    workspace.open_dataset(study)
    qtbot.waitUntil(lambda: workspace.dataset is not None, timeout=30_000)
    workspace.open_case("case1")
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=30_000)
    workspace.say("info", "anything")
    workspace.set_unsaved(frozenset({"x"}))
    workspace.start(Job("anything", "napari_seg3d.gui.tasks:read_volumes", {"paths": ()}, "thread"))
    qtbot.waitUntil(lambda: workspace.current_job is None and not workspace.jobs.queue, timeout=30_000)
    viewer.layers[0].name = "renamed"
    viewer.dims.order = (1, 0, 2)
    viewer.layers.clear()
    assert len(pages) == 4


def test_an_idle_worker_ends_with_its_window(viewer_workspace: tuple[Any, Workspace], qtbot: Any, study: Path) -> None:
    viewer, workspace = viewer_workspace
    runners = session_for(viewer)._runners
    workspace.open_dataset(study)
    qtbot.waitUntil(lambda: workspace.dataset is not None, timeout=30_000)
    viewer.close()
    qtbot.waitUntil(lambda: all(runner._desk.closing for runner in runners), timeout=30_000)
    qtbot.waitUntil(lambda: runners[1]._desk.closed.is_set(), timeout=30_000)


@pytest.mark.parametrize("runner", ["process", "thread"])
def test_closing_the_window_asks_saves_and_leaves_nothing_behind(
    viewer_workspace: tuple[Any, Workspace],
    qtbot: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runner: Any,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    viewer, workspace = viewer_workspace
    viewer.window.add_dock_widget(Seg3DDock(viewer), name="Seg3D", area="right")
    heard: list[Any] = []
    workspace.job_event.connect(lambda _job, event: heard.append(event))
    kwargs = {"marker": tmp_path / "marker"}
    workspace.start(Job("Training run 3", "worker_jobs:saves_when_stopped", kwargs, runner, "train"))
    qtbot.waitUntil(lambda: any(isinstance(event, Progress) for event in heard), timeout=30_000)
    workspace.set_unsaved(frozenset({"prediction"}))
    # What napari shows in its question, and in its activity dock.
    [running, edits] = viewer.window._task_status_manager.get_status()
    assert "Training run 3 is running" in running
    assert "not saved: prediction" in edits
    assert [bar.desc for bar in progress._all_instances] == ["Training run 3"]
    start = time.monotonic()
    viewer.close()
    assert time.monotonic() - start < 5
    assert (tmp_path / "marker").read_text() == "saved"
    assert not progress._all_instances
    assert QThreadPool.globalInstance().waitForDone(1000)
    assert not [child for child in psutil.Process().children() if "napari_seg3d" in " ".join(child.cmdline())]


SCRIPT = """
    import napari
    from qtpy.QtWidgets import QApplication
    from napari_seg3d.gui.dock import Seg3DDock
    from napari_seg3d.gui.session import session_for
    from pathlib import Path
    viewer = napari.Viewer()
    viewer.window.add_dock_widget(Seg3DDock(viewer), name="Seg3D", area="right")
    workspace = session_for(viewer).workspace
    workspace.open_dataset(Path({study!r}))
    while workspace.dataset is None:
        QApplication.processEvents()
    workspace.open_case("case1")
    viewer.close()
"""


def test_a_script_that_ends_at_once_ends_quietly(study: Path) -> None:
    """Qt then deletes its objects in an order of its own; what still reached for one aborted the interpreter."""
    code = textwrap.dedent(SCRIPT.format(study=str(study)))
    script = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert script.returncode == 0, script.stderr[-2000:]
    assert "Error" not in script.stderr
