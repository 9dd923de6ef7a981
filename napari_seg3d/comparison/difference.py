"""Where two label maps disagree: as a map, slice by slice, and as connected places in order of size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_parts

from ..errors import GeometryError
from ..volumes.geometry import Geometry
from ..volumes.volume import Label, LabelTable
from .surface import common_box

MISSED = 1
ADDED = 2
WRONG_CLASS = 3
#: Names and colours of the values of a difference map (Okabe and Ito 2008: told apart by colour-blind readers too).
DIFFERENCE_TABLE = LabelTable(
    (
        Label(MISSED, "missed", "#0072b2"),
        Label(ADDED, "added", "#d55e00"),
        Label(WRONG_CLASS, "wrong class", "#f0e442"),
    )
)


@dataclass(frozen=True, eq=False)
class Disagreement:
    """A connected place where prediction and truth disagree in one way.

    Parameters
    ----------
    kind : int
        `MISSED`, `ADDED` or `WRONG_CLASS`.
    volume_ml : float
        Its volume.
    centre_voxel : (int, int, int)
        That of its voxels which lies nearest to its centre of mass, so a cursor put there stands in it.
    box : (slice, slice, slice)
        Smallest box that holds it.
    indices : tuple of three (voxels,) intp ndarrays
        Where its voxels are; ``array[indices]`` picks them.
    """

    kind: int
    volume_ml: float
    centre_voxel: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    indices: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]] = field(repr=False)

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return len(self.indices[0])

    @property
    def what(self) -> str:
        """The kind in words: "missed", "added" or "wrong class"."""
        return DIFFERENCE_TABLE[self.kind].name


def difference_map(predicted: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.uint8]:
    """Kind of disagreement in every voxel.

    Parameters
    ----------
    predicted, truth : (X, Y, Z) integer ndarray
        Label values on one grid; 0 is background.

    Returns
    -------
    (X, Y, Z) uint8 ndarray
        0 agree, 1 missed (background where the truth has a class), 2 added (a class where the truth has background),
        3 wrong class. Names and colours are in `DIFFERENCE_TABLE`.

    Raises
    ------
    GeometryError
        If the shapes differ.

    Examples
    --------
    >>> difference_map(np.array([[[0, 0, 1, 2]]]), np.array([[[0, 1, 0, 1]]])).ravel().tolist()
    [0, 1, 2, 3]
    """
    if predicted.shape != truth.shape:
        raise GeometryError(f"Expected a prediction of the truth's shape {truth.shape}, got {predicted.shape}.")
    difference = np.zeros(truth.shape, np.uint8)
    differs = predicted != truth
    difference[differs] = WRONG_CLASS
    difference[differs & (predicted == 0)] = MISSED
    difference[differs & (truth == 0)] = ADDED
    return difference


def slice_profile(difference: NDArray[np.uint8], axis: int) -> NDArray[np.int64]:
    """Disagreeing voxels of each kind in every slice across one axis.

    Parameters
    ----------
    difference : (X, Y, Z) uint8 ndarray
        From `difference_map`.
    axis : int
        The axis along which the slices are stacked.

    Returns
    -------
    (slices, 3) int64 ndarray
        Columns: missed, added, wrong class.
    """
    others = tuple(a for a in range(difference.ndim) if a != axis)
    kinds = (MISSED, ADDED, WRONG_CLASS)
    return np.stack([np.count_nonzero(difference == kind, axis=others) for kind in kinds], axis=1).astype(np.int64)


def disagreements(
    difference: NDArray[np.uint8], geometry: Geometry, *, smallest_ml: float = 0.0
) -> tuple[Disagreement, ...]:
    """Connected places of one kind of disagreement, the largest first.

    Voxels belong together when they share a face and disagree in the same way.

    Parameters
    ----------
    difference : (X, Y, Z) uint8 ndarray
        From `difference_map`.
    geometry : Geometry
        Its grid.
    smallest_ml : float
        Smaller places are left out.
    """
    box = common_box(difference != 0)
    if box is None:
        return ()
    parts: NDArray[np.int64] = connected_parts(  # type: ignore[no-untyped-call]  # scikit-image has no types here
        difference[box], background=0, connectivity=1
    )
    in_box = np.nonzero(parts)
    part = parts[in_box] - 1
    voxels = np.stack(in_box, axis=1) + [side.start for side in box]
    sizes = np.bincount(part)
    to_centre_mm = _distance_to_centre(voxels * np.asarray(geometry.spacing_mm), part, sizes)
    # Sorted by part and, within a part, by distance to its centre: the first voxel of each part is its centre voxel.
    order = np.lexsort((to_centre_mm, part))
    voxels = voxels[order]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    large_enough = np.flatnonzero(sizes * geometry.voxel_volume_ml >= smallest_ml)
    ranked = large_enough[np.argsort(-sizes[large_enough], kind="stable")]
    return tuple(_disagreement(voxels[starts[p] : starts[p + 1]], difference, geometry) for p in ranked)


def _distance_to_centre(
    points_mm: NDArray[np.float64], part: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    centres = np.stack([np.bincount(part, weights=points_mm[:, axis]) / sizes for axis in range(3)], axis=1)
    distances: NDArray[np.float64] = np.linalg.norm(points_mm - centres[part], axis=1)
    return distances


def _disagreement(voxels: NDArray[np.intp], difference: NDArray[np.uint8], geometry: Geometry) -> Disagreement:
    x, y, z = voxels.T
    low, high = voxels.min(axis=0).tolist(), (voxels.max(axis=0) + 1).tolist()
    centre = (int(x[0]), int(y[0]), int(z[0]))
    return Disagreement(
        kind=int(difference[centre]),
        volume_ml=len(voxels) * geometry.voxel_volume_ml,
        centre_voxel=centre,
        box=(slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])),
        indices=(x, y, z),
    )
