"""The layers of a network in a window: a tree that adds up, and text to copy."""

from __future__ import annotations

from qtpy.QtGui import QGuiApplication

from napari_seg3d.gui.summary_window import SummaryWindow
from napari_seg3d.model.summary import summarise


def test_layers_stand_in_a_tree_and_add_up(qtbot, tiny_plan):
    summary = summarise(tiny_plan())
    window = SummaryWindow()
    qtbot.addWidget(window)
    window.show_summary(summary)
    assert window.windowTitle() == "Layers of unet"
    (root,) = (window.tree.topLevelItem(i) for i in range(window.tree.topLevelItemCount()))
    assert root.text(0) == "unet"
    parts = [root.child(i) for i in range(root.childCount())]
    counted = [int(part.text(3).replace(",", "")) for part in parts if part.text(3)]
    assert sum(counted) == int(root.text(3).replace(",", "")) == summary.parameters
    assert f"{summary.parameters:,}" in window.sums.text()
    window.copy_button.click()
    assert QGuiApplication.clipboard().text() == summary.as_text()
    other = summarise(tiny_plan(network={"name": "keras-unet", "base": 4}, patch_voxels=(16, 16, 8)))
    window.show_summary(other)
    assert window.tree.topLevelItemCount() == 1
    assert "keras-unet" in window.windowTitle()
