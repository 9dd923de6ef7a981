"""The Data page, in a real viewer with real workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QMessageBox

from napari_seg3d.gui.case_table import CASE, STATE, TRUTH
from napari_seg3d.gui.data_panel import DataPanel
from napari_seg3d.gui.layers import origin_of
from napari_seg3d.gui.session import session_for
from napari_seg3d.gui.workspace import Workspace
from napari_seg3d.volumes.files import read_label_map, write_label_map


class Page:
    """A Data page, and the waits that its background work needs."""

    def __init__(self, viewer: Any, workspace: Workspace, qtbot: Any) -> None:
        self.viewer, self.workspace, self.qtbot = viewer, workspace, qtbot
        self.view = session_for(viewer).view
        self.panel = DataPanel(workspace, viewer)
        viewer.window.add_dock_widget(self.panel, name="Data", area="right")

    def open(self, folder: Path) -> None:
        self.panel.open_folder(folder)
        self.wait(lambda: self.workspace.dataset is not None and self.workspace.dataset.root == folder)

    def open_row(self, row: int) -> None:
        with self.qtbot.waitCallback(timeout=30_000) as shown:
            self.view.shown.connect(shown, check_nargs=False)
            self.panel._cases.doubleClicked.emit(self.panel._filter.index(row, 0))
        self.view.shown.disconnect(shown)

    def wait(self, condition: Any) -> None:
        self.qtbot.waitUntil(condition, timeout=30_000)

    def cells(self, column: int) -> list[str]:
        model = self.panel._filter
        return [model.data(model.index(row, column)) for row in range(model.rowCount())]


@pytest.fixture
def page(viewer_workspace: tuple[Any, Workspace], qtbot: Any) -> Page:
    return Page(*viewer_workspace, qtbot)


def test_from_an_empty_page_to_an_open_case(page: Page, study: Path) -> None:
    panel, viewer = page.panel, page.viewer
    assert panel.is_empty
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(study))])
    actions, buttons = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton
    panel.dropEvent(QDropEvent(QPointF(5, 5), actions, mime, buttons, Qt.KeyboardModifier.NoModifier))
    page.wait(lambda: page.workspace.dataset is not None)
    assert not panel.is_empty
    assert "3 cases (2 labelled)" in panel._facts.text()
    assert page.cells(CASE) == ["case1", "case2", "case10"]
    assert page.cells(TRUTH) == ["✓", "✓", "–"]
    panel._words.setText("case1")
    assert page.cells(CASE) == ["case1", "case10"]
    panel._cases.sortByColumn(CASE, Qt.SortOrder.DescendingOrder)
    assert page.cells(CASE) == ["case10", "case1"]

    page.open_row(1)
    assert page.workspace.case_id == "case1"
    assert page.cells(STATE) == ["", "open"]
    [image, truth] = viewer.layers
    assert origin_of(truth).role == "truth"
    assert not truth.editable
    assert list(truth.features["name"])[1] == page.workspace.case.truth.table[1].name  # type: ignore[union-attr]
    assert "20×24×11 voxels of 1×1.2×2.5 mm, stored LPS. Oblique" in panel._geometry.text()
    # Axial first, at the slice that shows most of the truth; the other planes by button.
    assert viewer.dims.order == (0, 1, 2)
    counts = np.count_nonzero(truth.data, axis=(1, 2))
    assert counts[viewer.dims.current_step[0]] == counts.max()
    for button, order in zip(panel._planes.buttons(), [(0, 1, 2), (1, 0, 2), (2, 0, 1)], strict=True):
        button.click()
        assert viewer.dims.order == order
        assert button.isChecked()

    panel._words.clear()
    panel._cases.sortByColumn(CASE, Qt.SortOrder.AscendingOrder)
    panel._next.click()
    page.wait(lambda: page.workspace.case_id == "case2")
    page.wait(lambda: len(viewer.layers) == 2)
    # Its layers go on with the next case.
    case = page.workspace.case
    assert case is not None
    assert [origin_of(layer).case_id for layer in (image, truth)] == ["case2", "case2"]
    assert np.shares_memory(image.data, next(iter(case.modalities.values())).data)
    assert np.shares_memory(truth.data, case.truth.data)
    panel._close.click()
    assert not viewer.layers
    assert page.workspace.case is None


def test_edits_are_not_lost_when_the_case_is_left(page: Page, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel, viewer, workspace = page.panel, page.viewer, page.workspace
    page.open(study)
    truth = read_label_map(study / "labels" / "case1.nii.gz")
    workspace.predictions_folder.mkdir(parents=True)
    write_label_map(workspace.predictions_folder / "case1.nii.gz", truth.with_data(np.roll(truth.data, 1, 0)))
    workspace.refresh_results()
    page.wait(lambda: "case1" in workspace.scores)
    page.open_row(0)
    layer: Labels = viewer.layers["prediction"]
    assert not workspace.unsaved
    layer.data_setitem((np.array([2]), np.array([3]), np.array([4])), 2)
    page.wait(lambda: workspace.unsaved == {"prediction"})
    assert page.cells(STATE)[0] == "edited"
    layer.visible = True
    layer.undo()
    page.wait(lambda: not workspace.unsaved)
    layer.redo()
    page.wait(lambda: workspace.unsaved == {"prediction"})

    answers = []
    monkeypatch.setattr(panel, "_ask", lambda text: answers.append(text) or QMessageBox.StandardButton.Cancel)
    panel._cases.doubleClicked.emit(panel._filter.index(1, 0))
    assert answers == ["Edits of prediction are not saved."]
    assert workspace.case_id == "case1"
    assert layer in viewer.layers

    monkeypatch.setattr(panel, "_ask", lambda text: QMessageBox.StandardButton.Save)
    panel._cases.doubleClicked.emit(panel._filter.index(1, 0))
    page.wait(lambda: workspace.case_id == "case2")
    saved = read_label_map(workspace.corrections_folder / "case1" / "v001.nii.gz")
    assert np.count_nonzero(saved.data != np.roll(truth.data, 1, 0)) == 1
    assert page.cells(STATE) == ["in progress", "open", ""]
    assert layer not in viewer.layers


def test_check_lists_everything_that_is_wrong_at_once(page: Page, study: Path) -> None:
    for name in ("case1", "case2"):
        path = study / "images" / f"{name}.nii.gz"
        path.write_bytes(path.read_bytes()[:400])
    (study / "images" / "notes.txt").write_text("not an image")
    page.open(study)
    page.panel._check.click()
    page.wait(lambda: page.panel.messages.text != "")
    text = page.panel._problem_list.toPlainText()
    assert "case1.nii.gz" in text
    assert "case2.nii.gz" in text
    assert page.panel._problems.is_open
    assert "3 cases were read" in page.panel.messages.text
