"""Known answers, and the same from SimpleITK where it has the tool."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from scipy.ndimage import binary_erosion, gaussian_filter

from napari_seg3d.comparison.difference import difference_map, disagreements
from napari_seg3d.correction.between import fill_between
from napari_seg3d.correction.brushes import brush, polygon, threshold_brush
from napari_seg3d.correction.combine import combine, copy_part, relabel_part, take
from napari_seg3d.correction.islands import fill_holes, keep_island, keep_largest, remove_island, remove_smaller
from napari_seg3d.correction.masks import Where
from napari_seg3d.correction.seeds import grow_from_seeds
from napari_seg3d.correction.shape import grow, near, shrink, smooth
from napari_seg3d.correction.split import split_by_plane, split_by_seeds
from napari_seg3d.volumes.geometry import Geometry

SHAPE = (31, 27, 17)
SPACING = (1.1, 0.9, 2.6)
AFFINE = np.array([[0, -0.9, 0, 5], [1.1, 0, 0, -8], [0, 0, -2.6, 30], [0, 0, 0, 1.0]])
GRID = Geometry(SHAPE, AFFINE)


def blobs(seed: int = 0, share: float = 0.3) -> np.ndarray:
    """Rough connected and loose shapes of label 1."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), (2, 2, 1))
    return (field > np.quantile(field, 1 - share)).astype(np.uint8)


def to_sitk(array: np.ndarray) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)).astype(np.uint8))
    image.SetSpacing(SPACING)
    return image


def from_sitk(image: SimpleITK.Image) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)


