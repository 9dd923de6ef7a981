"""Geometry against nibabel, on all 48 orders and directions of the axes, straight and oblique."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from nibabel.orientations import apply_orientation

from napari_seg3d.errors import GeometryError
from napari_seg3d.volumes.geometry import Geometry

ALL_CODES = ["".join(c) for axes in permutations(("RL", "AP", "SI")) for c in product(*axes)]


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("codes", ALL_CODES)
def test_orientation_and_spacing(affine, codes, degrees):
    geometry = Geometry((7, 9, 5), affine(codes, degrees))
    assert geometry.orientation == codes
    assert geometry.spacing_mm == pytest.approx((0.9, 1.1, 2.5))
    assert geometry.is_oblique == (degrees > 0)
    assert geometry.shear_degrees == pytest.approx(0, abs=1e-5)
    assert geometry.voxel_volume_ml == pytest.approx(0.9 * 1.1 * 2.5 / 1000)


def test_orientation_to_turns_an_array_without_copying(affine):
    geometry = Geometry((7, 9, 5), affine("PIR"))
    array = np.arange(7 * 9 * 5).reshape(7, 9, 5)
    turned = apply_orientation(array, geometry.orientation_to("RAS"))
    assert turned.shape == (5, 7, 9)
    assert np.shares_memory(turned, array)
    # Right, anterior, superior of the first voxel: last along P, last along I, first along R.
    assert turned[0, -1, -1] == array[0, 0, 0]


def test_affine_is_copied_and_frozen():
    affine = np.diag([1.0, 2, 3, 1])
    geometry = Geometry((2, 3, 4), affine)
    affine[0, 0] = 99
    assert geometry.spacing_mm == (1, 2, 3)
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine_voxel_to_world[0, 0] = 5


def test_two_voxels_of_three_mm_are_six_mm():
    geometry = Geometry.with_spacing((4, 4, 4), (1, 1, 3))
    assert geometry.world([1, 1, 2]) - geometry.world([1, 1, 0]) == pytest.approx([0, 0, 6])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.__setitem__((0, 0), np.nan), "NaN"),
        (lambda a: a.__setitem__((slice(None), 1), a[:, 0]), "singular"),
        (lambda a: a.__setitem__((slice(3), 2), 0), "singular"),
        (lambda a: a.__setitem__((3, 0), 0.5), "last row"),
    ],
)
def test_unusable_affines_are_refused(affine, change, words):
    bad = affine("LPS", 20)
    change(bad)
    with pytest.raises(GeometryError, match=words):
        Geometry((2, 3, 4), bad)


@pytest.mark.parametrize("shape", [(2, 3), (2, 0, 3), (2, -1, 3), (1, 2, 3, 4)])
def test_bad_shapes_are_refused(shape):
    with pytest.raises(GeometryError, match="positive sizes"):
        Geometry(shape, np.eye(4))


def test_tiny_voxels_are_no_singular_affine():
    # Micrometres given in mm: the determinant is 1e-12, yet the axes are perpendicular.
    assert Geometry((2, 2, 2), np.diag([1e-4, 1e-4, 1e-4, 1])).spacing_mm == pytest.approx((1e-4,) * 3)


def test_shear_is_measured():
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[0, 1] = 2 * np.tan(np.deg2rad(5))
    geometry = Geometry((2, 2, 2), affine)
    assert geometry.shear_degrees == pytest.approx(5)
    assert geometry.is_sheared


def test_same_grid_lets_float32_pass_and_nothing_more(affine):
    exact = affine("LPS", 20)
    geometry = Geometry((300, 300, 200), exact)
    assert geometry.same_grid(Geometry((300, 300, 200), exact.astype(np.float32)))
    moved = exact.copy()
    moved[0, 3] += 0.1
    assert not geometry.same_grid(Geometry((300, 300, 200), moved))
    assert geometry.difference(Geometry((300, 300, 200), moved)) == "the grids lie up to 0.1 mm apart"


def test_difference_names_the_first_thing_that_differs(affine):
    geometry = Geometry((7, 9, 5), affine("LPS"))
    assert geometry.difference(Geometry((7, 9, 5), affine("LPS"))) == ""
    assert "7×9×5 against 7×9×6" in geometry.difference(Geometry((7, 9, 6), affine("LPS")))
    assert "LPS against RAS" in geometry.difference(Geometry((7, 9, 5), affine("RAS")))
    assert "2.5 against" in geometry.difference(Geometry((7, 9, 5), affine("LPS") @ np.diag([1, 1, 2, 1])))


def test_equal_geometries_hash_alike(affine):
    one, other = (Geometry((7, 9, 5), affine("LPS", 20)) for _ in range(2))
    assert one == other
    assert len({one, other, Geometry((7, 9, 5), affine("LPS"))}) == 2
