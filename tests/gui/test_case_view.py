"""What the view of a case keeps of its layers."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_seg3d.cases.case import Case
from napari_seg3d.correction.change import Change
from napari_seg3d.errors import LabelError
from napari_seg3d.gui.case_view import CaseView
from napari_seg3d.gui.layers import display_range, origin_of, prediction_layer, truth_layer
from napari_seg3d.gui.tasks import OpenedCase
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume

from .conftest import oblique_affine


def test_all_who_ask_share_the_edits_of_a_layer_until_it_leaves(workspace, qapp):
    viewer = ViewerModel()
    view = CaseView(workspace, viewer)
    table = LabelTable.from_names({1: "one", 2: "two"})
    label_map = LabelMap(np.ones((4, 5, 6), np.uint8), Geometry.with_spacing((4, 5, 6)), table)
    layer = viewer.add_layer(prediction_layer(label_map))
    edits = view.edits_of(layer)
    assert view.edits_of(layer) is edits
    heard = []
    edits.made.connect(heard.append)
    where = tuple(np.array([i]) for i in (1, 2, 3))
    assert edits.make(Change(where, np.array([2], np.uint8), "Relabel"))
    assert [edit.what for edit in heard] == ["Relabel"]
    with pytest.raises(LabelError, match="not one that is corrected"):
        view.edits_of(viewer.add_layer(truth_layer(label_map)))
    viewer.layers.remove(layer)
    with pytest.raises(LabelError):
        view.edits_of(layer)
    layer.data_setitem(where, 1)
    assert len(heard) == 1
    # A layer that comes back begins anew.
    viewer.add_layer(layer)
    assert view.edits_of(layer) is not edits
    # Another array, of whatever shape, is not what was read.
    other = viewer.add_layer(prediction_layer(label_map, name="other"))
    assert view.unsaved_layers() == []
    assert np.shares_memory(view.edits_of(other)._before, view.loaded_map(other).data)
    other.data = np.ones((3, 3, 3), np.uint8)
    assert view.unsaved_layers() == [other]
    view.close()
    layer.data_setitem(where, 2)
    assert len(heard) == 1


def test_letters_say_which_side_of_the_patient_lies_where(workspace, qapp):
    viewer = ViewerModel()
    view = CaseView(workspace, viewer)
    label_map = LabelMap(np.ones((4, 5, 6), np.uint8), Geometry.with_spacing((4, 5, 6)))
    viewer.add_layer(prediction_layer(label_map))

    def letters() -> str:
        edges = [viewer.canvas.overlays[f"seg3d_{edge}"] for edge in ("left", "right", "top", "bottom")]
        return "".join(edge.text for edge in edges if edge.visible)

    for plane, expected in (("axial", "RLAP"), ("coronal", "RLSI"), ("sagittal", "APSI")):
        view.show_plane(plane)
        assert letters() == expected
    viewer.dims.ndisplay = 3
    assert letters() == ""
    viewer.dims.ndisplay = 2
    viewer.layers.clear()
    assert letters() == ""


def opened(case_id: str, geometry: Geometry, names: dict[int, str], modalities: str, dtype: type) -> OpenedCase:
    rng = np.random.default_rng(len(case_id) + sum(geometry.shape))
    images = {name: Volume(rng.integers(0, 200, geometry.shape).astype(dtype), geometry) for name in modalities.split()}
    table = LabelTable.from_names(names)
    labels = LabelMap(rng.choice([0, *names], geometry.shape).astype(np.uint8), geometry, table)
    displays = {name: display_range(volume) for name, volume in images.items()}
    return OpenedCase(Case(case_id, images, labels if names else None), displays, {Path(f"{case_id}.nii"): labels})


def show(workspace, view, qtbot, case: OpenedCase | None) -> None:
    workspace.case, workspace.case_id = (None, None) if case is None else (case.case, case.case.id)
    if case is not None:
        workspace.displays, workspace.opened_predictions = case.displays, case.predictions
    shown = []
    view.shown.connect(lambda: shown.append(True))
    workspace.case_changed.emit()
    qtbot.waitUntil(lambda: bool(shown) or case is None, timeout=10_000)


def looks(viewer) -> list[object]:
    """All that a user can see of the layers, and where he looks."""
    found: list[object] = [viewer.dims.current_step, viewer.dims.order, viewer.scene.camera.zoom]
    found += [viewer.scene.camera.center, viewer.layers.selection.active.name]
    for layer in viewer.layers:
        origin = origin_of(layer)
        found += [layer.name, layer.visible, layer.opacity, layer.editable, layer.locked, layer.data.tolist()]
        found += [*layer.scale.tolist(), *layer.translate.tolist(), origin.case_id, origin.geometry.shape, origin.role]
        if isinstance(layer, Labels):
            found += [str(layer.colormap.color_dict), layer.features.to_dict(), origin.table, layer.mode]
        else:
            found += [*layer.contrast_limits, *layer.contrast_limits_range]
    return found


def test_layers_go_on_with_the_next_case_as_if_they_were_new(workspace, qtbot):
    oblique = Geometry((6, 9, 4), oblique_affine())
    first = opened("first", Geometry.with_spacing((5, 6, 7), (1, 1, 2)), {1: "one", 2: "two"}, "T1 T2", np.float32)
    second = opened("second", oblique, {1: "left", 4: "right"}, "T1 T2", np.float32)
    viewer, fresh = ViewerModel(), ViewerModel()
    view = CaseView(workspace, viewer)
    show(workspace, view, qtbot, first)
    before = {layer.name: layer for layer in viewer.layers}
    # The user has been at work.
    viewer.layers["T1"].visible, viewer.layers["T2"].visible = False, True
    viewer.layers["T1"].contrast_limits = (150, 400)
    viewer.layers["T2"].gamma = 0.5
    viewer.layers["truth"].opacity, viewer.layers["truth"].visible = 0.1, False
    prediction = next(layer for name, layer in before.items() if name.startswith("prediction"))
    prediction.visible = True
    prediction.data_setitem(tuple(np.array([i]) for i in (1, 2, 3)), 7)
    view.show_plane("sagittal")
    viewer.dims.set_current_step(2, 1)
    show(workspace, view, qtbot, second)
    assert [viewer.layers[name] is before[name] for name in ("T1", "T2", "truth")] == [True] * 3
    assert prediction not in viewer.layers
    # What is edited is a new layer, so that Ctrl+Z cannot write what was in another case.
    assert len(viewer.layers[-1]._undo_history) == 0
    assert viewer.layers["T2"].gamma == 0.5
    alone = CaseView(workspace, fresh)
    show(workspace, alone, qtbot, second)
    assert looks(viewer) == looks(fresh)
    assert np.shares_memory(viewer.layers["T1"].data, second.case.modalities["T1"].data)
    # Fewer images, no truth: those that there are go on, the others leave.
    view.close()
    kept = fresh.layers["T2"]
    third = opened("third", oblique, {}, "T2", np.float32)
    show(workspace, alone, qtbot, third)
    assert fresh.layers[0] is kept
    assert len(fresh.layers) == 2
    # Of another type, moved or renamed: a new one comes.
    show(workspace, alone, qtbot, opened("fourth", oblique, {}, "T2", np.int16))
    assert fresh.layers["T2"] is not kept
    kept = fresh.layers["T2"]
    kept.translate = (0, 0, 3)
    show(workspace, alone, qtbot, opened("fifth", oblique, {}, "T2", np.int16))
    assert fresh.layers["T2"] is not kept
    kept = fresh.layers["T2"]
    kept.name = "mine"
    show(workspace, alone, qtbot, opened("sixth", oblique, {}, "T2", np.int16))
    assert fresh.layers["T2"] is not kept
    assert "mine" not in fresh.layers
    # While a case is open, what was there before is not looked through for garbage, until something else leaves.
    assert gc.get_freeze_count() > 0
    other = fresh.add_labels(np.zeros((2, 2, 2), np.uint8))
    fresh.layers.remove(other)
    assert gc.get_freeze_count() == 0
    show(workspace, alone, qtbot, third)
    assert gc.get_freeze_count() > 0
    show(workspace, alone, qtbot, None)
    assert gc.get_freeze_count() == 0
    assert not fresh.layers
    alone.close()