def distances(points: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Smallest distance in mm of every voxel to any of some points, the slow way."""
    return np.min([np.linalg.norm((place - point) * SPACING, axis=-1) for point in points], axis=0)


PLACE = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).astype(float)


def test_a_ball_is_round_in_millimetres() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    after = brush(labels, GRID, 5, [(14.3, 12.8, 7.6)], radius_mm=6).applied_to(labels)
    expected = distances(np.array([(14.3, 12.8, 7.6)]), PLACE) <= 6
    expected[14, 13, 8] = True
    assert np.array_equal(after == 5, expected)


def test_a_stroke_leaves_no_gap_between_its_points() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    start, end = np.array((4.0, 5, 3)), np.array((25.0, 20, 13))
    after = brush(labels, GRID, 1, [start, end], radius_mm=4).applied_to(labels)
    # A thousand balls along the way.
    steps = start + np.linspace(0, 1, 1000)[:, None] * (end - start)
    assert np.count_nonzero((after == 1) != (distances(steps, PLACE) <= 4)) <= 2


def test_a_brush_smaller_than_a_voxel_paints_a_line() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    change = brush(labels, GRID, 1, [(2, 2, 2), (9, 2, 2)], radius_mm=0.1)
    assert sorted(change.indices[0]) == list(range(2, 10))
    assert set(change.indices[1]) == set(change.indices[2]) == {2}


def test_a_disc_stays_in_its_slice() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    change = brush(labels, GRID, 1, [(15, 12, 8)], radius_mm=8, axis=0)
    expected = np.linalg.norm((PLACE[15] - (15, 12, 8))[..., 1:] * SPACING[1:], axis=-1) <= 8
    assert set(change.indices[0]) == {15}
    assert np.array_equal(change.applied_to(labels)[15], expected)


@pytest.mark.parametrize("axis", [None, 2])
def test_a_brush_may_leave_the_image(axis: int | None) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    stroke = [(-20, -3, 4), (45, -3, 4)]
    change = brush(labels, GRID, 1, stroke, radius_mm=4, axis=axis)
    assert set(change.indices[1]) == {0, 1}
    assert len(brush(labels, GRID, 1, [(-200, 0, 0)], radius_mm=4)) == 0


def test_the_threshold_brush_takes_the_range_with_its_ends_and_no_nan() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    image = PLACE[..., 0].copy()
    image[12] = np.nan
    change = threshold_brush(labels, GRID, 3, [(12, 12, 8)], image, lowest=10, highest=13, radius_mm=6)
    assert set(change.indices[0]) == {10, 11, 13}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_polygon_fills_what_lies_inside_its_corners(axis: int) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    corners = np.array([(3.5, 2.5), (3.5, 9.5), (10.5, 9.5), (10.5, 2.5)])
    change = polygon(labels, 2, corners, axis=axis, first=6, last=4)
    expected = np.zeros(SHAPE, np.uint8)
    np.moveaxis(expected, axis, 0)[4:7, 4:11, 3:10] = 2
    assert np.array_equal(change.applied_to(labels), expected)
    # With all three coordinates, the one across the slice does not matter.
    solid = np.insert(corners, axis, 4.0, axis=1)
    assert len(polygon(labels, 2, solid, axis=axis, first=4)) == 49


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_between_two_discs_lies_the_cone(axis: int) -> None:
    """Radius 3 and 9 mm, four slices apart: 4.5, 6 and 7.5 mm, within half a voxel."""
    shape = [41, 41, 41]
    shape[axis] = 9
    grid = Geometry.with_spacing(tuple(shape), (1.0, 0.8, 1.3))
    labels = np.zeros(shape, np.uint8)
    place = np.indices(shape) - np.array([20, 20, 20])[:, None, None, None]
    radius = np.linalg.norm(np.delete(place * np.array((1.0, 0.8, 1.3))[:, None, None, None], axis, 0), axis=0)
    stack, radii = np.moveaxis(labels, axis, 0), np.moveaxis(radius, axis, 0)
    stack[2][radii[2] <= 3] = 1
    stack[6][radii[6] <= 9] = 1
    change = fill_between(labels, grid, (1,), axis=axis)
    after = np.moveaxis(change.applied_to(labels), axis, 0)
    assert set(change.indices[axis]) == {3, 4, 5}
    for number, expected in ((3, 4.5), (4, 6), (5, 7.5)):
        assert radii[number][after[number] == 1].max() <= expected + 0.7
        assert radii[number][after[number] == 0].min() >= expected - 0.7


def test_labels_that_touch_touch_between_the_slices() -> None:
    labels = np.zeros((33, 29, 9), np.uint8)
    for slice_, middle in ((0, 10), (8, 20)):
        labels[4:28, 4:middle, slice_] = 1
        labels[4:28, middle:25, slice_] = 2
    after = fill_between(labels, Geometry.with_spacing(labels.shape, (1, 1.5, 4)), (1, 2), axis=2).applied_to(labels)
    # The outline is the same in both slices: it stays, without a gap, and the border moves steadily.
    assert (after[4:28, 4:25] > 0).all()
    assert np.count_nonzero(after) == 24 * 21 * 9
    borders = [int((after[15, :, z] == 1).sum()) for z in range(9)]
    assert borders == sorted(borders)
    assert borders[0] == 6
    assert borders[4] in (10, 11, 12)


def test_what_is_drawn_apart_is_joined_and_what_ends_tapers() -> None:
    labels = np.zeros((40, 21, 7), np.uint8)
    labels[3:9, 6:12, 0] = 1
    labels[28:34, 6:12, 6] = 1
    grid = Geometry.with_spacing(labels.shape)
    after = fill_between(labels, grid, (1,), axis=2).applied_to(labels)
    sizes = [int((after[..., z] == 1).sum()) for z in range(7)]
    assert min(sizes) >= 30
    middle = np.nonzero(after[..., 3])[0].mean()
    assert middle == pytest.approx(18, abs=0.6)
    # Slice 6 is said to be empty.
    labels[..., 6] = 0
    tapered = fill_between(labels, grid, (1,), axis=2, slices=(0, 6)).applied_to(labels)
    sizes = [int((tapered[..., z] == 1).sum()) for z in range(7)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] > 0
    assert sizes[6] == 0


def test_filling_between_every_fourth_slice_restores_a_smooth_shape() -> None:
    truth = np.zeros((45, 43, 41), np.uint8)
    place = (np.indices(truth.shape) - 21).astype(float)
    truth[(place[0] / 17) ** 2 + (place[1] / 15) ** 2 + (place[2] / 19) ** 2 < 1] = 1
    truth[(place[0] / 9) ** 2 + ((place[1] - 3) / 8) ** 2 + (place[2] / 13) ** 2 < 1] = 2
    labels = np.where(np.arange(41) % 4 == 1, truth, 0).astype(np.uint8)
    after = fill_between(labels, Geometry.with_spacing(truth.shape), (1, 2), axis=2).applied_to(labels)
    # Towards the poles nothing is annotated.
    middle = slice(5, 38)
    for value in (1, 2):
        ours, theirs = after[..., middle] == value, truth[..., middle] == value
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.95


@pytest.mark.parametrize("large_voxels", [10**9, 0])
def test_seeds_grow_to_the_edges(large_voxels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and in two steps as in large boxes."""
    monkeypatch.setattr("napari_seg3d.correction.seeds.LARGE_VOXELS", large_voxels)
    labels = np.zeros(SHAPE, np.uint8)
    truth = np.zeros(SHAPE, np.uint8)
    truth[6:24, 5:22, 3:14] = 1
    truth[11:19, 9:17, 6:11] = 2
    noise = 2 * np.random.default_rng(0).standard_normal(SHAPE)
    image = (100 * truth + noise).astype(np.float32)
    image[0, 0, 0] = np.nan
    seeds = np.zeros(SHAPE, np.uint8)
    seeds[14:16, 12:14, 8], seeds[8, 7:20, 8], seeds[2, 2:24, 8], seeds[28, 2:24, 8] = 2, 1, 9, 9
    change = grow_from_seeds(labels, GRID, seeds, [image], background=9, box=(slice(0, 31), slice(0, 27), slice(0, 17)))
    wrong = change.applied_to(labels) != truth
    # The gradient of a sharp edge is the same on both of its sides: a voxel there may go either way.
    beside = sum(np.abs(np.gradient(truth.astype(float), axis=axis)) for axis in range(3)) > 0
    assert not (wrong & ~beside).any()
    assert wrong.sum() < 0.5 * beside.sum()
    # Nothing outside a box that is given.
    box = (slice(4, 26), slice(4, 23), slice(7, 10))
    seeds[5, 7:20, 8] = 9
    inside = grow_from_seeds(labels, GRID, seeds, [image], background=9, box=box)
    assert {int(z) for z in inside.indices[2]} <= {7, 8, 9}


@pytest.mark.parametrize("seed", [0, 1])
def test_smoothing_one_label_is_the_median(seed: int) -> None:
    """A kernel that reaches one voxel along X and Y and none along Z is a cross of five."""
    labels = blobs(seed)
    after = smooth(labels, GRID, 1, kernel_mm=2.3).applied_to(labels)
    padded = np.pad(labels, 1, mode="edge").astype(int)
    votes = sum(
        np.roll(padded, step, (0, 1, 2))[1:-1, 1:-1, 1:-1]
        for step in ((0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0))
    )
    assert np.array_equal(after, votes >= 3)


def test_smoothing_within_slices_is_simpleitks_median() -> None:
    # On a grid where the ball holds exactly the box of SimpleITK's filter: 3 voxels along one axis.
    grid = Geometry.with_spacing(SHAPE, (1.0, 5.0, 5.0))
    labels = blobs(3)
    after = smooth(labels, grid, 1, kernel_mm=4).applied_to(labels)
    median = SimpleITK.Median(to_sitk(labels), [2, 0, 0])
    assert np.array_equal(after, from_sitk(median))


def test_smoothing_together_leaves_no_gap_between_labels() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE, np.uint8)
    # A rough border between 1 and 2, both inside a straight block.
    border = 13 + rng.integers(-3, 4, SHAPE[1:])
    labels[np.arange(SHAPE[0])[:, None, None] < border] = 1
    labels[labels == 0] = 2
    after = smooth(labels, GRID, kernel_mm=6).applied_to(labels)
    assert set(np.unique(after)) == {1, 2}

    def roughness(a: np.ndarray) -> float:
        return float(np.abs(np.diff((a == 1).sum(axis=0).astype(int), axis=0)).mean())

    assert roughness(after) < roughness(labels) / 2


