"""Labels grown from scribbles along the edges of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from ..comparison.surface import common_box
from ..errors import CorrectionError, GeometryError
from ..volumes.geometry import Geometry
from ..volumes.volume import distinct_values
from .change import Box, Change
from .masks import ANYWHERE, BACKGROUND, Where, check, settled, voxels_within, wider

#: Noise finer than this is smoothed away before edges are sought.
SMOOTHING_MM = 0.7
#: How far around the seeds to grow where no box is given.
MARGIN_MM = 10.0


def grow_from_seeds(
    labels: NDArray[Any],
    geometry: Geometry,
    seeds: NDArray[Any],
    images: Sequence[NDArray[Any]],
    *,
    background: int | None = None,
    box: Box | None = None,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that grows scribbles of several labels until they meet at edges of the images.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    geometry : Geometry
        Its grid.
    seeds : (X, Y, Z) integer ndarray
        0 where nothing is drawn; otherwise the label that is grown from there. Locked ones only stop the others.
    images : sequence of (X, Y, Z) ndarray
        The modalities whose edges count, on the labels' grid, each scaled by its own range of intensities.
    background : int, optional
        The value in `seeds` that stands for background.
    box : (slice, slice, slice), optional
        Grow within this box only; without it, within that of the seeds and `MARGIN_MM` around it.
    where : Where
        Without `inside`, background and the labels that have seeds are painted over.

    Returns
    -------
    Change

    Raises
    ------
    CorrectionError
        If there is no image, or there are seeds of fewer than two kinds in the box: one has nothing to stop it.
    LabelError, GeometryError
        If labels, seeds, images and grid do not fit together.

    Notes
    -----
    Watershed (Beucher and Lantuejoul 1979, as in scikit-image) of the length of the gradient, with the seeds as
    markers. Measured in boxes of 128³ voxels of BraTS 2013, FLAIR and T1c, four kinds of scribbles in five slices, in
    seconds of one core and Dice of the whole tumour: watershed 0.8 s, 0.89 to 0.90 (three cases); geodesic paths
    through the same gradient (`skimage.graph.MCP_Geometric`) 13 s, 0.76 and 0.57 (two cases); random walker
    (`skimage.segmentation.random_walker`, conjugate gradients) 53 s, 0.10, as it had not converged (one case).
    """
    numbers = [int(n) for n in distinct_values(seeds) if n != BACKGROUND]
    painted = [n for n in numbers if n != background]
    # A locked label keeps the others out of its place, and gets no voxel.
    check(labels, replace(where, locked=()), *painted, geometry=geometry)
    if not images:
        raise CorrectionError("Expected at least one image whose edges stop the growth; choose a modality.")
    for image in (seeds, *images):
        if image.shape != labels.shape:
            raise GeometryError(f"Expected seeds and images of the labels' shape {labels.shape}, got {image.shape}.")
    drawn = common_box(seeds != BACKGROUND)
    if box is not None:
        box = _inside(box, labels.shape)
    elif drawn is not None:
        box = wider(drawn, voxels_within(MARGIN_MM, geometry.spacing_mm), labels.shape)
    if box is None or np.count_nonzero(np.isin(numbers, distinct_values(seeds[box]))) < 2:
        raise CorrectionError(
            "Expected seeds of at least two kinds in the box, for example a label and background; one alone has "
            "nothing that stops it. Scribble a second one."
        )
    found = watershed(gradient_length([image[box] for image in images], geometry.spacing_mm), _markers(seeds[box]))  # type: ignore[no-untyped-call]  # scikit-image has no types here
    after = found if background is None else np.where(found == background, BACKGROUND, found)
    return settled(labels, box, after, where, "Grow from seeds", only_over=(BACKGROUND, *painted))


def gradient_length(images: Sequence[NDArray[Any]], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """How steep images (X, Y, Z) are: the length of their gradients per mm, all images together.

    Each is smoothed a little and scaled so that the range from its 1st to its 99th percentile is 1; beyond it is flat.
    What is not a finite number counts as the lowest intensity.
    """
    squared = np.zeros(images[0].shape, np.float32)
    for image in images:
        field = ndimage.gaussian_filter(_scaled(image), [SMOOTHING_MM / step for step in spacing_mm], truncate=2.5)
        for axis, step in enumerate(spacing_mm):
            if field.shape[axis] > 1:
                squared += np.gradient(field, np.float32(step), axis=axis) ** 2
    return np.sqrt(squared)


def _scaled(image: NDArray[Any]) -> NDArray[np.float32]:
    field = np.array(image, np.float32, order="C")
    finite = np.isfinite(field)
    # Every third voxel is enough for percentiles.
    sample = field[::3, ::3, ::3][finite[::3, ::3, ::3]]
    if not len(sample):
        return np.zeros(field.shape, np.float32)
    low, high = np.percentile(sample, (1, 99))
    field[~finite] = low
    scaled: NDArray[np.float32] = np.clip((field - low) / np.float32(high - low if high > low else 1), 0, 1)
    return scaled


def _markers(seeds: NDArray[Any]) -> NDArray[np.int32]:
    return np.ascontiguousarray(seeds, np.int32)


def _inside(box: Box, shape: tuple[int, ...]) -> Box:
    """Return the part of a box that lies in the image of `shape`."""
    x, y, z = (slice(*side.indices(size)[:2]) for side, size in zip(box, shape, strict=True))
    if min(side.stop - side.start for side in (x, y, z)) < 1:
        raise CorrectionError(f"The box {box} holds no voxel of the image of {shape} voxels.")
    return x, y, z
