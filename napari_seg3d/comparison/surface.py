"""How far two surfaces lie apart, in millimetres.

Tools disagree by more than 100 mm on the same masks because they mean different things (Podobnik and Vrtovec,
arXiv 2410.02630). `DEFINITIONS` says what is measured here and is printed beside the numbers; MONAI means the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ..errors import GeometryError

#: How the distances are defined; stated wherever they are shown.
DEFINITIONS = (
    "Surfaces are the centres of voxels with a face neighbour outside the structure (beyond the image is outside); "
    "distances are in mm with the case's spacing. HD95 is the larger of the two directed 95th percentiles. Mean "
    "surface distance and surface Dice go over the points of both surfaces together. Without a surface in truth or "
    "prediction there is no distance: such cases are counted, not averaged."
)


@dataclass(frozen=True)
class SurfaceScores:
    """Distances between two surfaces in mm; all NaN where one of the two is empty.

    Parameters
    ----------
    hd_mm : float
        Hausdorff distance: the largest distance from a point of either surface to the other surface.
    hd95_mm : float
        The larger of the two directed 95th percentiles.
    mean_mm : float
        Mean over the points of both surfaces together (average symmetric surface distance).
    surface_dice : float
        Part of the points of both surfaces that lie within `tolerance_mm` of the other surface.
    """

    hd_mm: float
    hd95_mm: float
    mean_mm: float
    surface_dice: float
    tolerance_mm: float


def surface_distances(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    *,
    tolerance_mm: float = 1.0,
) -> SurfaceScores:
    """Distances between the surfaces of two masks.

    Parameters
    ----------
    predicted, truth : (X, Y, Z) bool ndarray
        On one grid with perpendicular axes.
    spacing_mm : (float, float, float)
        Distance of voxel centres along X, Y, Z.
    tolerance_mm : float
        For the surface Dice.

    Returns
    -------
    SurfaceScores
        All NaN if a mask is empty.

    Raises
    ------
    GeometryError
        If the shapes differ.

    Notes
    -----
    `DEFINITIONS` says what is measured. Distances are exact: the nearest point is looked up in a k-d tree
    (Maneewongvatana and Mount 1999, arXiv cs/9901013) of the other surface.

    Examples
    --------
    >>> mask = np.zeros((9, 9, 9), bool)
    >>> mask[2:5, 3:6, 3:6] = True
    >>> surface_distances(np.roll(mask, 2, axis=0), mask, (3.0, 1.0, 1.0)).hd_mm
    6.0
    """
    if predicted.shape != truth.shape:
        raise GeometryError(f"Expected a prediction of the truth's shape {truth.shape}, got {predicted.shape}.")
    box = common_box(predicted | truth)
    if box is None or not (predicted[box].any() and truth[box].any()):
        return SurfaceScores(nan, nan, nan, nan, tolerance_mm)
    ours, theirs = boundary(predicted[box]), boundary(truth[box])
    forth, back = _distances(ours, theirs, spacing_mm), _distances(theirs, ours, spacing_mm)
    both = np.concatenate([forth, back])
    return SurfaceScores(
        hd_mm=float(both.max()),
        hd95_mm=float(max(np.percentile(forth, 95), np.percentile(back, 95))),
        mean_mm=float(both.mean()),
        # A distance equal to the tolerance must pass although sums of float spacings are not exact.
        surface_dice=float(np.mean(both <= tolerance_mm * (1 + 1e-9))),
        tolerance_mm=tolerance_mm,
    )


def boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of a mask (X, Y, Z) with a face neighbour outside it; beyond the array is outside."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        along, inner_along = np.moveaxis(mask, axis, 0), np.moveaxis(inner, axis, 0)
        inner_along[1:] &= along[:-1]
        inner_along[:-1] &= along[1:]
        inner_along[[0, -1]] = False
    return mask & ~inner


def common_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """Smallest box around everything that is true in `mask` (X, Y, Z); None if there is nothing."""
    box: list[slice] = []
    for others in ((1, 2), (0, 2), (0, 1)):
        inside = np.flatnonzero(np.any(mask, axis=others))
        if not len(inside):
            return None
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return box[0], box[1], box[2]


def _distances(
    start: NDArray[np.bool_], target: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Distance in mm from each point of `start` (X, Y, Z) to the nearest point of `target`: (points,)."""
    distances = np.zeros(np.count_nonzero(start))
    apart = ~target[start]
    # A tree of the surface's points is faster than a distance transform of the box (2 to 10 times on tumours): most
    # points lie on both surfaces or near the other one.
    tree = cKDTree(np.argwhere(target) * np.asarray(spacing_mm), balanced_tree=False, compact_nodes=False)
    distances[apart] = tree.query(np.argwhere(start & ~target) * np.asarray(spacing_mm))[0]
    return distances
