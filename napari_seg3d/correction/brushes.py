"""Painting by hand: ball, disc, threshold brush, polygon and lasso, in millimetres on any grid."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.draw import line_nd
from skimage.draw import polygon as filled_polygon

from ..errors import CorrectionError
from ..volumes.geometry import Geometry
from .change import Box, Change
from .masks import ANYWHERE, BACKGROUND, Where, check, check_axis, check_length, settled


def brush(
    labels: NDArray[Any],
    geometry: Geometry,
    value: int,
    stroke: ArrayLike,
    *,
    radius_mm: float,
    axis: int | None = None,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change of one stroke with a ball, or with a disc in one slice.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    geometry : Geometry
        Its grid.
    value : int
        The label to paint; 0 erases (with ``Where(inside=(label,))`` only that label).
    stroke : (points, 3) array_like
        Where the brush went, in voxels (need not be whole, may lie outside the image). Between two points it went
        straight, whatever their distance.
    radius_mm : float
        Voxels are painted whose centre lies this near to the stroke, and those the stroke goes through.
    axis : int, optional
        The axis across the slice: a disc in the slice of the stroke. Without it a ball.
    where : Where

    Returns
    -------
    Change

    Raises
    ------
    CorrectionError
        If the radius is not above 0 or the stroke has no points, or, with `axis`, does not stay in one slice.
    LabelError, GeometryError
        If labels, value and grid do not fit together.

    Examples
    --------
    >>> grid = Geometry.with_spacing((9, 9, 5), (1, 1, 3))
    >>> change = brush(np.zeros(grid.shape, np.uint8), grid, 1, [(4, 4, 2)], radius_mm=3)
    >>> [side.stop - side.start for side in change.box]
    [7, 7, 3]
    """
    check(labels, where, value, geometry=geometry)
    box, mask = _swept(labels.shape, geometry, stroke, radius_mm, axis)
    what = "Erase" if value == BACKGROUND else "Paint"
    return settled(labels, box, np.where(mask, labels.dtype.type(value), labels[box]), where, what)


