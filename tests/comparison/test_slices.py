"""Which voxels a slice shows and how it is turned, held against world coordinates."""

from __future__ import annotations

import numpy as np
import pytest

from napari_seg3d.comparison.slices import PLANES, Backdrop, Plane, View, chosen_slices
from napari_seg3d.errors import GeometryError
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import Volume

AFFINES = {
    "RAS": np.diag([1.0, 1.5, 3.0, 1.0]),
    "LPS": np.diag([-1.0, -1.5, 3.0, 1.0]),
    "PSR": np.array([[0, 0, 3.0, 0], [-1.0, 0, 0, 5], [0, 1.5, 0, 0], [0, 0, 0, 1]]),
}
SHAPE = (13, 9, 7)
#: Of each plane: the world axis that is constant, that which falls downwards and that which falls to the right.
MEANING: dict[Plane, tuple[int, int, int]] = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


@pytest.fixture(params=AFFINES)
def geometry(request: pytest.FixtureRequest) -> Geometry:
    return Geometry(SHAPE, AFFINES[request.param])


@pytest.mark.parametrize("plane", PLANES)
def test_a_picture_is_the_files_slice_seen_as_a_radiologist_does(geometry: Geometry, plane: Plane) -> None:
    view = View.of(geometry)
    world = geometry.world(np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1))
    constant, down, right = MEANING[plane]
    file_axis = int(np.abs(geometry.affine_voxel_to_world[constant, :3]).argmax())
    assert view.count(plane) == SHAPE[file_axis]
    number = 2
    expected = world.take(number, axis=file_axis)[..., constant].ravel()[0]
    shown = [view.picture(world[..., axis], plane, number) for axis in (constant, down, right)]
    assert (shown[0] == expected).all()
    assert (np.diff(shown[1], axis=0) < 0).all()
    # Of sagittal slices anterior is on the left, of the others the patient's right: both fall to the right.
    assert (np.diff(shown[2], axis=1) < 0).all()
    height, width = np.abs(np.diff(shown[1], axis=0))[0, 0], np.abs(np.diff(shown[2], axis=1))[0, 0]
    assert view.aspect(plane) == pytest.approx(height / width)
    rows, columns = shown[0].shape
    assert view.size_mm(plane) == pytest.approx((columns * width, rows * height))


def test_the_crop_holds_what_is_seen_and_no_more(geometry: Geometry) -> None:
    seen = np.zeros(SHAPE, bool)
    seen[2:6, 3:8, 1:4] = True
    view = View.of(geometry, seen, np.zeros(SHAPE, bool))
    for plane in PLANES:
        picture = view.picture(seen, plane, view.middle(seen, plane))
        assert picture.all()
    assert sorted(view.picture(seen, "axial", view.middle(seen, "axial")).shape) == sorted(
        n for n, axis in zip((4, 5, 3), range(3), strict=True) if axis != view._own_axis("axial")
    )


def test_slices_are_chosen_where_there_is_something(geometry: Geometry) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[3:12, 2:5, 1:6] = True
    mask[7] = True
    view = View.of(geometry)
    for plane in PLANES:
        own = view._own_axis(plane)
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != own)))
        chosen = view.evenly(mask, plane, 3)
        assert set(chosen) <= set(inside.tolist())
        assert len(set(np.diff(chosen))) <= 2
        counts = np.bincount(np.nonzero(mask)[own])
        assert counts[view.slice_with_most(mask, plane)] == counts.max()
        assert view.evenly(np.zeros(SHAPE, bool), plane, 1) == (SHAPE[own] // 2,)
    assert chosen_slices(view, "axial", (2, 1), mask) == (2, 1)
    with pytest.raises(GeometryError, match=r"no axial slice 99: they are numbered from 0 to"):
        chosen_slices(view, "axial", (2, 99), mask)


def test_grey_values_leave_the_background_out() -> None:
    data = np.zeros((20, 20, 20))
    data[5:15, 5:15, 5:15] = np.linspace(100, 200, 1000).reshape(10, 10, 10)
    geometry = Geometry.with_spacing((20, 20, 20))
    backdrop = Backdrop.of(Volume(data, geometry), geometry)
    assert (backdrop.low, backdrop.high) == pytest.approx((101, 199.5))
    assert np.array_equal(backdrop.seen, data > 0)
    constant = Backdrop.of(Volume(np.full((20, 20, 20), 3.0), geometry), geometry)
    assert constant.low < constant.high
    assert not Backdrop.of(None, geometry).seen.any()
