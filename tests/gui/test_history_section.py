"""The list of edits says what was done and goes to any point of it, without a window."""

from __future__ import annotations

import numpy as np
from napari.components import ViewerModel
from qtpy.QtWidgets import QComboBox

from napari_seg3d.correction.change import Change
from napari_seg3d.gui.case_view import CaseView
from napari_seg3d.gui.edits import STROKE
from napari_seg3d.gui.history_section import BEGINNING, HistorySection
from napari_seg3d.gui.layers import prediction_layer, truth_layer
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable


def test_a_click_goes_back_and_forward_to_any_point(workspace, qtbot):
    viewer = ViewerModel()
    view = CaseView(workspace, viewer)
    table = LabelTable.from_names({1: "one", 2: "two"})
    label_map = LabelMap(np.zeros((4, 5, 6), np.uint8), Geometry.with_spacing((4, 5, 6)), table)
    layer = viewer.add_layer(prediction_layer(label_map))
    truth = viewer.add_layer(truth_layer(label_map))
    choice = QComboBox()
    choice.addItem("mine", layer)
    choice.addItem("truth", truth)
    section = HistorySection(view, choice)
    qtbot.addWidget(section)
    qtbot.addWidget(choice)
    section.set_open(True)
    edits = view.edits_of(layer)
    qtbot.waitUntil(lambda: section._edits is edits)
    arrays = [layer.data.copy()]
    for number, name in enumerate(("Grow by 2 mm", "Fill holes", "Smooth")):
        place = tuple(np.array([i]) for i in (number, number, number))
        edits.make(Change(place, np.array([1], np.uint8), name))
        arrays.append(layer.data.copy())
    layer.paint((0, 0, 5), 2)
    arrays.append(layer.data.copy())

    def lines():
        return [section.list.item(row).text() for row in range(section.list.count())]

    expected = [BEGINNING, "1  Grow by 2 mm", "2  Fill holes", "3  Smooth", f"4  {STROKE}"]
    assert lines() == expected
    assert section._going is False
    for row in (1, 3, 0, 4, 2):
        section.list.itemClicked.emit(section.list.item(row))
        np.testing.assert_array_equal(layer.data, arrays[row])
        assert lines() == [*expected[: row + 1], *(f"{line} (undone)" for line in expected[row + 1 :])]
        assert section.list.currentRow() == row
    layer.undo()
    assert section.list.currentRow() == 1
    # Something new ends what could be done again.
    layer.paint((3, 3, 3), 2)
    assert lines() == [*expected[:2], f"2  {STROKE}"]
    # A truth has no history.
    choice.setCurrentIndex(1)
    qtbot.waitUntil(lambda: section._edits is None)
    assert lines() == [BEGINNING]
    view.close()
