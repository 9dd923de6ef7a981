"""How the intensities of one image become what the network sees: cut, normalised, smoothed, sharpened, in this order.

All of it is named in the plan, so that prediction repeats what training did. Statistics come from the whole volume,
never from a patch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .plan import CTWindow, Plan

#: Range of MedicalZoo's form for BraTS: the foreground is stretched to it, the background is 0.
_BRATS = (10.0, 110.0)


def normalised(
    voxels: NDArray[np.float32], foreground: NDArray[np.bool_], plan: Plan, window: CTWindow | None = None
) -> NDArray[np.float32]:
    """Return one image as the plan's network sees it, on its own voxels.

    Parameters
    ----------
    voxels : (X, Y, Z) float32 ndarray
        Finite.
    foreground : (X, Y, Z) bool ndarray
        Where the head, or what else was imaged, is.
    window : CTWindow, optional
        For CT: replaces cutting and normalising, because Hounsfield units mean the same in every scan.

    Returns
    -------
    (X, Y, Z) float32 ndarray

    Notes
    -----
    A constant image becomes 0 in every form but "none". The forms of the articles: "zscore-volume" with
    ``clip_percentiles`` 0.1 and 99.8 is MedicalZoo's full_volume_mean, "zscore-foreground" its mean, "minmax" its
    max_min, "max" and "brats" as there, but without its division by zero and its mixing of raw limits with z-scores;
    "minmax" with smoothing 1 and sharpening 0.3 is the Keras article's, "minmax-symmetric" that of Vox2Vox.
    """
    if window is not None:
        clipped = np.clip(voxels, np.float32(window.low), np.float32(window.high))
        voxels = np.asarray((clipped - window.mean) / window.std, dtype=np.float32)
    else:
        if plan.clip_percentiles is not None:
            low, high = np.percentile(voxels, plan.clip_percentiles)
            voxels = np.clip(voxels, np.float32(low), np.float32(high))
        voxels = _FORMS[plan.normalisation](voxels, foreground)
    if plan.smooth_sigma_voxels:
        voxels = ndimage.gaussian_filter(voxels, plan.smooth_sigma_voxels)
    if plan.sharpening:
        voxels = voxels - np.float32(plan.sharpening) * ndimage.laplace(voxels)
    return np.asarray(voxels, dtype=np.float32)


def _zscore(voxels: NDArray[np.float32], measured: NDArray[np.float32]) -> NDArray[np.float32]:
    mean, deviation = float(measured.mean(dtype=np.float64)), float(measured.std(dtype=np.float64))
    return (voxels - np.float32(mean)) / np.float32(max(deviation, 1e-8))


def _zscore_foreground(voxels: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    scored = _zscore(voxels, voxels[foreground] if foreground.any() else voxels)
    # The background's level says nothing about the patient; the foreground's mean is the neutral value.
    scored[~foreground] = 0
    return scored


def _zscore_volume(voxels: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    return _zscore(voxels, voxels)


def _minmax(voxels: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    return _stretched(voxels, voxels, 0.0, 1.0)


def _minmax_symmetric(voxels: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    return _stretched(voxels, voxels, -1.0, 1.0)


def _max(voxels: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    largest = float(np.abs(voxels).max())
    return voxels / np.float32(largest or 1.0)


def _brats(voxels: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    stretched = _stretched(voxels, voxels[foreground] if foreground.any() else voxels, *_BRATS)
    stretched[~foreground] = 0
    return stretched


def _none(voxels: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    return voxels


def _stretched(
    voxels: NDArray[np.float32], measured: NDArray[np.float32], low: float, high: float
) -> NDArray[np.float32]:
    least, most = float(measured.min()), float(measured.max())
    if most <= least:
        return np.zeros_like(voxels)
    return (voxels - np.float32(least)) * np.float32((high - low) / (most - least)) + np.float32(low)


_FORMS = {
    "zscore-foreground": _zscore_foreground,
    "zscore-volume": _zscore_volume,
    "minmax": _minmax,
    "minmax-symmetric": _minmax_symmetric,
    "max": _max,
    "brats": _brats,
    "none": _none,
}
