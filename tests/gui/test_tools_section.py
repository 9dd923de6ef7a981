"""The tools in a real viewer: what a button does is what the correction room says, and undo brings every byte back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks
from qtpy.QtWidgets import QComboBox

from napari_seg3d.correction.brushes import brush, polygon, threshold_brush
from napari_seg3d.correction.islands import keep_largest, remove_island
from napari_seg3d.correction.masks import Where
from napari_seg3d.correction.seeds import grow_from_seeds
from napari_seg3d.correction.shape import grow, smooth
from napari_seg3d.gui.keys import perform
from napari_seg3d.gui.layers import prediction_layer, stored, voxel_on_screen
from napari_seg3d.gui.session import session_for
from napari_seg3d.gui.tool_runs import run
from napari_seg3d.gui.tools_section import ToolsSection
from napari_seg3d.gui.workspace import Workspace
from napari_seg3d.volumes.geometry import Geometry


class Bench:
    """The tools on case1 of the study: its truth with an island and a rough edge, oblique and anisotropic."""

    def __init__(self, viewer: Any, workspace: Workspace, qtbot: Any, study: Path) -> None:
        self.viewer, self.workspace, self.qtbot = viewer, workspace, qtbot
        workspace.open_dataset(study)
        self.wait(lambda: workspace.dataset is not None)
        view, shown = session_for(viewer).view, []
        view.shown.connect(lambda: shown.append(True))
        workspace.open_case("case1")
        self.wait(lambda: bool(shown))
        truth = workspace.case.truth
        self.geometry = truth.geometry
        data = truth.data.copy()
        data[2, 2, 5] = data[14, 12, 5] = 1
        data[9, 11, 5] = 0
        self.layer = viewer.add_layer(prediction_layer(truth.with_data(data), case_id="case1"))
        viewer.dims.set_current_step(0, int(voxel_on_screen((0, 0, 5), self.geometry)[0]))
        self.choice = QComboBox()
        self.choice.addItem("prediction", self.layer)
        self.tools = ToolsSection(workspace, viewer, self.choice)
        qtbot.addWidget(self.tools)
        qtbot.addWidget(self.choice)
        self.wait(lambda: self.tools.layer is self.layer)
        self.edits = view.edits_of(self.layer)

    def wait(self, condition: Callable[[], bool]) -> None:
        self.qtbot.waitUntil(condition, timeout=30_000)

    @property
    def labels(self) -> np.ndarray:
        return np.array(stored(self.layer.data, self.geometry))

    def click(self, name: str) -> None:
        self.tools.buttons[name].click()
        self.wait(lambda: self.tools._job is None)

    def drag(self, *voxels: tuple[float, float, float], shift: bool = False) -> None:
        """Press at the first voxel, move through the others, let go."""
        keys = ("Shift",) if shift else ()
        event = SimpleNamespace(button=1, type="mouse_press", modifiers=keys, dims_displayed=[1, 2], is_dragging=True)
        for place, voxel in enumerate(voxels):
            event.position = tuple(self.layer.data_to_world(voxel_on_screen(voxel, self.geometry)))
            if place == 0:
                mouse_press_callbacks(self.layer, event)
                event.type = "mouse_move"
            else:
                mouse_move_callbacks(self.layer, event)
        event.type = "mouse_release"
        mouse_release_callbacks(self.layer, event)
        self.wait(lambda: self.tools._job is None)

    def undone_is(self, before: np.ndarray) -> bool:
        self.layer.undo()
        return bool(np.array_equal(self.labels, before))


@pytest.fixture
def bench(viewer_workspace: tuple[Any, Workspace], qtbot: Any, study: Path) -> Bench:
    return Bench(*viewer_workspace, qtbot, study)


def test_buttons_preview_apply_and_are_one_step_to_undo(bench: Bench) -> None:
    tools, before = bench.tools, bench.labels
    # Pressed once it is shown, pressed again it is done.
    bench.click("smooth")
    preview = bench.viewer.layers["preview"]
    assert np.array_equal(bench.labels, before)
    assert bench.viewer.layers.selection.active is bench.layer
    expected = smooth(before, bench.geometry, 1, kernel_mm=3).applied_to(before)
    shown = stored(preview.data, bench.geometry)
    assert np.array_equal(shown != 0, expected != before)
    assert "Smooth" in tools.words.text()
    # A changed setting changes the preview.
    tools._kernel.setValue(6)
    tools._settle.setInterval(0)
    wider = smooth(before, bench.geometry, 1, kernel_mm=6).applied_to(before)
    bench.wait(
        lambda: (
            "preview" in bench.viewer.layers
            and np.array_equal(stored(bench.viewer.layers["preview"].data, bench.geometry) != 0, wider != before)
        )
    )
    bench.wait(lambda: tools._job is None)
    bench.click("smooth")
    assert "preview" not in bench.viewer.layers
    assert np.array_equal(bench.labels, wider)
    assert bench.edits.done == ["Smooth"]
    assert bench.undone_is(before)
    # Cancelled it is forgotten; at once where no preview is wanted.
    bench.click("largest")
    tools.cancel()
    assert "preview" not in bench.viewer.layers
    assert np.array_equal(bench.labels, before)
    tools._first.setChecked(False)
    perform(bench.viewer, "keep_largest")
    bench.wait(lambda: tools._job is None)
    assert np.array_equal(bench.labels, keep_largest(before, 1).applied_to(before))
    assert bench.undone_is(before)
    # Locked labels stay, "paint only" holds, in this slice only.
    tools.options.lock(2)
    # Also under napari's own brush, which only lays down what it may.
    bench.layer.mode, bench.layer.brush_size, bench.layer.selected_label = "paint", 9, 1
    bench.drag((9, 12, 5), (10, 13, 5))
    painted = bench.labels != before
    assert painted.any()
    assert not (painted & (before == 2)).any()
    assert "locked" in tools.words.text()
    assert bench.undone_is(before)
    bench.layer.mode = "pan_zoom"
    tools.options._flat.setChecked(True)
    name = next(iter(bench.workspace.case.modalities))
    place = [tools.options._where.itemData(i) for i in range(tools.options._where.count())].index(("image", name))
    tools.options._where.setCurrentIndex(place)
    tools.options._range._low.setValue(90)
    tools.options._range._high.setValue(105)
    bench.click("grow")
    image = bench.workspace.case.modalities[name].data
    where = Where(intensities=image[:, :, 5:6], lowest=90, highest=105, locked=(2,))
    after = before.copy()
    one = before[:, :, 5:6]
    grid = Geometry.with_spacing(one.shape, bench.geometry.spacing_mm)
    after[:, :, 5:6] = grow(one, grid, 1, margin_mm=1, where=where).applied_to(one)
    assert np.array_equal(bench.labels, after)
    assert not np.array_equal(after, before)
    assert bench.undone_is(before)
    # A locked label is refused in words.
    bench.layer.selected_label = 2
    bench.click("grow")
    assert "locked" in tools.words.text()
    assert np.array_equal(bench.labels, before)


def test_the_mouse_paints_clicks_and_draws(bench: Bench) -> None:
    tools, before, layer = bench.tools, bench.labels, bench.layer
    tools._first.setChecked(False)
    tools.buttons["ball"].click()
    assert not layer.mouse_pan
    assert layer.cursor == "circle"
    stroke = [(3, 3, 5), (6, 4, 5), (12, 9, 5)]
    bench.drag(*stroke)
    expected = brush(before, bench.geometry, 1, stroke, radius_mm=3).applied_to(before)
    assert np.array_equal(bench.labels, expected)
    assert bench.edits.done == ["Ball brush"]
    assert bench.undone_is(before)
    bench.drag(*stroke, shift=True)
    where = Where(inside=(1,))
    assert np.array_equal(
        bench.labels, brush(before, bench.geometry, 0, stroke, radius_mm=3, where=where).applied_to(before)
    )
    assert bench.undone_is(before)

    tools.buttons["threshold"].click()
    assert not tools.buttons["ball"].isChecked()
    tools._range.suggest(95, 110)
    bench.drag(*stroke)
    image = next(iter(bench.workspace.case.modalities.values())).data
    change = threshold_brush(before, bench.geometry, 1, stroke, image, lowest=95, highest=110, radius_mm=3)
    assert len(change)
    assert np.array_equal(bench.labels, change.applied_to(before))
    assert bench.undone_is(before)

    perform(bench.viewer, "lasso")
    outline = [(2, 2, 5), (2, 18, 5), (15, 18, 5), (15, 3, 5)]
    bench.drag(*outline)
    change = polygon(before, 1, outline, axis=2, first=5)
    assert np.array_equal(bench.labels, change.applied_to(before))
    assert bench.undone_is(before)

    tools.buttons["remove clicked"].click()
    assert not tools.buttons["lasso"].isChecked()
    bench.drag((2, 2, 5))
    assert np.array_equal(bench.labels, remove_island(before, (2, 2, 5)).applied_to(before))
    assert bench.undone_is(before)
    bench.drag((0, 0, 5))
    assert "only background" in tools.words.text()
    # A tool of napari's takes the mouse back.
    layer.mode = "paint"
    assert not tools.buttons["remove clicked"].isChecked()
    assert len(layer.mouse_drag_callbacks) == len({*layer.mouse_drag_callbacks})

    tools._into.setCurrentIndex(tools._into.findData(2))
    tools.buttons["plane"].click()
    bench.drag((8, 2, 5), (8, 15, 5), (8, 20, 5))
    settings = {"start": (8, 2, 5), "end": (8, 20, 5), "new_value": 2}
    assert np.array_equal(bench.labels, run("plane", tools.options.bench(before), settings).applied_to(before))
    assert bench.undone_is(before)
    tools.buttons["scribbles"].click()
    bench.drag((7, 9, 5), (7, 12, 5))
    assert np.array_equal(bench.labels, before)
    bench.drag((12, 14, 5), (12, 16, 5))
    assert bench.edits.done == ["Split by scribbles"]
    assert bench.undone_is(before)
    tools.pointer.disarm()
    assert layer.mouse_pan

    # Scribbles are no label map: they are not judged, not saved and go when they are done with.
    tools.scribble()
    seeds = bench.viewer.layers["seeds"]
    array = stored(seeds.data, bench.geometry)
    array[7:9, 9:11, 5] = 1
    array[9, 12, 5] = 2
    tools.scribble(outside=True)
    assert bench.viewer.layers.selection.active is seeds
    array[1, 1:20, 5] = seeds.selected_label
    bench.click("seeds")
    images = [volume.data for volume in bench.workspace.case.modalities.values()]
    change = grow_from_seeds(before, bench.geometry, array, images, background=seeds.selected_label)
    assert len(change)
    assert np.array_equal(bench.labels, change.applied_to(before))
    assert bench.undone_is(before)
    tools.clear_seeds()
    assert "seeds" not in bench.viewer.layers
    assert bench.workspace.unsaved in (frozenset(), frozenset({"prediction"}))

    # Another layer's part, and its labels.
    copy = [tools._other.itemData(i) for i in range(tools._other.count())].index(("truth", 1))
    tools._other.setCurrentIndex(copy)
    layer.data_setitem(np.nonzero(np.asarray(layer.data) > 0), 0)
    tools.buttons["copy"].click()
    bench.drag((7, 9, 5))
    truth = bench.workspace.case.truth.data
    assert np.array_equal(bench.labels, np.where(truth == 1, 1, 0))
    bench.click("difference")
    assert not bench.labels.any()
