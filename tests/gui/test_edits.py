"""Every change of a layer is noticed where it is, on any grid, and tools' changes are one step each."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from napari.components import Dims
from napari.layers import Labels

from napari_seg3d.correction.change import Change
from napari_seg3d.correction.masks import Where
from napari_seg3d.gui.edits import STROKE, Deed, LayerEdits
from napari_seg3d.gui.layers import prediction_layer, stored
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable

TABLE = LabelTable.from_names({1: "one", 2: "two", 3: "three"})


def edits_on(signs=(1, 1, 1), order=(0, 1, 2)):
    affine = np.eye(4)
    affine[:3, :3] = np.diag(np.array((1.0, 1.5, 3.0)) * signs)[:, list(order)]
    data = np.random.default_rng(0).integers(0, 3, (9, 7, 5)).astype(np.uint8)
    label_map = LabelMap(data, Geometry((9, 7, 5), affine), TABLE, "case")
    layer = prediction_layer(label_map, case_id="case")
    edits = LayerEdits(layer)
    heard = []
    edits.made.connect(heard.append)
    return edits, heard, data.copy(), label_map.geometry


def some_change(data, value=3, what="Fill holes", seed=1):
    places = np.unique(np.random.default_rng(seed).integers(0, data.size, 20))
    x, y, z = np.unravel_index(places, data.shape)
    return Change((x, y, z), np.full(len(x), value, np.uint8), what)


@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_a_change_lands_in_the_cases_own_voxels_on_any_grid(signs, order):
    edits, heard, before, geometry = edits_on(signs, order)
    change = some_change(before)
    assert edits.make(change)
    expected = change.applied_to(before)
    np.testing.assert_array_equal(stored(edits.layer.data, geometry), expected)
    (edit,) = heard
    rebuilt = before.copy()
    np.testing.assert_array_equal(rebuilt[edit.change.indices], edit.old)
    rebuilt[edit.change.indices] = edit.change.values
    np.testing.assert_array_equal(rebuilt, expected)
    assert edit.what == "Fill holes"
    edits.layer.undo()
    edits.look()
    np.testing.assert_array_equal(stored(edits.layer.data, geometry), before)
    assert heard[-1].what == "Undo: Fill holes"


def test_strokes_undo_and_redo_are_named_in_step():
    edits, heard, before, _ = edits_on()
    layer: Labels = edits.layer
    with layer.block_history():
        layer.paint((2, 3, 4), 3)
        layer.paint((2, 4, 4), 3)
    edits.make(some_change(before, value=1, what="Grow"))
    assert [edit.what for edit in heard] == [STROKE, "Grow"]
    assert edits.done == [STROKE, "Grow"]
    layer.undo()
    layer.undo()
    edits.look()  # both at once, as of a hidden layer
    assert (edits.done, edits.undone) == ([], ["Grow", STROKE])
    layer.redo()
    edits.look()
    assert heard[-1].what == f"Redo: {STROKE}"
    # A new edit after an undo ends what could be redone; it is not taken for the redo of the last one.
    edits.make(some_change(before, value=2, what="Smooth", seed=2))
    assert (edits.done, edits.undone) == ([STROKE, "Smooth"], [])
    layer.undo()
    edits.look()
    edits.make(some_change(before, value=3, what="Islands", seed=3))
    assert heard[-1].what == "Islands"
    assert len(edits.done) == len(layer._undo_history) == 2


def test_replaying_all_edits_gives_the_layer():
    edits, heard, before, geometry = edits_on((-1, 1, -1), (1, 2, 0))
    layer, random = edits.layer, np.random.default_rng(4)
    for i in range(130):  # more than napari remembers
        kind = random.integers(4)
        if kind == 0:
            layer.selected_label = int(random.integers(4))
            layer.paint(tuple(random.integers(0, layer.data.shape)), layer.selected_label)
        elif kind == 1:
            edits.make(some_change(before, value=int(random.integers(4)), what=f"tool {i}", seed=i))
        elif kind == 2:
            layer.undo()
        else:
            layer.redo()
        edits.look()
        assert len(edits.done) <= 100
    array = before.copy()
    for edit in heard:
        np.testing.assert_array_equal(array[edit.change.indices], edit.old)
        array[edit.change.indices] = edit.change.values
    np.testing.assert_array_equal(array, stored(layer.data, geometry))


def test_nothing_is_told_of_what_changes_nothing_or_after_closing():
    edits, heard, _, _ = edits_on()
    assert not edits.make(Change.nothing("Nothing"))
    edits.layer.refresh()
    assert heard == []
    edits.close()
    edits.layer.paint((1, 1, 1), 3)
    assert heard == []


def test_a_stroke_of_several_changes_is_one_step():
    edits, heard, before, geometry = edits_on((-1, 1, 1))
    with edits.as_one("Ball brush") as put:
        put(some_change(before, seed=1))
        put(some_change(before, seed=2))
        assert heard == []
    assert [edit.what for edit in heard] == ["Ball brush"]
    assert edits.done == ["Ball brush"]
    expected = some_change(before, seed=2).applied_to(some_change(before, seed=1).applied_to(before))
    np.testing.assert_array_equal(stored(edits.layer.data, geometry), expected)
    edits.layer.undo()
    edits.look()
    np.testing.assert_array_equal(stored(edits.layer.data, geometry), before)
    with edits.as_one("Nothing"):
        pass
    assert edits.done == []


def test_a_stroke_after_an_undo_is_one_edit():
    edits, heard, _, _ = edits_on()
    layer: Labels = edits.layer
    layer.brush_size = 1
    layer.paint((2, 3, 4), 3)
    layer.undo()
    edits.look()
    with layer.block_history():
        layer.paint((2, 3, 4), 3)
        edits.look()  # as a redraw does, in the middle of the stroke
        layer.paint((3, 3, 4), 3)
    assert [(edit.what, len(edit.change)) for edit in heard[2:]] == [(STROKE, 2)]
    assert edits.done == [STROKE]


def test_what_was_noted_is_undone_and_redone_in_its_turn():
    edits, heard, before, _ = edits_on()
    layer: Labels = edits.layer
    marks, listed = [], []
    edits.listed.connect(lambda: listed.append(list(edits.done)))

    def deed(name):
        return Deed(name, lambda: marks.remove(name), lambda: marks.append(name))

    def mark(name):
        marks.append(name)
        edits.note(deed(name))

    edits.make(some_change(before, what="Grow"))
    mark("first")
    mark("second")
    edits.make(some_change(before, value=1, what="Smooth", seed=2))
    assert edits.done == ["Grow", "first", "second", "Smooth"] == listed[-1]
    assert [edit.what for edit in heard] == ["Grow", "Smooth"]  # no voxel, no edit
    after = layer.data.copy()
    layer.undo()
    assert (marks, edits.undone) == (["first", "second"], ["Smooth"])
    layer.undo()
    assert (marks, edits.done, edits.undone) == (["first"], ["Grow", "first"], ["Smooth", "second"])
    layer.redo()
    layer.redo()
    assert marks == ["first", "second"]
    assert edits.done == ["Grow", "first", "second", "Smooth"]
    np.testing.assert_array_equal(layer.data, after)
    # Several at once, as of a hidden layer that announces nothing.
    layer.events.set_data.disconnect(edits.look)
    for _ in range(4):
        layer.undo()
    edits.look()
    assert (marks, edits.done) == ([], [])
    np.testing.assert_array_equal(stored(layer.data, edits._geometry), before)
    for _ in range(3):
        layer.redo()
    edits.look()
    assert marks == ["first", "second"]
    assert edits.done == ["Grow", "first", "second"]
    # Something new ends what could be redone.
    layer.undo()
    edits.look()
    mark("third")
    assert (edits.done, edits.undone, marks) == (["Grow", "first", "third"], [], ["first", "third"])


def test_names_stay_in_step_when_napari_forgets_the_oldest_steps():
    edits, _, before, _ = edits_on()
    for number in range(130):
        edits.make(some_change(before, value=1 + number % 3, what=f"tool {number}", seed=number))
    assert edits.done == [f"tool {number}" for number in range(30, 130)]
    edits.layer.undo()
    assert edits.undone == ["tool 129"]


def test_a_layer_that_nobody_edits_is_not_copied_again():
    layer = edits_on()[0].layer
    layer.data = np.array(layer.data)
    as_it_is = np.array(layer.data, order="K")
    kept = as_it_is.copy()
    edits = LayerEdits(layer, as_it_is)
    layer.refresh()
    edits.look()
    assert np.shares_memory(edits._before, as_it_is)
    heard = []
    edits.made.connect(heard.append)
    layer.paint((2, 3, 4), 3)
    layer.undo()
    assert [edit.what for edit in heard] == [STROKE, f"Undo: {STROKE}"]
    np.testing.assert_array_equal(as_it_is, kept)


@pytest.mark.parametrize("contour", [0, 1])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_a_stroke_of_naparis_own_keeps_to_the_rule_within_its_step(signs, contour, make_stroke):
    edits, heard, before, geometry = edits_on(signs)
    layer: Labels = edits.layer
    layer.contour = contour
    mask = np.random.default_rng(3).integers(0, 4, before.shape) > 0
    edits.rule = lambda: Where(mask=mask, locked=(2,))
    back = []
    edits.held_back.connect(back.append)
    make_stroke(layer)
    painted = stored(layer.data, geometry)
    changed = painted != before
    assert changed.any()
    assert set(np.unique(before[changed])) <= {0, 1}
    assert mask[changed].all()
    (edit,) = heard
    assert (edit.what, len(edit.change)) == (STROKE, np.count_nonzero(changed))
    assert back[0] > 0
    # The picture shows what the labels are.
    shown = layer._slice.image
    np.testing.assert_array_equal(shown.raw, layer.data[4])
    if not contour:
        np.testing.assert_array_equal(shown.view, layer.colormap._data_to_texture(shown.raw))
    after = painted.copy()
    layer.undo()
    np.testing.assert_array_equal(stored(layer.data, geometry), before)
    layer.redo()
    np.testing.assert_array_equal(stored(layer.data, geometry), after)
    assert [one.what for one in heard[1:]] == [f"Undo: {STROKE}", f"Redo: {STROKE}"]
    layer.undo()
    # Where nothing is allowed there is no step; tools have a rule of their own.
    edits.rule = lambda: Where(mask=np.zeros(before.shape, bool))
    make_stroke(layer)
    np.testing.assert_array_equal(stored(layer.data, geometry), before)
    assert (edits.done, len(layer._undo_history)) == ([], 0)
    edits.make(some_change(before))
    assert edits.done == ["Fill holes"]


def _drag(layer):
    with layer.block_history():
        layer.paint((4, 3, 4), 3)
        layer.paint((4, 4, 4), 3)


def _erase(layer):
    layer.mode = "erase"
    with layer.block_history():
        layer.paint((4, 3, 4), 0)


@pytest.fixture(params=["brush", "brush in 3D", "at once", "fill", "eraser", "polygon"])
def make_stroke(request):
    def stroke(layer):
        layer.brush_size = 5
        layer.n_edit_dimensions = 3 if request.param == "brush in 3D" else 2
        layer._slice_dims(Dims(ndim=3, ndisplay=2, range=((-50, 50, 0.5),) * 3, point=layer.data_to_world((4, 3, 4))))
        if request.param == "at once":
            layer.paint((4, 3, 4), 3)
        elif request.param == "fill":
            layer.contiguous = False
            with layer.block_history():
                layer.fill((4, *np.argwhere(layer.data[4] == 1)[0]), 3)
        elif request.param == "eraser":
            _erase(layer)
        elif request.param == "polygon":
            layer.paint_polygon(np.array([(4, 1, 1), (4, 1, 6), (4, 5, 6), (4, 5, 1)]), 3)
        else:
            _drag(layer)

    return stroke
