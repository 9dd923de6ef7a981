"""Dragging over the canvas changes window and level of the image that is shown, and only while it is asked for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks
from qtpy.QtWidgets import QPushButton

from napari_seg3d.gui.keys import perform
from napari_seg3d.gui.tool_pointer import Pointer
from napari_seg3d.gui.window_level import WindowLevelButton, adjusted


def drag(viewer, layer, right, down):
    """Press, move by so many pixels of the canvas, let go."""
    zoom = viewer.scene.camera.zoom
    event = SimpleNamespace(
        button=1, type="mouse_press", modifiers=(), dims_displayed=[1, 2], is_dragging=True, position=(0.0, 0.0, 0.0)
    )
    mouse_press_callbacks(layer, event)
    event.type, event.position = "mouse_move", (0.0, down / zoom, right / zoom)
    mouse_move_callbacks(layer, event)
    event.type = "mouse_release"
    mouse_release_callbacks(layer, event)


def test_dragging_changes_the_shown_image(viewer, qtbot):
    images = [viewer.add_image(np.linspace(0, 1000, 7 * 9 * 5).reshape(7, 9, 5), name=name) for name in ("T1", "T2")]
    labels = viewer.add_labels(np.zeros((7, 9, 5), np.uint8))
    for image in images:
        image.contrast_limits = (100, 300)
    images[1].visible = False
    labels.mode = "paint"
    button = WindowLevelButton(viewer, Pointer(viewer))
    qtbot.addWidget(button)
    assert perform(viewer, "window_level")
    assert button.isChecked()
    drag(viewer, labels, 200, 0)
    # Twice the window around the same level, in the image that is shown; nothing is painted.
    assert images[0].contrast_limits == pytest.approx((0, 400))
    assert images[1].contrast_limits == pytest.approx((100, 300))
    assert not labels.data.any()
    drag(viewer, labels, 0, 100)
    assert images[0].contrast_limits == pytest.approx((100, 500))
    assert "window 400" in str(viewer.status)
    # The tool that was in hand comes back.
    button.click()
    assert labels.mode == "paint"
    assert labels.mouse_drag_callbacks.count(button._drag) == 0
    # Whoever chooses a tool of napari's has left the window.
    button.click()
    labels.mode = "erase"
    assert not button.isChecked()
    assert labels.mode == "erase"


def test_without_an_image_it_stays_up(viewer, qtbot):
    button = WindowLevelButton(viewer, Pointer(viewer))
    qtbot.addWidget(button)
    button.click()
    assert not button.isChecked()
    assert isinstance(button, QPushButton)


def test_limits_stay_within_the_image_and_never_meet():
    for right, down in ((0, 1e5), (0, -1e5), (1e4, 0), (-1e4, 0), (-1e4, 1e4)):
        low, high = adjusted((10.0, 20.0), (0.0, 50.0), right, down)
        assert 0 <= low < high <= 50 + 1e-9
