"""Surface distances against MONAI and SimpleITK, and by hand."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
import SimpleITK
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

from napari_seg3d.comparison.surface import boundary, common_box, surface_distances
from napari_seg3d.errors import GeometryError

SPACING = (0.8, 1.3, 3.1)


def _blob(shape: tuple[int, ...], centre: tuple[float, ...], radii_mm: tuple[float, ...], seed: int) -> np.ndarray:
    """A bumpy ellipsoid; away from the border unless the centre is near it."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    rough = np.random.default_rng(seed).normal(0, 0.08, shape)
    distance = np.linalg.norm((grid - centre) * SPACING / np.asarray(radii_mm), axis=-1)
    return distance + rough < 1


def _pair() -> tuple[np.ndarray, np.ndarray]:
    shape = (43, 37, 21)
    return _blob(shape, (20, 18, 10), (11, 14, 20), 1), _blob(shape, (23, 17, 9), (12, 12, 17), 2)


def _for_monai(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None]


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
@pytest.mark.parametrize("at_border", [False, True])
def test_equals_monai(at_border: bool) -> None:
    predicted, truth = _pair()
    if at_border:
        # Cut so that both objects touch the border of the image.
        predicted, truth = predicted[15:, :20, 8:], truth[15:, :20, 8:]
    ours = surface_distances(predicted, truth, SPACING, tolerance_mm=1.5)
    pair = (_for_monai(predicted), _for_monai(truth))
    options = {"include_background": True, "spacing": SPACING}
    assert ours.hd_mm == pytest.approx(compute_hausdorff_distance(*pair, **options).item(), abs=1e-4)
    assert ours.hd95_mm == pytest.approx(compute_hausdorff_distance(*pair, percentile=95, **options).item(), abs=1e-4)
    assd = compute_average_surface_distance(*pair, symmetric=True, **options).item()
    assert ours.mean_mm == pytest.approx(assd, abs=1e-4)
    nsd = compute_surface_dice(*pair, class_thresholds=[1.5], **options).item()
    assert ours.surface_dice == pytest.approx(nsd, abs=1e-6)


def test_equals_the_contours_of_simpleitk() -> None:
    predicted, truth = _pair()
    edges, maps = [], []
    for mask in (predicted, truth):
        image = SimpleITK.GetImageFromArray(mask.astype(np.uint8).transpose(2, 1, 0))
        image.SetSpacing(SPACING)
        edge = SimpleITK.LabelContour(image, fullyConnected=False)
        distance = SimpleITK.SignedMaurerDistanceMap(edge, squaredDistance=False, useImageSpacing=True)
        edges.append(SimpleITK.GetArrayFromImage(edge) > 0)
        maps.append(np.abs(SimpleITK.GetArrayFromImage(distance)))
    forth, back = maps[1][edges[0]], maps[0][edges[1]]
    ours = surface_distances(predicted, truth, SPACING)
    assert ours.hd_mm == pytest.approx(max(forth.max(), back.max()), abs=1e-4)
    assert ours.hd95_mm == pytest.approx(max(np.percentile(forth, 95), np.percentile(back, 95)), abs=1e-4)
    assert ours.mean_mm == pytest.approx(np.concatenate([forth, back]).mean(), abs=1e-4)


def test_equals_brute_force() -> None:
    predicted, truth = _pair()
    ours, theirs = (np.argwhere(boundary(mask)) * SPACING for mask in (predicted, truth))
    every = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    forth, back = every.min(axis=1), every.min(axis=0)
    scores = surface_distances(predicted, truth, SPACING)
    both = np.concatenate([forth, back])
    expected = (both.max(), max(np.percentile(forth, 95), np.percentile(back, 95)), both.mean())
    np.testing.assert_allclose((scores.hd_mm, scores.hd95_mm, scores.mean_mm), expected, rtol=0, atol=1e-9)
    assert scores.surface_dice == np.mean(both <= 1.0)


def test_a_shift_of_two_voxels_of_three_mm_is_six_mm() -> None:
    truth = np.zeros((5, 6, 15), bool)
    truth[2, 3, 4] = True
    scores = surface_distances(np.roll(truth, 2, axis=2), truth, (1.0, 1.0, 3.0), tolerance_mm=6.0)
    assert (scores.hd_mm, scores.hd95_mm, scores.mean_mm, scores.surface_dice) == (6.0, 6.0, 6.0, 1.0)
    assert surface_distances(np.roll(truth, 2, axis=2), truth, (1.0, 1.0, 3.0), tolerance_mm=5.9).surface_dice == 0.0


def test_equal_masks_have_no_distance_between_them() -> None:
    mask = _pair()[0]
    scores = surface_distances(mask, mask, SPACING)
    assert (scores.hd_mm, scores.mean_mm, scores.surface_dice) == (0.0, 0.0, 1.0)


def test_it_is_symmetric() -> None:
    predicted, truth = _pair()
    there, back = surface_distances(predicted, truth, SPACING), surface_distances(truth, predicted, SPACING)
    assert there.hd95_mm == back.hd95_mm
    assert there.mean_mm == pytest.approx(back.mean_mm)


@pytest.mark.parametrize("filled", [(), (0,), (1,)])
def test_without_a_surface_there_is_no_distance(filled: tuple[int, ...]) -> None:
    masks = [np.zeros((4, 5, 6), bool), np.zeros((4, 5, 6), bool)]
    for i in filled:
        masks[i][1:3, 2, 2] = True
    scores = surface_distances(*masks, SPACING)
    assert all(isnan(v) for v in (scores.hd_mm, scores.hd95_mm, scores.mean_mm, scores.surface_dice))


def test_boundary_is_what_has_a_face_outside() -> None:
    mask = np.zeros((6, 7, 8), bool)
    mask[1:5, 1:6, 1:7] = True
    assert np.count_nonzero(boundary(mask)) == 4 * 5 * 6 - 2 * 3 * 4
    # Beyond the image is outside, so a full image is hollow too; a single layer is all boundary.
    assert np.count_nonzero(boundary(np.ones((4, 5, 6), bool))) == 4 * 5 * 6 - 2 * 3 * 4
    assert boundary(np.ones((1, 5, 6), bool)).all()


def test_common_box() -> None:
    mask = np.zeros((6, 7, 8), np.uint8)
    assert common_box(mask) is None
    mask[2, 3, 4] = mask[4, 6, 0] = 1
    assert common_box(mask) == (slice(2, 5), slice(3, 7), slice(0, 5))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(GeometryError, match="shape"):
        surface_distances(np.zeros((2, 3, 5), bool), np.zeros((2, 3, 4), bool), SPACING)
