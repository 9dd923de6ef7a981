"""What the view of a case keeps of its layers."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_seg3d.correction.change import Change
from napari_seg3d.errors import LabelError
from napari_seg3d.gui.case_view import CaseView
from napari_seg3d.gui.layers import prediction_layer, truth_layer
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable


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