@pytest.mark.parametrize("margin_mm", [1.0, 2.2, 5.2, 7.8])
def test_margins_are_those_of_simpleitks_distances(margin_mm: float) -> None:
    labels = blobs(2, share=0.05)
    outside = from_sitk(
        SimpleITK.Cast(SimpleITK.DanielssonDistanceMap(to_sitk(labels), True, False, True), SimpleITK.sitkFloat32)
    )
    grown = grow(labels, GRID, 1, margin_mm=margin_mm).applied_to(labels)
    exact = distances(np.argwhere(labels), PLACE)
    assert np.array_equal(grown == 1, exact <= margin_mm + 1e-6)
    # Danielsson's map is the exact one up to a few voxels.
    assert np.count_nonzero((grown == 1) != (outside <= margin_mm + 1e-4)) < 0.01 * grown.size
    inverse = (1 - labels).astype(np.uint8)
    shrunk = shrink(inverse, GRID, 1, margin_mm=margin_mm).applied_to(inverse)
    assert np.array_equal(shrunk == 0, exact <= margin_mm + 1e-6)


@pytest.mark.parametrize("length_mm", [0.5, 3.0, 20.0])
def test_both_ways_to_a_margin_agree(length_mm: float, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = blobs(5, share=0.02).astype(bool)
    results = []
    for limit in (0, 10**9):
        monkeypatch.setattr("napari_seg3d.correction.shape._WRITES_PER_VOXEL", limit)
        results.append(near(mask, length_mm, SPACING))
    assert np.array_equal(*results)
    assert results[0].sum() > mask.sum() or length_mm < min(SPACING)


def test_growing_leaves_other_labels_unless_told() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:15, 10:15, 8] = 1
    labels[15:18, 10:15, 8] = 2
    after = grow(labels, GRID, 1, margin_mm=2.3).applied_to(labels)
    assert np.array_equal(after == 2, labels == 2)
    over = grow(labels, GRID, 1, margin_mm=2.3, where=Where(inside=(2,))).applied_to(labels)
    assert np.count_nonzero(over == 2) == 5
    assert np.array_equal(over == 0, labels == 0)


