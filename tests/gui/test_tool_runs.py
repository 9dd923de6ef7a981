"""The window's tools are those of the correction room: in all slices or in one, on any grid, without a window."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest

from napari_seg3d.correction.between import fill_between
from napari_seg3d.correction.change import Change
from napari_seg3d.correction.islands import keep_largest
from napari_seg3d.correction.masks import Where
from napari_seg3d.correction.shape import grow
from napari_seg3d.errors import CorrectionError, LabelError
from napari_seg3d.events import result_of
from napari_seg3d.gui.layers import voxel_on_screen
from napari_seg3d.gui.tool_runs import (
    TAKEN_AWAY,
    TOOLS,
    Bench,
    axis_in_file,
    change_in_words,
    preview_map,
    run,
    use_tool,
    voxel_in_file,
)
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelTable

from .conftest import oblique_affine

GRID = Geometry((20, 17, 11), oblique_affine())
TABLE = LabelTable.from_names({1: "oedema", 2: "core"})


def study() -> np.ndarray:
    """Oedema around core, with a hole and an island in each."""
    labels = np.zeros(GRID.shape, np.uint8)
    labels[3:14, 3:13, 2:9] = 1
    labels[6:11, 6:11, 4:7] = 2
    labels[8, 8, 5] = labels[4, 4, 3] = 0
    labels[17:19, 14:16, 3:6] = 1
    labels[16, 2, 5] = 2
    return labels


LABELS = study()
IMAGE = LABELS * np.float32(50)
SEEDS = np.zeros(GRID.shape, np.uint8)
SEEDS[8, 8, 5], SEEDS[4, 5, 5], SEEDS[1, 1, 5], SEEDS[19, 8, 5] = 2, 1, 9, 9
#: Settings with which each tool changes something around slice 5 of the last axis.
SETTINGS = {
    "between": {"all_labels": True},
    "largest": {},
    "smaller": {"smallest_ml": 0.04},
    "keep clicked": {"voxel": (4.2, 5, 5)},
    "remove clicked": {"voxel": (18, 15, 5)},
    "holes": {},
    "smooth": {"kernel_mm": 6.0, "all_labels": True},
    "grow": {"margin_mm": 2.0},
    "shrink": {"margin_mm": 2.0},
    "seeds": {"seeds": SEEDS, "images": [IMAGE], "background": 9},
    "copy": {"other": np.roll(LABELS, 1, 0), "voxel": (18, 15, 5)},
    "relabel": {"new_value": 2},
    "relabel clicked": {"voxel": (18, 15, 5), "new_value": 2},
    "combine": {"other": LABELS, "value": 2, "operation": "union"},
    "plane": {"start": (8, 1, 5), "end": (9, 15, 5), "new_value": 2},
    "scribbles": {"stays": [(4, 5, 5)], "leaves": [(12, 11, 5), (12, 10, 5)], "new_value": 2},
}


def bench(**changes) -> Bench:
    return Bench(**({"labels": LABELS, "geometry": GRID, "label": 1, "axis": 2, "index": 5} | changes))


def test_every_tool_has_a_test():
    assert set(SETTINGS) == set(TOOLS)


@pytest.mark.parametrize("name", sorted(set(TOOLS) - {"between"}))
def test_in_one_slice_nothing_else_changes_and_locked_labels_stay(name):
    label = 2 if name == "holes" else 1
    everywhere = run(name, bench(label=label), SETTINGS[name])
    flat = run(name, bench(label=label, flat=True), SETTINGS[name])
    assert len(everywhere)
    assert len(flat)
    assert set(flat.indices[2].tolist()) == {5}
    assert len(np.unique(flat.indices[2])) < len(np.unique(everywhere.indices[2])) or name in ("holes", "smaller")
    locked = bench(label=label, flat=True, where=Where(locked=(0,)))
    # Tools that leave background behind refuse.
    with suppress(LabelError):
        change = run(name, locked, SETTINGS[name])
        assert not (LABELS[change.indices] == 0).any()
        assert not (change.values == 0).any()
    assert result_of(use_tool(name, bench(label=label), SETTINGS[name])).values.tolist() == everywhere.values.tolist()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_grows_as_it_does_alone_and_lands_in_its_place(axis):
    where = Where(intensities=IMAGE, lowest=-1, highest=60)
    change = run("grow", bench(axis=axis, index=6, flat=True, where=where), {"margin_mm": 2.6})
    sides = [slice(None)] * 3
    sides[axis] = slice(6, 7)
    alone = LABELS[tuple(sides)]
    spacing = GRID.spacing_mm
    expected = grow(alone, Geometry.with_spacing(alone.shape, spacing), 1, margin_mm=2.6)
    after = LABELS.copy()
    after[tuple(sides)] = expected.applied_to(alone)
    np.testing.assert_array_equal(change.applied_to(LABELS), after)


def test_tools_give_what_the_correction_room_gives():
    gapped = np.where((np.arange(11) - 2) % 3, 0, LABELS).astype(np.uint8)
    for axis, values, all_labels in ((2, [1], False), (2, [1, 2], True)):
        change = run("between", bench(labels=gapped, flat=True), {"all_labels": all_labels})
        expected = fill_between(gapped, GRID, values, axis=axis)
        np.testing.assert_array_equal(change.applied_to(gapped), expected.applied_to(gapped))
    np.testing.assert_array_equal(
        run("largest", bench(), {}).applied_to(LABELS), keep_largest(LABELS, 1).applied_to(LABELS)
    )
    assert set(run("between", bench(labels=gapped, where=Where(locked=(2,))), {"all_labels": True}).values) == {1}
    with pytest.raises(CorrectionError, match="not locked"):
        run("between", bench(where=Where(locked=(1, 2))), {"all_labels": True})


def test_a_line_splits_off_the_smaller_side():
    change = run("plane", bench(), {"start": (11, 1, 5), "end": (11, 15, 5), "new_value": 2})
    after = change.applied_to(LABELS)
    assert (after[12:14][LABELS[12:14] == 1] == 2).all()
    assert (after[:11] == LABELS[:11]).all()
    for end in ((11, 1, 5), (11, 1, 9)):
        with pytest.raises(CorrectionError, match="line"):
            run("plane", bench(), {"start": (11, 1, 5), "end": end, "new_value": 2})
    with pytest.raises(CorrectionError, match="one side"):
        run("plane", bench(), {"start": (0, 1, 5), "end": (0, 15, 5), "new_value": 2})


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SAR", "PIL"])
def test_places_on_the_screen_are_found_in_the_file(codes):
    grid = Geometry((5, 7, 9), oblique_affine(codes))
    voxel = (1.25, 2.0, 6.5)
    np.testing.assert_allclose(voxel_in_file(voxel_on_screen(voxel, grid), grid), voxel)
    assert sorted(axis_in_file(axis, grid) for axis in range(3)) == [0, 1, 2]
    for axis in range(3):
        moved = np.array(voxel_on_screen(voxel, grid))
        moved[axis] += 1
        changed = np.flatnonzero(np.array(voxel_in_file(moved, grid)) != voxel)
        assert changed.tolist() == [axis_in_file(axis, grid)]


def test_a_preview_shows_what_is_painted_and_what_is_taken_away():
    x = np.array([3, 16, 0])
    change = Change((x, np.array([3, 2, 0]), np.array([2, 5, 0])), np.array([2, 0, 1], np.uint8), "Some change")
    shown = preview_map(change, GRID, TABLE)
    removed = next(label for label in shown.table if label.name == TAKEN_AWAY)
    assert shown.data[change.indices].tolist() == [2, removed.value, 1]
    assert np.count_nonzero(shown.data) == 3
    assert shown.table[2].color == TABLE[2].color
    ml = GRID.voxel_volume_ml
    assert change_in_words(change, LABELS, GRID, TABLE) == (
        f"Some change: 3 voxels; oedema {0 * ml:+.2f} ml, core {0 * ml:+.2f} ml"
    )
    assert "nothing to change" in change_in_words(Change.nothing("Fill holes"), LABELS, GRID, TABLE)