def threshold_brush(
    labels: NDArray[Any],
    geometry: Geometry,
    value: int,
    stroke: ArrayLike,
    intensities: NDArray[Any],
    *,
    lowest: float,
    highest: float,
    radius_mm: float,
    axis: int | None = None,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change of a stroke that paints only voxels with an intensity from `lowest` to `highest`.

    Parameters
    ----------
    intensities : (X, Y, Z) ndarray
        The image on the label map's grid; what is not a number is never painted.
    lowest, highest : float
        In its units; both belong to the range.
    labels, geometry, value, stroke, radius_mm, axis, where
        As for `brush`; a range of `where` must hold, too.

    Returns
    -------
    Change

    Raises
    ------
    CorrectionError, LabelError, GeometryError
        As `brush`, or if the range is empty.
    """
    within = Where(intensities=intensities, lowest=lowest, highest=highest)
    check(labels, within)
    change = brush(labels, geometry, value, stroke, radius_mm=radius_mm, axis=axis, where=where)
    keep = within.allows(change.indices, labels[change.indices], change.values)
    x, y, z = (places[keep] for places in change.indices)
    return replace(change, indices=(x, y, z), values=change.values[keep], what="Paint by intensity")


def polygon(
    labels: NDArray[Any],
    value: int,
    corners: ArrayLike,
    *,
    axis: int,
    first: int,
    last: int | None = None,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change of filling a polygon or lasso in one slice, or straight through several.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    value : int
        The label to paint; 0 cuts out.
    corners : (corners, 3) or (corners, 2) array_like
        In voxels, along all axes or along those within the slice; the last is joined with the first.
    axis : int
        The axis across the slice.
    first, last : int
        The slice, or the first and the last one.
    where : Where

    Returns
    -------
    Change
        Of the voxels whose centre lies inside; where lines cross, inside is where their number is odd.

    Raises
    ------
    CorrectionError
        If there are fewer than three corners or a slice lies outside the image.
    LabelError, GeometryError
        If labels and value do not fit together.

    Notes
    -----
    Even-odd filling of scikit-image (`skimage.draw.polygon`).
    """
    check(labels, where, value)
    check_axis(axis)
    points = np.asarray(corners, np.float64)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or len(points) < 3 or not np.isfinite(points).all():
        raise CorrectionError(f"Expected at least three corners in voxels, got an array of shape {points.shape}.")
    low, high = sorted((first, first if last is None else last))
    if low < 0 or high >= labels.shape[axis]:
        raise CorrectionError(f"Expected slices from 0 to {labels.shape[axis] - 1}, got {low} to {high}.")
    if points.shape[1] == 3:
        points = np.delete(points, axis, axis=1)
    within = [a for a in range(3) if a != axis]
    plane = tuple(labels.shape[a] for a in within)
    rows, columns = filled_polygon(points[:, 0], points[:, 1], plane)  # type: ignore[no-untyped-call]  # no types there
    what = "Cut out a polygon" if value == BACKGROUND else "Fill a polygon"
    if not len(rows):
        return Change.nothing(what, labels.dtype)
    sides = {axis: slice(low, high + 1)}
    sides |= {a: slice(int(c.min()), int(c.max()) + 1) for a, c in zip(within, (rows, columns), strict=True)}
    box = (sides[0], sides[1], sides[2])
    after = labels[box].copy()
    np.moveaxis(after, axis, 0)[:, rows - rows.min(), columns - columns.min()] = value
    return settled(labels, box, after, where, what)


def _swept(
    shape: tuple[int, ...], geometry: Geometry, stroke: ArrayLike, radius_mm: float, axis: int | None
) -> tuple[Box, NDArray[np.bool_]]:
    """Return the box that a stroke reaches in an image of `shape`, and which of its voxels."""
    check_length("radius", radius_mm)
    points = np.atleast_2d(np.asarray(stroke, np.float64))
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or not np.isfinite(points).all():
        raise CorrectionError(f"Expected a stroke of points along X, Y, Z, got an array of shape {points.shape}.")
    spacing = np.array(geometry.spacing_mm)
    if axis is not None:
        check_axis(axis)
        slices = np.unique(np.floor(points[:, axis] + 0.5))
        if len(slices) > 1:
            raise CorrectionError(f"Expected a stroke in one slice, got one through slices {slices.astype(int)}.")
        points = points.copy()
        points[:, axis] = slices[0]
    # A radius beyond the float rounding of a whole number of spacings reaches the voxel there.
    radius = radius_mm * (1 + 1e-9)
    box = _reach(points, radius / spacing, shape, axis)
    mask = np.zeros([side.stop - side.start for side in box], np.bool_)
    for start, end in pairwise(points) if len(points) > 1 else [(points[0], points[0])]:
        part = _reach(np.stack([start, end]), radius / spacing, shape, axis)
        if min(side.stop - side.start for side in part) > 0:
            inside = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True))
            mask[inside] |= _near_segment(part, start, end, spacing) <= radius**2
        line = line_nd(start, end, endpoint=True, integer=False)  # type: ignore[no-untyped-call]  # no types there
        through = np.floor(np.stack(line, axis=1) + 0.5).astype(np.intp)
        through = through[np.all((through >= 0) & (through < shape), axis=1)]
        mask[tuple((through - [side.start for side in box]).T)] = True
    return box, mask


def _reach(points: NDArray[np.float64], reach: NDArray[np.float64], shape: tuple[int, ...], axis: int | None) -> Box:
    """Return the part of the image of `shape` within `reach` (3,) voxels of `points` (points, 3); may be empty."""
    half = np.maximum(reach, 0.5)
    if axis is not None:
        half[axis] = 0
    low = np.clip(np.floor(points.min(axis=0) - half + 0.5), 0, shape).astype(int)
    high = np.clip(np.floor(points.max(axis=0) + half + 0.5) + 1, low, shape).astype(int)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return x, y, z


def _near_segment(
    box: Box, start: NDArray[np.float64], end: NDArray[np.float64], spacing: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Squared distance in mm of every voxel of a box to the straight line from `start` to `end` (3,) in voxels."""
    place = np.ogrid[box]
    from_start = [(p - s) * step for p, s, step in zip(place, start, spacing, strict=True)]
    along = (end - start) * spacing
    length2 = float(along @ along)
    part: Any = 0.0
    if length2 > 0:
        part = np.clip(sum(d * a for d, a in zip(from_start, along, strict=True)) / length2, 0, 1)
    squared: NDArray[np.float64] = sum((d - part * a) ** 2 for d, a in zip(from_start, along, strict=True))
    return squared