def test_shrinking_does_not_eat_from_the_border_of_the_image() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[:10] = 1
    after = shrink(labels, GRID, 1, margin_mm=1.1).applied_to(labels)
    assert np.array_equal(after == 1, np.broadcast_to(np.arange(31)[:, None, None] < 9, SHAPE))
    assert np.array_equal(after == 1, binary_erosion(labels == 1, np.ones((3, 1, 1)), border_value=1))


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_the_largest_part_is_simpleitks(seed: int) -> None:
    labels = blobs(seed, share=0.12) * np.uint8(7)
    parts = SimpleITK.RelabelComponent(SimpleITK.ConnectedComponent(to_sitk(labels)))
    after = keep_largest(labels, 7).applied_to(labels)
    assert np.array_equal(after == 7, from_sitk(parts) == 1)


def test_parts_below_a_volume_go_and_one_of_exactly_that_volume_stays() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:4, 2:4, 2] = 1
    labels[10:15, 10, 4] = 1
    labels[20, 20, 10:13] = 1
    volume = 4 * GRID.voxel_volume_ml
    after = remove_smaller(labels, GRID, 1, smallest_ml=volume).applied_to(labels)
    assert np.count_nonzero(after) == 9
    replaced = remove_smaller(labels, GRID, 1, smallest_ml=volume, replace_with=4).applied_to(labels)
    assert np.count_nonzero(replaced == 4) == 3


