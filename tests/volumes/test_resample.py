"""Resampling against truths that hold in the world: linear fields, shared boxes, plain voxel-by-voxel oracles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from nibabel.orientations import apply_orientation
from scipy import ndimage

from napari_seg3d.errors import GeometryError
from napari_seg3d.volumes.files import read_label_map, read_volume
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.resample import (
    reoriented_geometry,
    resample_label_map,
    resample_volume,
    resampled_geometry,
)
from napari_seg3d.volumes.volume import LabelMap, Volume

SHAPE = (17, 21, 9)
CODES = ["RAS", "LPS", "LAS", "PIR", "SRP", "IAL"]


def linear_field(geometry: Geometry) -> np.ndarray:
    """A value that grows evenly through the world, so that linear interpolation is exact on any grid."""
    return (geometry.world(np.moveaxis(np.indices(geometry.shape), 0, -1)) @ [1.0, -2.0, 0.5] + 100).astype(np.float32)


def ball(geometry: Geometry, radius_mm: float, value: int = 1) -> np.ndarray:
    centre = geometry.world((np.array(geometry.shape) - 1) / 2)
    distance = np.linalg.norm(geometry.world(np.moveaxis(np.indices(geometry.shape), 0, -1)) - centre, axis=-1)
    return np.where(distance <= radius_mm, value, 0).astype(np.uint8)


def corners(geometry: Geometry) -> np.ndarray:
    """World coordinates of the outer corners of the box: half a voxel beyond the outermost centres."""
    ends = [(-0.5, n - 0.5) for n in geometry.shape]
    return geometry.world(np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3))


def centred(shape: tuple[int, int, int], affine: np.ndarray, source: Geometry) -> Geometry:
    """A grid with the axes of `affine` around the middle of another one."""
    affine = affine.copy()
    affine[:3, 3] = source.world((np.array(source.shape) - 1) / 2) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Geometry(shape, affine)


# --- grids


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.4, 3, 2.5), (100, 1, 1), (0.9, 1.1, 2.5)])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_resampled_geometry_keeps_the_box(affine, codes, spacing):
    geometry = Geometry(SHAPE, affine(codes, 20))
    new = resampled_geometry(geometry, spacing)
    assert corners(new) == pytest.approx(corners(geometry))
    for n, size, old, wanted in zip(new.shape, SHAPE, geometry.spacing_mm, spacing, strict=True):
        assert n == max(1, round(size * old / wanted))
    assert np.array(new.shape) * new.spacing_mm == pytest.approx(np.array(SHAPE) * geometry.spacing_mm)
    assert new.orientation == codes


def test_the_same_spacing_is_the_same_grid(affine):
    geometry = Geometry(SHAPE, affine("LPS", 20))
    assert resampled_geometry(geometry, geometry.spacing_mm) == geometry


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, -1, 1), (1, np.nan, 1)])
def test_bad_spacings_are_refused(spacing):
    with pytest.raises(GeometryError, match="three positive spacings"):
        resampled_geometry(Geometry.with_spacing(SHAPE), spacing)


@pytest.mark.parametrize("to", ["RAS", "IPL", "SAR"])
@pytest.mark.parametrize("codes", CODES)
def test_reoriented_geometry_is_that_of_the_turned_view(affine, codes, to):
    geometry = Geometry(SHAPE, affine(codes, 20))
    new = reoriented_geometry(geometry, to)
    assert new.orientation == to
    field = apply_orientation(linear_field(geometry), geometry.orientation_to(to))
    assert field.shape == new.shape
    assert field == pytest.approx(linear_field(new), abs=1e-4)


# --- copies


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
@pytest.mark.parametrize("codes", CODES)
def test_turned_grids_are_copied_exactly_in_their_type(affine, codes, dtype):
    geometry = Geometry(SHAPE, affine("LPS", 20))
    data = np.random.default_rng(0).integers(0, 99, SHAPE).astype(dtype)
    target = reoriented_geometry(geometry, codes)
    expected = apply_orientation(data, geometry.orientation_to(codes))
    result = resample_volume(Volume(data, geometry, "T1"), target)
    assert np.array_equal(result.data, expected)
    assert result.data.dtype == data.dtype
    assert (result.name, result.geometry) == ("T1", target)
    if dtype in ("u1", "i2"):
        labels = resample_label_map(LabelMap(data, geometry), target)
        assert np.array_equal(labels.data, expected)
        assert labels.data.dtype == data.dtype
        assert np.array_equal(resample_label_map(labels, geometry).data, data)


@pytest.mark.parametrize("start", [(0, 0, 0), (3, -2, 4), (-30, 0, 0), (0, 40, 0), (-4, -4, -4)])
@pytest.mark.parametrize("shape", [(5, 6, 4), (40, 2, 30)])
def test_crops_and_pads_are_copied(affine, start, shape):
    geometry = Geometry(SHAPE, affine("LAS", 20))
    moved = geometry.affine_voxel_to_world.copy()
    moved[:3, 3] = geometry.world(start)
    data = np.random.default_rng(0).integers(5, 99, SHAPE).astype(np.uint8)
    expected = np.zeros(shape, np.uint8)
    for voxel in np.ndindex(shape):
        place = np.add(voxel, start)
        if (place >= 0).all() and (place < SHAPE).all():
            expected[voxel] = data[tuple(place)]
    result = resample_label_map(LabelMap(data, geometry), Geometry(shape, moved))
    assert np.array_equal(result.data, expected)
    filled = resample_volume(Volume(data, geometry), Geometry(shape, moved)).data
    assert np.array_equal(filled, np.where(expected, expected, data.min()))


def test_rounding_in_a_header_is_no_reason_to_interpolate(affine):
    geometry = Geometry((240, 240, 155), affine("LPS", 20))
    rounded = Geometry(geometry.shape, geometry.affine_voxel_to_world.astype(np.float32))
    data = np.random.default_rng(0).integers(0, 99, geometry.shape).astype(np.uint8)
    assert np.array_equal(resample_volume(Volume(data, geometry), rounded).data, data)


# --- intensities


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("spacing", [(0.45, 1.1, 1.25), (0.9, 0.7, 2.0)])
def test_linear_fields_stay_exact_on_finer_grids(affine, codes, spacing):
    geometry = Geometry(SHAPE, affine("LPS", 20))
    target = reoriented_geometry(resampled_geometry(geometry, spacing), codes)
    result = resample_volume(Volume(linear_field(geometry), geometry), target).data
    inner = tuple(slice(3, -3) for _ in range(3))
    assert result.dtype == np.float32
    assert result[inner] == pytest.approx(linear_field(target)[inner], abs=1e-3)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("degrees", [5, 40])
def test_linear_fields_stay_exact_on_turned_grids(affine, degrees, order):
    geometry = Geometry((31, 33, 17), affine("LPS", 20))
    target = centred((9, 5, 7), affine("PIR", 20 + degrees), geometry)
    result = resample_volume(Volume(linear_field(geometry), geometry), target, order=order).data
    assert result == pytest.approx(linear_field(target), abs=0.02)


def test_coarser_grids_keep_the_mean_and_lose_no_voxel(affine):
    """A single bright voxel must show wherever it lies between the coarse ones, with its share of brightness."""
    geometry = Geometry((40, 36, 24), affine("LPS", 20))
    target = resampled_geometry(geometry, np.array(geometry.spacing_mm) * 3)
    for voxel in [(20, 18, 12), (21, 19, 13), (22, 18, 14)]:
        data = np.zeros(geometry.shape, np.float32)
        data[voxel] = 27
        result = resample_volume(Volume(data, geometry), target).data
        assert result.sum() == pytest.approx(1, rel=0.15)
        assert result.max() > 0.15


def test_only_axes_that_become_coarser_are_blurred(affine):
    geometry = Geometry((20, 20, 20), affine("RAS"))
    checkers = (np.indices(geometry.shape).sum(axis=0) % 2).astype(np.float32)
    spacing = (geometry.spacing_mm[0], geometry.spacing_mm[1] * 2, geometry.spacing_mm[2])
    result = resample_volume(Volume(checkers, geometry), resampled_geometry(geometry, spacing)).data
    assert result[5:-5, 2:-2, 5:-5] == pytest.approx(0.5, abs=0.02)
    stripes = (np.indices(geometry.shape)[0] % 2).astype(np.float32)
    result = resample_volume(Volume(stripes, geometry), resampled_geometry(geometry, spacing)).data
    assert result == pytest.approx(stripes[:, :10], abs=1e-6)


def test_the_nearest_voxel(affine):
    geometry = Geometry(SHAPE, affine("LPS"))
    data = np.random.default_rng(0).integers(0, 999, SHAPE).astype(np.int16)
    target = resampled_geometry(geometry, np.array(geometry.spacing_mm) * (3, 0.5, 1))
    result = resample_volume(Volume(data, geometry), target, order=0).data
    assert set(np.unique(result)) <= set(np.unique(data).astype(np.float32))
    assert np.array_equal(result[:, ::2], result[:, 1::2])
    assert np.array_equal(result[2, ::2], data[7])


def test_outside_is_the_smallest_value(affine):
    geometry = Geometry(SHAPE, affine("LPS", 20))
    data = linear_field(geometry)
    moved = geometry.affine_voxel_to_world.copy()
    moved[:3, 3] = geometry.world((-2.3, 0, 0))
    result = resample_volume(Volume(data, geometry), Geometry(SHAPE, moved)).data
    assert np.array_equal(result[:2], np.full((2, *SHAPE[1:]), data.min()))
    # Within the outermost voxels, up to half a voxel beyond their centres, their value goes on.
    assert result[2] == pytest.approx(data[0], abs=1e-4)
    assert (result[3:] > data.min()).mean() > 0.99


def test_a_constant_stays_constant(affine):
    geometry = Geometry(SHAPE, affine("PIR", 20))
    for spacing in ((0.5, 4, 1), (7, 7, 7)):
        target = resampled_geometry(geometry, spacing)
        result = resample_volume(Volume(np.full(SHAPE, 7, np.int16), geometry), target).data
        assert result == pytest.approx(7, abs=1e-5)


def test_linear_interpolation_equals_scipys(affine):
    geometry = Geometry(SHAPE, affine("LPS", 20))
    target = resampled_geometry(geometry, (0.7, 0.8, 1.9))
    data = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    to_source = np.linalg.inv(geometry.affine_voxel_to_world) @ target.affine_voxel_to_world
    expected = ndimage.affine_transform(
        data, to_source[:3, :3], to_source[:3, 3], target.shape, order=1, mode="nearest"
    )
    assert resample_volume(Volume(data, geometry), target).data == pytest.approx(expected, abs=1e-4)


def test_itk_finds_the_same_values_at_the_same_places(affine):
    geometry = Geometry(SHAPE, affine("LAS", 33))
    # Finer along all axes, so that nothing is blurred, and reaching beyond the source.
    target = centred((25, 19, 40), affine("PIR", 20) @ np.diag([0.35, 0.7, 0.3, 1]), geometry)
    data = np.random.default_rng(0).normal(5, 1, SHAPE).astype(np.float32)

    def itk_image(array: np.ndarray, grid: Geometry) -> SimpleITK.Image:
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.transpose()))
        lps = np.diag([-1, -1, 1, 1]) @ grid.affine_voxel_to_world
        image.SetSpacing(grid.spacing_mm)
        image.SetOrigin(lps[:3, 3])
        image.SetDirection((lps[:3, :3] / grid.spacing_mm).ravel())
        return image

    reference = itk_image(np.zeros(target.shape, np.float32), target)
    found = SimpleITK.Resample(itk_image(data, geometry), reference, SimpleITK.Transform(), SimpleITK.sitkLinear, 99.0)
    expected = SimpleITK.GetArrayFromImage(found).transpose()
    outside = expected == 99
    assert 1000 < outside.sum() < outside.size - 1000
    result = resample_volume(Volume(data, geometry), target).data
    assert result[~outside] == pytest.approx(expected[~outside], abs=1e-3)
    assert np.array_equal(result[outside], np.full(outside.sum(), data.min()))


# --- labels


@pytest.mark.parametrize("codes", CODES)
def test_labels_on_a_finer_grid_keep_their_shape(affine, codes):
    geometry = Geometry((25, 23, 15), affine("LPS", 20))
    target = reoriented_geometry(resampled_geometry(geometry, (0.5, 0.5, 0.5)), codes)
    label_map = LabelMap(ball(geometry, 9.0, 3), geometry)
    result = resample_label_map(label_map, target)
    truth = ball(target, 9.0, 3)
    assert set(np.unique(result.data)) == {0, 3}
    assert result.data.dtype == np.uint8
    dice = 2 * np.sum((result.data > 0) & (truth > 0)) / (np.sum(result.data > 0) + np.sum(truth > 0))
    assert dice > 0.95
    assert result.volume_ml(3) == pytest.approx(label_map.volume_ml(3), rel=0.03)


def test_labels_come_back_from_a_finer_grid_unchanged(affine, labels):
    geometry = Geometry(labels.shape, affine("PIR", 20))
    fine = resampled_geometry(geometry, np.array(geometry.spacing_mm) / 3)
    label_map = LabelMap(labels, geometry)
    assert np.array_equal(resample_label_map(resample_label_map(label_map, fine), geometry).data, labels)


def test_no_label_appears_between_two_others(affine):
    """Averaging 1 and 3 would give a 2 that nobody drew."""
    geometry = Geometry(SHAPE, affine("LPS", 20))
    data = np.where(np.indices(SHAPE)[0] < 8, 1, 3).astype(np.uint16)
    data[:, :, 0] = 900
    for spacing in ((0.37, 0.61, 1.7), (2.3, 3.1, 4.7)):
        result = resample_label_map(LabelMap(data, geometry), resampled_geometry(geometry, spacing))
        assert set(np.unique(result.data)) <= {1, 3, 900}
        assert result.data.dtype == np.uint16


def test_labels_against_a_plain_oracle(affine, labels):
    """All labels interpolated over the whole volume, the largest share wins."""
    geometry = Geometry(labels.shape, affine("LPS", 20))
    target = centred((13, 11, 14), affine("LAS", 31) @ np.diag([0.5, 0.7, 0.4, 1]), geometry)
    to_source = np.linalg.inv(geometry.affine_voxel_to_world) @ target.affine_voxel_to_world
    values = [0, 1, 2, 4]
    # Zeros around the volume stand for what lies outside; the edges are left out of the comparison.
    shares = [
        ndimage.affine_transform(
            (labels == value).astype(np.float64), to_source[:3, :3], to_source[:3, 3], target.shape, order=1
        )
        for value in values
    ]
    places = np.moveaxis(np.indices(target.shape), 0, -1) @ to_source[:3, :3].T + to_source[:3, 3]
    inner = ((places > 0.01) & (places < np.array(labels.shape) - 1.01)).all(axis=-1)
    clear = np.sort(shares, axis=0)[-1] - np.sort(shares, axis=0)[-2] > 1e-3
    expected = np.array(values)[np.argmax(shares, axis=0)]
    result = resample_label_map(LabelMap(labels, geometry), target).data
    compared = inner & clear
    assert compared.sum() > 100
    assert len(np.unique(expected[compared])) == 4
    assert np.array_equal(result[compared], expected[compared])


def test_coarser_labels_are_the_majority(affine):
    geometry = Geometry((30, 30, 15), affine("LPS", 20))
    data = np.where(np.indices(geometry.shape)[1] < 15, 1, 2).astype(np.uint8)
    target = resampled_geometry(geometry, np.array(geometry.spacing_mm) * 5)
    result = resample_label_map(LabelMap(data, geometry), target).data
    assert np.array_equal(result, np.where(np.indices(target.shape)[1] < 3, 1, 2))
    # One odd voxel in 125 does not decide, wherever it lies.
    data[12, 2, 7] = 9
    assert np.array_equal(resample_label_map(LabelMap(data, geometry), target).data, result)


def test_outside_is_background(affine):
    geometry = Geometry(SHAPE, affine("LPS", 20))
    moved = geometry.affine_voxel_to_world.copy()
    moved[:3, 3] = geometry.world((0, 0, 4.3))
    result = resample_label_map(LabelMap(np.full(SHAPE, 5, np.uint8), geometry), Geometry(SHAPE, moved)).data
    assert (result[..., :5] == 5).all()
    assert not result[..., 5:].any()


@pytest.mark.parametrize("degrees", [20, 35])
def test_a_label_that_the_new_grid_does_not_reach(affine, degrees):
    geometry = Geometry(SHAPE, affine("LPS", 20))
    data = np.zeros(SHAPE, np.uint8)
    data[:3, :3, :3] = 1
    data[8:12, 9:14, 3:6] = 2
    target = centred((6, 7, 8), affine("LPS", degrees) @ np.diag([0.7, 0.7, 0.5, 1]), geometry)
    result = resample_label_map(LabelMap(data, geometry), target).data
    assert set(np.unique(result)) == {0, 2}


def test_empty_and_full_maps(affine):
    geometry = Geometry(SHAPE, affine("LPS", 20))
    target = resampled_geometry(geometry, (0.7, 2.0, 1.0))
    assert not resample_label_map(LabelMap(np.zeros(SHAPE, np.uint8), geometry), target).data.any()
    assert (resample_label_map(LabelMap(np.full(SHAPE, 3, np.uint8), geometry), target).data == 3).all()


def test_many_and_large_label_values(affine):
    geometry = Geometry((24, 24, 12), affine("LPS"))
    data = (np.indices(geometry.shape) // 4 * np.array([10_000, 100, 1]).reshape(3, 1, 1, 1)).sum(axis=0).astype("u4")
    fine = resampled_geometry(geometry, np.array(geometry.spacing_mm) / 3)
    result = resample_label_map(LabelMap(data, geometry), fine)
    assert np.array_equal(result.data, data.repeat(3, 0).repeat(3, 1).repeat(3, 2))


# --- real studies


def test_hippocampus_there_and_back(shared_data):
    path = next(iter(sorted((shared_data / "Task04_Hippocampus" / "labelsTr").glob("[!.]*.nii.gz"))))
    label_map = read_label_map(path)
    for spacing in ((0.5, 0.5, 0.5), (0.8, 1.3, 0.7)):
        there = resample_label_map(label_map, resampled_geometry(label_map.geometry, spacing))
        for value in (1, 2):
            assert there.volume_ml(value) == pytest.approx(label_map.volume_ml(value), rel=0.03)
        back = resample_label_map(there, label_map.geometry).data
        assert 2 * np.sum((back > 0) & (label_map.data > 0)) / ((back > 0).sum() + (label_map.data > 0).sum()) > 0.95
    image = read_volume(path.parent.parent / "imagesTr" / path.name)
    coarse = resample_volume(image, resampled_geometry(image.geometry, (2, 2, 2)))
    assert coarse.data.mean() == pytest.approx(image.data.mean(), rel=0.05)
    assert replace(coarse, data=image.data, geometry=image.geometry).source is image.source
