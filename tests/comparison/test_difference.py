"""Where two label maps disagree."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_seg3d.comparison.difference import (
    ADDED,
    DIFFERENCE_TABLE,
    MISSED,
    WRONG_CLASS,
    difference_map,
    disagreements,
    slice_profile,
)
from napari_seg3d.errors import GeometryError
from napari_seg3d.volumes.geometry import Geometry

SHAPE = (11, 17, 6)
GEOMETRY = Geometry.with_spacing(SHAPE, (1.0, 2.0, 5.0))


def _random_difference() -> np.ndarray:
    random = np.random.default_rng(3)
    return difference_map(random.integers(0, 3, SHAPE), random.integers(0, 3, SHAPE))


def test_every_pair_of_values_has_its_kind() -> None:
    predicted, truth = np.meshgrid(np.arange(4), np.arange(4), indexing="ij")
    kinds = difference_map(predicted[None], truth[None])[0]
    for p in range(4):
        for t in range(4):
            wanted = 0 if p == t else MISSED if p == 0 else ADDED if t == 0 else WRONG_CLASS
            assert kinds[p, t] == wanted
    assert kinds.dtype == np.uint8
    assert DIFFERENCE_TABLE.values == (MISSED, ADDED, WRONG_CLASS)


def test_the_profile_counts_every_slice() -> None:
    difference = _random_difference()
    for axis in range(3):
        profile = slice_profile(difference, axis)
        assert profile.shape == (SHAPE[axis], 3)
        middle = np.take(difference, 2, axis=axis)
        assert profile[2].tolist() == [np.sum(middle == kind) for kind in (1, 2, 3)]
        assert profile.sum() == np.count_nonzero(difference)


def test_disagreements_are_connected_and_ranked() -> None:
    difference = np.zeros(SHAPE, np.uint8)
    difference[1:3, 1:3, 1] = MISSED
    difference[3:8, 1:3, 1] = ADDED  # touches the first: another kind is another place
    difference[8, 3, 1] = ADDED  # only a corner in common: its own place
    difference[5, 10:13, 4] = WRONG_CLASS
    found = disagreements(difference, GEOMETRY)
    assert [(d.what, d.voxels) for d in found] == [("added", 10), ("missed", 4), ("wrong class", 3), ("added", 1)]
    assert found[0].volume_ml == pytest.approx(10 * 10.0 / 1000)
    assert found[0].box == (slice(3, 8), slice(1, 3), slice(1, 2))
    assert found[2].centre_voxel == (5, 11, 4)
    assert [d.voxels for d in disagreements(difference, GEOMETRY, smallest_ml=0.02)] == [10, 4, 3]


def test_they_are_the_parts_that_scipy_finds() -> None:
    difference = _random_difference()
    found = disagreements(difference, GEOMETRY)
    assert len(found) == sum(ndimage.label(difference == kind)[1] for kind in (1, 2, 3))
    rebuilt = np.zeros_like(difference)
    for place in found:
        assert place.centre_voxel in set(zip(*(axis.tolist() for axis in place.indices), strict=True))
        assert rebuilt[place.indices].max() == 0
        rebuilt[place.indices] = place.kind
    assert np.array_equal(rebuilt, difference)
    assert [d.voxels for d in found] == sorted((d.voxels for d in found), reverse=True)


def test_the_centre_lies_in_the_place_also_where_it_is_hollow() -> None:
    difference = np.zeros(SHAPE, np.uint8)
    difference[2:9, 2:9, 2] = MISSED
    difference[3:8, 3:8, 2] = 0
    (ring,) = disagreements(difference, GEOMETRY)
    assert difference[ring.centre_voxel] == MISSED


def test_agreement_everywhere_gives_nothing() -> None:
    assert disagreements(np.zeros(SHAPE, np.uint8), GEOMETRY) == ()


def test_other_shapes_are_refused() -> None:
    with pytest.raises(GeometryError, match="shape"):
        difference_map(np.zeros((2, 3, 5), int), np.zeros((2, 3, 4), int))
