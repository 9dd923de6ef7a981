"""Slices drawn by hand, and the shape between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..comparison.surface import common_box
from ..errors import CorrectionError
from ..volumes.geometry import Geometry
from .change import Change
from .masks import ANYWHERE, BACKGROUND, Where, check_axis, check_label, settled

_Distance = NDArray[np.float64]


def annotated_slices(labels: NDArray[Any], values: Sequence[int], axis: int) -> tuple[int, ...]:
    """Slices across an axis of `labels` (X, Y, Z) that hold any of the values, ascending."""
    others = tuple(a for a in range(3) if a != axis)
    return tuple(np.flatnonzero(_any_of(labels, values).any(axis=others)).tolist())


def fill_between(
    labels: NDArray[Any],
    geometry: Geometry,
    values: Sequence[int],
    *,
    axis: int,
    slices: Sequence[int] | None = None,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that fills the slices between annotated ones, for one label or several at once.

    Labels that touch in the annotated slices touch in between, without gap or overlap. A label that one of two
    annotated slices lacks tapers off towards it. Nothing is painted outside the first and the last annotated slice, and
    no annotated slice changes.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    geometry : Geometry
        Its grid.
    values : sequence of int
        The labels to fill. Locked ones among them shape the others and are not painted.
    axis : int
        The axis along which the annotated slices follow each other.
    slices : sequence of int, optional
        The annotated slices; those that hold any of `values` if not given. One that holds none says "nothing here".
    where : Where
        Without `inside`, only background is painted over.

    Returns
    -------
    Change

    Raises
    ------
    CorrectionError
        If there are no labels, or a slice lies outside the image.
    LabelError, GeometryError
        If labels, values and grid do not fit together.

    Notes
    -----
    Signed distances within the slices, interpolated linearly (Raya and Udupa 1990, doi:10.1109/42.52980); where two
    slices do not overlap at all they are first moved along the line between their centres, as otherwise nothing would
    remain half-way. What is foreground is decided on all labels together, which label it is after that, by the largest
    interpolated distance: so touching labels leave no gap.
    """
    check_axis(axis)
    # A locked label shapes what lies beside it, and gets no voxel.
    check_label(labels, replace(where, locked=()), *values, geometry=geometry)
    if not len(values):
        raise CorrectionError("Expected at least one label to fill between slices; choose one.")
    chosen = annotated_slices(labels, values, axis) if slices is None else tuple(sorted({int(s) for s in slices}))
    if chosen and not 0 <= chosen[0] <= chosen[-1] < labels.shape[axis]:
        raise CorrectionError(f"Expected slices from 0 to {labels.shape[axis] - 1}, got {chosen[0]} to {chosen[-1]}.")
    what = "Fill between slices"
    stack = np.moveaxis(labels, axis, 0)
    around = common_box(_any_of(stack[list(chosen)], values)) if chosen else None
    if around is None or len(chosen) < 2:
        return Change.nothing(what, labels.dtype)
    spacing_mm = np.delete(geometry.spacing_mm, axis)
    rows, columns = around[1:]
    after = stack[chosen[0] : chosen[-1] + 1, rows, columns].copy()
    drawn = [_Drawn.of(stack[number, rows, columns], values, spacing_mm) for number in chosen]
    for (low, below), (high, above) in pairwise(zip(chosen, drawn, strict=True)):
        between = _between(below, above, high - low - 1)
        part = after[low + 1 - chosen[0] : high - chosen[0]]
        part[between != BACKGROUND] = between[between != BACKGROUND]
    sides = [rows, columns]
    sides.insert(axis, slice(chosen[0], chosen[-1] + 1))
    box = (sides[0], sides[1], sides[2])
    return settled(labels, box, np.moveaxis(after, 0, axis), where, what, only_over=(BACKGROUND,))


@dataclass(frozen=True, eq=False)
class _Drawn:
    """One annotated slice (U, V): signed distances in mm of all its labels together, and of each that it holds."""

    mask: NDArray[np.bool_]
    together: _Distance | None
    each: Mapping[int, _Distance]

    @classmethod
    def of(cls, labels: NDArray[Any], values: Sequence[int], spacing_mm: NDArray[np.float64]) -> _Drawn:
        mask = _any_of(labels, values)
        if not mask.any():
            return cls(mask, None, {})
        together = _signed(mask, spacing_mm)
        if len(values) == 1:
            return cls(mask, together, {values[0]: together})
        masks = {value: labels == value for value in values}
        return cls(mask, together, {value: _signed(m, spacing_mm) for value, m in masks.items() if m.any()})


def _between(low: _Drawn, high: _Drawn, count: int) -> NDArray[np.int64]:
    """Return `count` slices (count, U, V) between two, with their labels or 0."""
    result = np.zeros((count, *low.mask.shape), np.int64)
    values = sorted({*low.each, *high.each})
    if not values:
        return result
    shift = _centre(high.mask) - _centre(low.mask) if _apart(low.mask, high.mask) else np.zeros(2)
    together = _ends(low.together, high.together)
    each = [_ends(low.each.get(value), high.each.get(value)) for value in values]
    for number in range(count):
        part = (number + 1) / (count + 1)
        inside = _mixed(together, part, shift) > 0
        nearest = np.argmax([_mixed(ends, part, shift) for ends in each], axis=0) if len(values) > 1 else 0
        result[number] = np.where(inside, np.asarray(values)[nearest], BACKGROUND)
    return result


def _any_of(labels: NDArray[Any], values: Sequence[int]) -> NDArray[np.bool_]:
    """Where `labels` have any of the values; quicker than `numpy.isin` for a few."""
    found: NDArray[np.bool_] = labels == values[0]
    for value in values[1:]:
        found |= labels == value
    return found


def _ends(low: _Distance | None, high: _Distance | None) -> tuple[_Distance, _Distance]:
    """Both distances; one that is missing is the other after it has shrunk to nothing."""
    if low is None:
        low = high - high.max() if high is not None else np.zeros(0)
    if high is None:
        high = low - low.max()
    return low, high


def _signed(mask: NDArray[np.bool_], spacing_mm: NDArray[np.float64]) -> _Distance:
    """Distance in mm to the edge of a mask (U, V) with voxels, above 0 inside; half a voxel off, as edges lie there."""
    # One row of background around it: a mask that fills the box has an edge there.
    padded = np.pad(mask, 1)
    half = float(spacing_mm.min()) / 2
    inside = ndimage.distance_transform_edt(padded, sampling=spacing_mm) - half
    outside = ndimage.distance_transform_edt(~padded, sampling=spacing_mm) - half
    distance: _Distance = np.where(padded, inside, -outside)[1:-1, 1:-1]
    return distance


def _apart(low: NDArray[np.bool_], high: NDArray[np.bool_]) -> bool:
    return bool(low.any() and high.any() and not (low & high).any())


def _centre(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.array([places.mean() for places in np.nonzero(mask)])


def _mixed(ends: tuple[_Distance, _Distance], part: float, shift: NDArray[np.float64]) -> _Distance:
    """Return the distances at a part (0 to 1) of the way; the ends are moved along `shift` (2,) in voxels first."""
    low, high = ends
    if shift.any():
        low = ndimage.shift(low, part * shift, order=1, mode="nearest")
        high = ndimage.shift(high, -(1 - part) * shift, order=1, mode="nearest")
    mixed: _Distance = (1 - part) * low + part * high
    return mixed