def test_the_clicked_part_is_kept_or_removed() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:5, 2:5, 2:5] = 1
    labels[5, 5, 5] = 1
    labels[9:12, 9:12, 9:12] = 1
    assert np.count_nonzero(keep_island(labels, (10.2, 9.9, 11)).applied_to(labels)) == 27
    assert np.count_nonzero(remove_island(labels, (2, 2, 2)).applied_to(labels)) == 28
    assert np.count_nonzero(remove_island(labels, (2, 2, 2), touching="corners").applied_to(labels)) == 27


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_filled_holes_are_simpleitks(seed: int) -> None:
    labels = blobs(seed, share=0.5)
    labels[10:20, 10:20, 5:12] = 1
    labels[13:15, 13:15, 8] = labels[17, 12, 7] = 0
    after = fill_holes(labels, 1).applied_to(labels)
    assert np.array_equal(after, from_sitk(SimpleITK.BinaryFillhole(to_sitk(labels), False, 1)))
    for axis in range(3):
        sliced = np.moveaxis(fill_holes(labels, 1, axis=axis).applied_to(labels), axis, 0)
        for ours, before in zip(sliced, np.moveaxis(labels, axis, 0), strict=True):
            theirs = SimpleITK.BinaryFillhole(SimpleITK.GetImageFromArray(np.ascontiguousarray(before)), False, 1)
            assert np.array_equal(ours, SimpleITK.GetArrayFromImage(theirs))


def test_a_hole_between_two_labels_needs_both_as_walls_and_keeps_what_is_in_it() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[5:15, 5:15, 4:12] = 1
    labels[10:15, 5:15, 4:12] = 2
    labels[9:11, 9, 7] = 0
    labels[8, 9, 7] = 3
    assert len(fill_holes(labels, 1)) == 0
    after = fill_holes(labels, 1, walls=(2, 3)).applied_to(labels)
    assert after[8:11, 9, 7].tolist() == [3, 1, 1]


def test_one_disagreement_is_taken_and_the_others_stay() -> None:
    truth, predicted = blobs(0), blobs(1)
    for one in disagreements(difference_map(predicted, truth), GRID)[:5]:
        expected = predicted.copy()
        expected[one.indices] = truth[one.indices]
        assert np.array_equal(take(predicted, truth, one.indices).applied_to(predicted), expected)
    agreed = np.nonzero(truth == predicted)
    assert len(take(predicted, truth, agreed)) == 0


def test_a_part_of_another_layer_is_copied_as_itself_or_as_another_label() -> None:
    labels, other = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint16)
    other[3:6, 3:6, 3:6] = 2
    other[10:13, 3:6, 3:6] = 2
    copied = copy_part(labels, other, (11, 4, 4))
    assert np.array_equal(copied.applied_to(labels)[9:], other[9:])
    assert len(copied) == 27
    assert set(copy_part(labels, other, (4, 4, 4), 5).values) == {5}


def test_logic_is_that_of_sets() -> None:
    labels, other = blobs(0) * np.uint8(2), blobs(1).astype(bool)
    mine = labels == 2
    for operation, expected in (("union", mine | other), ("intersection", mine & other), ("difference", mine & ~other)):
        assert np.array_equal(combine(labels, 2, other, operation).applied_to(labels) == 2, expected)


def test_a_part_gets_another_label() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:6, 3:6, 3:6] = labels[10:13, 3:6, 3:6] = 1
    after = relabel_part(labels, (4, 4, 4), 3).applied_to(labels)
    assert (after == 3).sum() == (after == 1).sum() == 27


def test_a_plane_splits_in_world_coordinates() -> None:
    labels = blobs(0)
    point, normal = GRID.world((15.1, 13.2, 8.3)), np.array((0.3, -1.0, 0.5))
    after = split_by_plane(labels, GRID, 1, 2, point_mm=point, normal_mm=normal).applied_to(labels)
    beyond = (GRID.world(PLACE) - point) @ normal > 0
    assert np.array_equal(after == 2, (labels == 1) & beyond)
    assert np.array_equal(after > 0, labels > 0)


def test_two_balls_are_cut_at_their_neck() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    first, second = (9, 13, 8), (21, 13, 8)
    labels[np.minimum(distances(np.array([first]), PLACE), distances(np.array([second]), PLACE)) < 7.2] = 1
    labels[2, 2, 2] = 1
    after = split_by_seeds(labels, GRID, 1, 2, stays=[first], leaves=[second, (0, 0, 0)]).applied_to(labels)
    assert set(np.nonzero(after == 2)[0]) <= set(range(14, 31))
    assert set(np.nonzero(after == 1)[0]) <= set(range(17))
    assert after[2, 2, 2] == 1
    assert abs(int((after == 1).sum()) - int((after == 2).sum())) < 0.15 * (after > 0).sum()
