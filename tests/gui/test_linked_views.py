"""Further views of a case: they show what the canvas shows, where it stands; what is painted there is one edit."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from napari.qt import QtViewer
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_seg3d.correction.change import Change
from napari_seg3d.gui.keys import perform
from napari_seg3d.gui.layers import PLANES, image_layer, label_map_of, prediction_layer, truth_layer
from napari_seg3d.gui.linked_view import LinkedView
from napari_seg3d.gui.linked_views import LinkedViews
from napari_seg3d.gui.session import Session, session_for
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume

from .conftest import oblique_affine

SHAPE = (20, 24, 11)


@pytest.fixture
def bench(viewer: Any) -> tuple[Any, Session, Labels]:
    """A shown viewer with three images, a truth and a prediction on an oblique, anisotropic grid."""
    session = session_for(viewer)
    viewer.window._qt_window.resize(1100, 900)
    viewer.window._qt_window.show()
    rng = np.random.default_rng(0)
    geometry = Geometry(SHAPE, oblique_affine())
    for name in ("FLAIR", "T1", "T2"):
        volume = Volume(rng.normal(100, 10, SHAPE).astype(np.float32), geometry, name)
        viewer.add_layer(image_layer(volume, name=name, case_id="one", visible=name == "FLAIR"))
    truth = np.zeros(SHAPE, np.uint8)
    truth[6:14, 8:18, 3:8] = 1
    table = LabelTable.from_names({1: "oedema", 2: "enhancing"})
    viewer.add_layer(truth_layer(LabelMap(truth, geometry, table), case_id="one"))
    layer = viewer.add_layer(prediction_layer(LabelMap(truth, geometry, table), case_id="one"))
    session.view.show_plane("axial")
    return viewer, session, layer


def opened(session: Session, mode: str, qtbot: Any) -> LinkedViews:
    session.linked_views.open(mode)
    views = session.linked_views.views
    assert views is not None
    qtbot.waitUntil(lambda: not views.is_behind, timeout=60_000)
    return views


def settle(views: LinkedViews, qtbot: Any) -> None:
    """Wait until the views have caught up."""
    qtbot.wait(1)
    qtbot.waitUntil(lambda: not views.is_behind, timeout=60_000)


def texture(view: LinkedView, layer: Any) -> np.ndarray:
    """What a view shows of a layer's slice."""
    return np.asarray(view.twins[layer].copy._slice.image.raw)


def send(view: LinkedView, kind: QEvent.Type, at: QPointF, modifier: Qt.KeyboardModifier) -> None:
    native, none = view.canvas.canvas.native, Qt.MouseButton.NoButton
    which = none if kind == QEvent.Type.MouseMove else Qt.MouseButton.LeftButton
    held = none if kind == QEvent.Type.MouseButtonRelease or modifier else Qt.MouseButton.LeftButton
    QApplication.sendEvent(
        native, QMouseEvent(kind, at, QPointF(native.mapToGlobal(at.toPoint())), which, held, modifier)
    )


