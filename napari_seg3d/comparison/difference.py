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
    places = places_in(difference[box], box, geometry)
    large_enough = [place for place in places if place.volume_ml >= smallest_ml]
    return tuple(sorted(large_enough, key=lambda place: -place.voxels))


def places_in(
    part_of_difference: NDArray[Any],
    box: tuple[slice, slice, slice],
    geometry: Geometry,
    *,
    connectivity: int = 1,
) -> list[Disagreement]:
    """Return the connected places in a part of a difference map, in the order of their first voxels.

    Parameters
    ----------
    part_of_difference : (X, Y, Z) integer ndarray
        The difference map inside `box`, or less of it: what is 0 does not count. Other values than the kinds of
        disagreement are allowed; places are of one value.
    box : (slice, slice, slice)
        Where it lies in the whole.
    geometry : Geometry
        The grid of the whole.
    connectivity : int
        1: voxels belong together that share a face; 3: a corner is enough.
    """
    parts: NDArray[np.int64] = connected_parts(  # type: ignore[no-untyped-call]  # scikit-image has no types here
        part_of_difference, background=0, connectivity=connectivity
    )
    inside = np.nonzero(parts)
    if not len(inside[0]):
        return []
    part = parts[inside] - 1
    kinds = part_of_difference[inside]
    # scikit-image does not promise an order of its numbers: they are made to follow the first voxels. Assigned
    # backwards, the first voxel of each part is the one that stays.
    first = np.zeros(part.max() + 1, np.intp)
    first[part[::-1]] = np.arange(len(part))[::-1]
    if len(first) > 1:
        part = np.argsort(np.argsort(first))[part]
        order = np.argsort(part, kind="stable")
        inside, part, kinds = tuple(places[order] for places in inside), part[order], kinds[order]
    sizes = np.bincount(part)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    centres = _nearest_to_centre(inside, starts, sizes, geometry.spacing_mm)
    lows = [np.minimum.reduceat(places, starts) for places in inside]
    highs = [np.maximum.reduceat(places, starts) + 1 for places in inside]
    offset = [side.start for side in box]
    x, y, z = (places + start for places, start in zip(inside, offset, strict=True))
    bounds = np.stack([*lows, *highs], axis=1) + offset * 2
    voxel_ml = geometry.voxel_volume_ml
    return [
        Disagreement(
            kind=kind,
            volume_ml=(end - start) * voxel_ml,
            centre_voxel=(int(x[centre]), int(y[centre]), int(z[centre])),
            box=(slice(x0, x1), slice(y0, y1), slice(z0, z1)),
            indices=(x[start:end], y[start:end], z[start:end]),
        )
        for start, end, kind, centre, (x0, y0, z0, x1, y1, z1) in zip(
            starts.tolist(), ends.tolist(), kinds[starts].tolist(), centres.tolist(), bounds.tolist(), strict=True
        )
    ]


def _nearest_to_centre(
    voxels: tuple[NDArray[np.intp], ...],
    starts: NDArray[np.intp],
    sizes: NDArray[np.intp],
    spacing_mm: tuple[float, float, float],
) -> NDArray[np.intp]:
    """Number of the voxel nearest to the centre of mass of its part, for each part; the first of several."""
    squared_mm = np.zeros(len(voxels[0]))
    for places, spacing in zip(voxels, spacing_mm, strict=True):
        from_centre = places - np.repeat(np.add.reduceat(places, starts) / sizes, sizes)
        squared_mm += (from_centre * spacing) ** 2
    # Rounding errors must not choose between voxels that are equally near.
    squared_mm = squared_mm.round(6)
    nearest = np.flatnonzero(squared_mm == np.repeat(np.minimum.reduceat(squared_mm, starts), sizes))
    return nearest[np.searchsorted(nearest, starts)]
