"""After every edit the live comparison says what a full comparison would."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_seg3d.cases.labels import Region
from napari_seg3d.comparison.difference import difference_map, disagreements, slice_profile
from napari_seg3d.comparison.live import LiveComparison
from napari_seg3d.comparison.overlap import overlap
from napari_seg3d.errors import CorrectionError, GeometryError
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable

OBLIQUE = np.array([[0.9, 0.1, 0.0, -5], [-0.1, -1.1, 0.2, 3], [0.0, 0.3, 2.5, 7], [0, 0, 0, 1]])
WHOLE = Region.named("whole", (1, 2, 3))


def label_map(data: NDArray[np.integer]) -> LabelMap:
    return LabelMap(data, Geometry(data.shape, OBLIQUE), LabelTable.from_names({1: "core", 2: "oedema"}))


def blobs(rng: np.random.Generator, shape: tuple[int, int, int], order: str = "C") -> NDArray[np.uint8]:
    """Random boxes of labels, with some noise."""
    data = np.zeros(shape, np.uint8, order=order)
    for _ in range(6):
        low = [int(rng.integers(0, size - 1)) for size in shape]
        data[tuple(slice(start, start + int(rng.integers(1, 6))) for start in low)] = rng.integers(0, 4)
    data[rng.random(shape) < 0.02] = 3
    return data


def assert_equals_full_comparison(
    live: LiveComparison, edited: NDArray[np.uint8], other: LabelMap, loaded: NDArray[np.uint8]
) -> None:
    difference = difference_map(edited, other.data)
    np.testing.assert_array_equal(live.difference, difference)
    for axis in range(3):
        np.testing.assert_array_equal(live.profile(axis), slice_profile(difference, axis))
    ml = other.geometry.voxel_volume_ml
    for score in live.scores():
        classes = WHOLE if score.name == "whole" else score.values[0]
        (counts,) = overlap(edited, other.data, (classes,))
        assert score.dice == counts.dice
        assert score.volume_ml == pytest.approx(counts.predicted_voxels * ml)
        assert score.other_ml == pytest.approx(counts.truth_voxels * ml)
        before = np.count_nonzero(np.isin(loaded, score.values))
        assert score.change_ml == pytest.approx((counts.predicted_voxels - before) * ml)
    assert live.left_ml == pytest.approx(np.count_nonzero(difference) * ml)
    ours, full = live.disagreements(), disagreements(difference, other.geometry)
    assert len(ours) == len(full)
    for one, expected in zip(ours, full, strict=True):
        assert (one.kind, one.volume_ml, one.box) == (expected.kind, expected.volume_ml, expected.box)
        assert one.centre_voxel == expected.centre_voxel
        np.testing.assert_array_equal(np.stack(one.indices), np.stack(expected.indices))
        assert live.disagreement_at(one.centre_voxel) is one


@pytest.mark.parametrize(("seed", "order"), [(0, "C"), (1, "F"), (2, "C")])
def test_equals_the_full_comparison_after_a_thousand_strokes(seed: int, order: str) -> None:
    rng = np.random.default_rng(seed)
    shape = (13, 17, 9)
    edited, other = blobs(rng, shape, order), label_map(blobs(rng, shape, order))
    loaded = edited.copy()
    live = LiveComparison(label_map(edited), other, regions=(WHOLE,))
    assert_equals_full_comparison(live, edited, other, loaded)
    for number in range(1000):
        # A ball of one label or of the other map's labels ("take the truth here"), or scattered voxels.
        centre = rng.uniform(0, shape)
        ball = sum((g - c) ** 2 for g, c in zip(np.indices(shape), centre, strict=True)) <= rng.uniform(0.5, 4) ** 2
        if number % 5 == 0:
            ball = rng.random(shape) < 0.005
        indices = np.nonzero(ball)
        new = other.data[indices] if number % 3 == 0 else np.full(len(indices[0]), rng.integers(0, 4), np.uint8)
        old = edited[indices]
        edited[indices] = new
        before = live.difference.copy()
        box = live.changed(indices, old, new)
        changed = before != live.difference
        if box is None:
            assert not changed.any()
        else:
            assert changed[box].sum() == changed.sum() > 0
        if number % 20 == 0 or number > 990:
            assert_equals_full_comparison(live, edited, other, loaded)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_the_full_comparison_in_odd_corners(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 4)] * 3))
    size = int(np.prod(shape))
    maps = st.lists(st.integers(0, 3), min_size=size, max_size=size)
    edited = np.array(data.draw(maps), np.uint8).reshape(shape)
    other = label_map(np.array(data.draw(maps), np.uint8).reshape(shape))
    loaded = edited.copy()
    live = LiveComparison(label_map(edited), other, regions=(WHOLE,))
    for _ in range(data.draw(st.integers(1, 6))):
        flat = data.draw(st.lists(st.integers(0, size - 1), max_size=6))
        new = data.draw(st.integers(0, 3))
        indices = np.unravel_index(np.array(flat, int), shape)
        old = edited[indices]
        edited[indices] = new
        live.changed(indices, old, new)
        assert_equals_full_comparison(live, edited, other, loaded)


def test_an_edit_that_nobody_tells_of_is_found() -> None:
    rng = np.random.default_rng(5)
    edited, other = blobs(rng, (9, 8, 11)), label_map(blobs(rng, (9, 8, 11)))
    loaded = edited.copy()
    live = LiveComparison(label_map(edited), other)
    assert live.follow(edited) is None
    edited[2:5, 1, 3:7] = 2
    edited[8, 7, 10] = 1
    edit = live.follow(edited)
    assert edit is not None
    np.testing.assert_array_equal(np.argwhere(loaded != edited), np.stack(edit.indices, axis=1))
    np.testing.assert_array_equal(edit.old, loaded[edit.indices])
    np.testing.assert_array_equal(edit.new, edited[edit.indices])
    assert_equals_full_comparison(live, edited, other, loaded)
    # Undo, looked for where it was and nowhere else.
    edited[edit.indices] = edit.old
    back = live.follow(edited, edit.box)
    assert back is not None
    assert len(back) == len(edit)
    assert_equals_full_comparison(live, edited, other, loaded)


def test_a_voxel_painted_twice_in_one_stroke_counts_once() -> None:
    edited, other = np.zeros((3, 4, 5), np.uint8), label_map(np.ones((3, 4, 5), np.uint8))
    live = LiveComparison(label_map(edited), other)
    indices = (np.array([1, 0, 1]), np.array([2, 2, 2]), np.array([3, 0, 3]))
    live.changed(indices, np.array([0, 0, 2]), np.array([2, 1, 1]))
    edited[1, 2, 3] = edited[0, 2, 0] = 1
    assert_equals_full_comparison(live, edited, other, np.zeros_like(edited))


def test_a_label_that_was_never_seen_gets_a_score() -> None:
    edited = np.zeros((3, 4, 5), np.uint8)
    live = LiveComparison(label_map(edited), label_map(edited.copy()))
    live.changed(([0], [0], [0]), 0, 200)
    assert [(s.values, s.dice) for s in live.scores()] == [((1,), 1.0), ((2,), 1.0), ((200,), 0.0)]
    assert not isnan(live.scores()[2].volume_ml)


def test_change_is_told_against_the_map_that_was_loaded() -> None:
    loaded = np.zeros((3, 4, 5), np.uint8)
    loaded[0] = 1
    live = LiveComparison(label_map(loaded * 0), label_map(loaded), loaded=label_map(loaded))
    assert live.scores()[0].change_ml == pytest.approx(-20 * live.geometry.voxel_volume_ml)


def test_small_disagreements_can_be_left_out() -> None:
    edited = np.zeros((3, 4, 5), np.uint8)
    other = edited.copy()
    other[0, 0, 0] = other[2, 2, 1:4] = 1
    live = LiveComparison(label_map(edited), label_map(other))
    assert [d.voxels for d in live.disagreements(smallest_ml=2 * live.geometry.voxel_volume_ml)] == [3]


def test_missed_edits_and_other_grids_are_told() -> None:
    edited = np.zeros((3, 4, 5), np.uint8)
    live = LiveComparison(label_map(edited), label_map(edited))
    with pytest.raises(CorrectionError, match="without the comparison being told"):
        live.changed(([0], [0], [0]), 3, 1)
    with pytest.raises(CorrectionError, match="does not fit"):
        live.changed(([0], [0], [0]), 0, 300)
    assert live.left_ml == 0
    with pytest.raises(GeometryError, match="shape"):
        live.follow(np.zeros((3, 4, 6), np.uint8))
    with pytest.raises(GeometryError, match="only on one grid"):
        LiveComparison(label_map(edited), label_map(np.zeros((3, 4, 6), np.uint8)))
