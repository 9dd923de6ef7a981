"""Every step of the articles' preprocessing, against its definition."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy import ndimage

from napari_seg3d.model.intensities import normalised
from napari_seg3d.model.plan import Normalisation


@pytest.fixture
def image():
    """An odd-sized image with a negative constant background, and where its foreground is."""
    random = np.random.default_rng(5)
    voxels = np.full((9, 7, 5), -3.16, np.float32)
    foreground = np.zeros(voxels.shape, bool)
    foreground[2:8, 1:6, 1:] = True
    voxels[foreground] = random.normal(40, 12, foreground.sum())
    return voxels, foreground


def test_zscores(image, tiny_plan):
    voxels, foreground = image
    inside = normalised(voxels, foreground, tiny_plan())
    assert inside[foreground].mean() == pytest.approx(0, abs=1e-5)
    assert inside[foreground].std() == pytest.approx(1, abs=1e-5)
    assert (inside[~foreground] == 0).all()
    whole = normalised(voxels, foreground, tiny_plan(normalisation="zscore-volume"))
    np.testing.assert_allclose(whole, (voxels - voxels.mean()) / voxels.std(), rtol=1e-4, atol=1e-5)


def test_medicalzoos_percentiles_come_from_the_whole_volume(image, tiny_plan):
    voxels, foreground = image
    voxels[4, 4, 4] = 1e6
    plan = tiny_plan(normalisation="zscore-volume", clip_percentiles=(0.1, 99.8))
    cut = np.clip(voxels, *np.percentile(voxels, (0.1, 99.8)))
    np.testing.assert_allclose(
        normalised(voxels, foreground, plan), (cut - cut.mean()) / cut.std(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(("name", "low", "high"), [("minmax", 0, 1), ("minmax-symmetric", -1, 1)])
def test_stretching(image, tiny_plan, name, low, high):
    stretched = normalised(*image, tiny_plan(normalisation=name))
    assert (stretched.min(), stretched.max()) == pytest.approx((low, high))
    assert np.corrcoef(stretched.ravel(), image[0].ravel())[0, 1] == pytest.approx(1)


def test_medicalzoos_brats_form_keeps_the_background_at_nothing(image, tiny_plan):
    voxels, foreground = image
    stretched = normalised(voxels, foreground, tiny_plan(normalisation="brats"))
    assert (stretched[~foreground] == 0).all()
    assert (stretched[foreground].min(), stretched[foreground].max()) == pytest.approx((10, 110))


def test_the_keras_articles_steps_come_in_its_order(image, tiny_plan):
    voxels, foreground = image
    plan = tiny_plan(normalisation="minmax", smooth_sigma_voxels=1, sharpening=0.3)
    unit = (voxels - voxels.min()) / (voxels.max() - voxels.min())
    smooth = ndimage.gaussian_filter(unit, (1, 1, 1))
    np.testing.assert_allclose(
        normalised(voxels, foreground, plan), smooth - 0.3 * ndimage.laplace(smooth), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", get_args(Normalisation))
def test_a_constant_image_divides_nothing_by_zero(tiny_plan, name):
    voxels = np.full((4, 5, 6), 7, np.float32)
    out = normalised(voxels, np.ones(voxels.shape, bool), tiny_plan(normalisation=name, smooth_sigma_voxels=1))
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert np.ptp(out) == 0


@pytest.mark.parametrize("name", get_args(Normalisation))
def test_the_image_given_stays_as_it_is(image, tiny_plan, name):
    before = image[0].copy()
    normalised(*image, tiny_plan(normalisation=name, sharpening=0.1))
    np.testing.assert_array_equal(image[0], before)