def stroke(view: LinkedView, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag the left button over a view, from one part of its canvas (0 to 1) to another."""
    native = view.canvas.canvas.native
    points = [
        QPointF(
            native.width() * (start[0] + part * (end[0] - start[0])),
            native.height() * (start[1] + part * (end[1] - start[1])),
        )
        for part in np.linspace(0, 1, 4)
    ]
    kinds = [QEvent.Type.MouseButtonPress, *[QEvent.Type.MouseMove] * 3, QEvent.Type.MouseButtonRelease]
    for kind, at in zip(kinds, [*points, points[-1]], strict=True):
        send(view, kind, at, Qt.KeyboardModifier.NoModifier)
        if kind == QEvent.Type.MouseMove:
            # napari takes at most one move in five milliseconds.
            for _ in range(3):
                QApplication.processEvents()


def test_the_other_planes_stand_and_change_with_the_canvas(bench: Any, qtbot: Any) -> None:
    viewer, session, layer = bench
    views = opened(session, "planes", qtbot)
    assert [view.plane for view in views.views] == ["coronal", "sagittal"]
    for view in views.views:
        assert view.model.dims.order == PLANES[view.plane]
        assert {one.name for one in viewer.layers if one.visible} == {twin.name for twin in view.twins}
        for one, twin in view.twins.items():
            assert np.shares_memory(twin.copy.data, one.data)
            np.testing.assert_array_equal(twin.copy.scale, one.scale)
            assert twin.copy.editable == one.editable
        # The whole slice is to be seen.
        extent = view.model.layers.extent.world
        size_mm = np.divide(view.model.canvas.size, view.model.scene.camera.zoom)
        assert np.all(np.ptp(extent, axis=0)[list(view.model.dims.displayed)] < size_mm)
    # The same point everywhere, wherever it was moved.
    viewer.dims.set_current_step((0, 1, 2), (3, 10, 7))
    settle(views, qtbot)
    coronal, sagittal = views.views
    np.testing.assert_array_equal(texture(coronal, layer), layer.data[:, 10])
    np.testing.assert_array_equal(texture(sagittal, layer), layer.data[:, :, 7])
    sagittal.model.dims.set_current_step(2, 9)
    settle(views, qtbot)
    assert viewer.dims.current_step == (3, 10, 9)
    views.go_to(layer.data_to_world((5.3, 11.8, 4.1)))
    settle(views, qtbot)
    assert viewer.dims.current_step == (5, 12, 4)
    assert (coronal.model.dims.current_step[1], sagittal.model.dims.current_step[2]) == (12, 4)
    # Looks follow; picking a label leads.
    layer.selected_label, layer.brush_size, layer.contour, layer.opacity = 2, 3, 1, 0.3
    twin = coronal.twins[layer].copy
    assert (twin.selected_label, twin.brush_size, twin.contour, twin.opacity) == (2, 3, 1, 0.3)
    twin.selected_label = 1
    assert layer.selected_label == 1
    viewer.layers["FLAIR"].contrast_limits = (90, 110)
    assert tuple(coronal.twins[viewer.layers["FLAIR"]].copy.contrast_limits) == (90, 110)
    layer.contour = 0
    # Layers come, go, and are hidden.
    viewer.layers["T1"].visible = True
    viewer.layers["truth"].visible = False
    settle(views, qtbot)
    for view in views.views:
        names = [one.name for one in view.model.layers if one.visible]
        assert len(names) == 3
        assert not view.twins[viewer.layers["truth"]].copy.visible
        assert view.twins[viewer.layers["T1"]].copy.visible
    removed = viewer.layers["T1"]
    viewer.layers.remove(removed)
    settle(views, qtbot)
    assert all(removed not in view.twins for view in views.views)
    # Another plane on the canvas.
    session.view.show_plane("sagittal")
    settle(views, qtbot)
    assert {view.plane for view in views.views} == {"axial", "coronal"}
    letters = [
        "".join(view.model.canvas.overlays[f"seg3d_{edge}"].text for edge in ("left", "right", "top", "bottom"))
        for view in views.views
    ]
    assert dict(zip((view.plane for view in views.views), letters, strict=True)) == {"axial": "RLAP", "coronal": "RLSI"}
    # 3D: what to do is said.
    viewer.dims.ndisplay = 3
    settle(views, qtbot)
    assert not views.views
    assert "3D" in views.words
    viewer.layers.clear()
    settle(views, qtbot)
    assert "Open a case" in views.words


def test_a_stroke_in_any_view_is_one_edit_of_the_layer(viewer: Any, qtbot: Any, study: Path) -> None:
    session = session_for(viewer)
    viewer.window._qt_window.resize(1100, 900)
    viewer.window._qt_window.show()
    session.workspace.open_dataset(study)
    qtbot.waitUntil(lambda: session.workspace.dataset is not None, timeout=90_000)
    session.workspace.open_case("case1")
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=90_000)
    layer = viewer.add_layer(prediction_layer(label_map_of(viewer.layers["truth"]), case_id="case1"))
    edits = session.view.edits_of(layer)
    heard: list[Any] = []
    edits.made.connect(heard.append)
    views = opened(session, "planes", qtbot)
    coronal, sagittal = views.views
    before = np.array(layer.data)
    viewer.layers.selection.active = layer
    layer.mode = "paint"
    layer.selected_label = 2
    qtbot.waitUntil(lambda: coronal.canvas.canvas.native.width() > 100, timeout=10_000)
    steps = viewer.dims.current_step
    stroke(coronal, (0.4, 0.5), (0.6, 0.5))
    settle(views, qtbot)
    changed = np.argwhere(layer.data != before)
    assert len(changed)
    assert set(changed[:, 1]) == {steps[1]}
    assert viewer.dims.current_step == steps
    # One step in the original's history, one edit for all who listen, and the picture in all views.
    assert len(layer._undo_history) == 1
    assert [edit.what for edit in heard] == ["Painted"]
    assert len(heard[0].change) == len(changed)
    np.testing.assert_array_equal(texture(coronal, layer), layer.data[:, steps[1]])
    np.testing.assert_array_equal(texture(sagittal, layer), layer.data[:, :, steps[2]])
    painted = np.array(layer.data)
    # Undo from either side.
    coronal.twins[layer].copy.undo()
    np.testing.assert_array_equal(layer.data, before)
    layer.redo()
    np.testing.assert_array_equal(layer.data, painted)
    layer.undo()
    settle(views, qtbot)
    assert [edit.what for edit in heard] == ["Painted", "Undo: Painted", "Redo: Painted", "Undo: Painted"]
    np.testing.assert_array_equal(texture(sagittal, layer), before[:, :, steps[2]])
    # A tool's change, which tells no more than that the layer was drawn, is seen as well.
    where = tuple(np.array([i]) for i in (9, 9, 5))
    assert edits.make(Change(where, np.array([2], np.uint8), "Relabel"))
    settle(views, qtbot)
    for view in views.views:
        axis = view.model.dims.order[0]
        np.testing.assert_array_equal(texture(view, layer), np.take(layer.data, steps[axis], axis))
    # The journal on the disk has it all.
    session.keeper.wait()
    kept = session.keeper._layers[layer].kept
    assert kept is not None
    assert kept.journal.wait_written()
    assert kept.journal.edits == 1 + 5
    # The truth stays locked.
    truth = viewer.layers["truth"]
    viewer.layers.selection.active = truth
    untouched = np.array(truth.data)
    stroke(coronal, (0.4, 0.5), (0.6, 0.5))
    np.testing.assert_array_equal(truth.data, untouched)
    # A click with no tool in hand moves all views.
    layer.mode = "pan_zoom"
    viewer.layers.selection.active = layer
    stroke(sagittal, (0.42, 0.6), (0.42, 0.6))
    settle(views, qtbot)
    clicked = viewer.dims.current_step
    assert clicked != steps
    assert clicked[2] == steps[2]
    # So does moving with Shift, and Ctrl and the wheel move the slice of the view.
    native = coronal.canvas.canvas.native
    for part in (0.5, 0.55):
        at = QPointF(native.width() * part, native.height() * 0.4)
        send(coronal, QEvent.Type.MouseMove, at, Qt.KeyboardModifier.ShiftModifier)
        qtbot.wait(10)
    settle(views, qtbot)
    assert viewer.dims.current_step != clicked
    assert viewer.dims.current_step[1] == clicked[1]
    coronal.model.dims._increment_dims_right()
    assert viewer.dims.current_step[1] == clicked[1] + 1


def test_the_other_images_share_slice_camera_and_brush(bench: Any, qtbot: Any) -> None:
    viewer, session, layer = bench
    assert perform(viewer, "all_images")
    views = session.linked_views.views
    assert views is not None
    settle(views, qtbot)
    assert [view.image for view in views.views] == ["T1", "T2"]
    for view in views.views:
        assert [one.name for one in view.model.layers if one.visible] == [view.image, "truth", "prediction"]
    viewer.dims.set_current_step(0, 4)
    viewer.scene.camera.zoom *= 2
    viewer.scene.camera.center = (0.0, *(np.add(viewer.scene.camera.center[-2:], (3, 2))))
    settle(views, qtbot)
    first, second = views.views
    for view in views.views:
        assert view.model.dims.current_step[0] == 4
        np.testing.assert_allclose(view.model.scene.camera.center[-2:], viewer.scene.camera.center[-2:], atol=1e-3)
    assert first.model.scene.camera.zoom == pytest.approx(second.model.scene.camera.zoom, rel=0.02)
    zoom = viewer.scene.camera.zoom
    first.touch()
    first.model.scene.camera.zoom *= 1.5
    settle(views, qtbot)
    assert viewer.scene.camera.zoom == pytest.approx(1.5 * zoom, rel=0.02)
    assert first.model.scene.camera.zoom == pytest.approx(second.model.scene.camera.zoom, rel=0.02)
    # The image that comes to the canvas leaves its place to the one that goes.
    viewer.layers["FLAIR"].visible, viewer.layers["T2"].visible = False, True
    settle(views, qtbot)
    assert [view.image for view in views.views] == ["T1", "FLAIR"]
    # Painted on the canvas, seen in all.
    layer.mode = "paint"
    layer.paint((4, 12, 9), 2)
    settle(views, qtbot)
    for view in views.views:
        assert texture(view, layer)[12, 9] == 2
    # Where the mouse is in one view is marked in the others, until it leaves.
    first.model.mouse_over_canvas = True
    first.model.cursor.position = layer.data_to_world((4, 10, 8))
    settle(views, qtbot)
    assert not first.ghost.is_shown
    assert second.ghost.is_shown
    first.model.mouse_over_canvas = False
    settle(views, qtbot)
    assert not second.ghost.is_shown
    # The window closes over open views.
    viewer.close()
    assert session.linked_views.views is None


def test_views_that_are_closed_leave_nothing_behind(bench: Any, qtbot: Any) -> None:
    viewer, session, layer = bench
    dock = session.linked_views
    changes: list[str] = []
    dock.changed.connect(lambda: changes.append(dock.mode))

    def listeners() -> int:
        emitters = [layer.events.labels_update, layer.events.set_data, layer.events.opacity, viewer.dims.events.point]
        return sum(len(emitter.callbacks) for emitter in emitters) + len(viewer.mouse_drag_callbacks)

    # One layer is enough here.
    viewer.layers["truth"].visible = viewer.layers["FLAIR"].visible = False
    at_first = listeners()
    gone: list[weakref.ref[Any]] = []
    for mode in ("images", "planes"):
        views = opened(session, mode, qtbot)
        gone += [weakref.ref(one) for view in views.views for one in (view.canvas, view.model, view)]
        gone += [weakref.ref(twin.copy) for view in views.views for twin in view.twins.values()]
        if mode == "images":
            dock.toggle(mode)
        else:
            # As the cross of the dock does.
            viewer.window.remove_dock_widget(views)
            qtbot.waitUntil(lambda: dock.views is None, timeout=10_000)
        del views
        assert listeners() == at_first
    assert changes == ["images", "", "planes", ""]
    # Qt deletes what is closed when it has nothing else to do, and Python what Qt has let go.
    for _ in range(5):
        qtbot.wait(20)
        gc.collect()
        # Never their truth: a viewer counts its parts for that, and Qt's may be gone.
        if all(one() is None for one in gone):
            break
    assert [one() for one in gone if one() is not None] == []
    assert len(QtViewer._instances) == 1
    # A case with a single image has no other ones.
    for image in ("T1", "T2"):
        viewer.layers.remove(viewer.layers[image])
    assert "single image" in opened(session, "images", qtbot).words
