"""What may be painted, and the one door through which every tool's result passes.

A tool makes new labels for a box of the label map; `settled` compares them with the old ones, drops what may not change
and returns the rest. So locked labels and the mask "paint only where" hold for all tools alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CorrectionError, GeometryError, LabelError
from ..volumes.geometry import Geometry
from .change import Box, Change, Indices

BACKGROUND = 0


@dataclass(frozen=True, eq=False)
class Where:
    """Where a tool may paint. Every condition must hold.

    Parameters
    ----------
    inside : tuple of int, optional
        Only voxels that now have one of these labels. Without it each tool keeps to its own rule: the brushes paint
        over everything, the tools that fill or grow take background alone.
    mask : (X, Y, Z) bool ndarray, optional
        Only here: for example inside a label of another layer.
    intensities : (X, Y, Z) ndarray, optional
        Only voxels whose intensity lies from `lowest` to `highest`; what is not a number never does.
    lowest, highest : float
        In the units of `intensities`; both belong to the range.
    locked : tuple of int
        Labels that neither lose nor gain a voxel. Background (0) can be locked, too.

    Raises
    ------
    CorrectionError
        If the range is empty or given without intensities.
    """

    inside: tuple[int, ...] | None = None
    mask: NDArray[np.bool_] | None = field(default=None, repr=False)
    intensities: NDArray[Any] | None = field(default=None, repr=False)
    lowest: float = -inf
    highest: float = inf
    locked: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.lowest <= self.highest:
            raise CorrectionError(f"Expected a range from low to high, got {self.lowest:g} to {self.highest:g}.")
        if self.intensities is None and (self.lowest, self.highest) != (-inf, inf):
            raise CorrectionError(
                "A range of intensities was given without an image; choose the image it is meant for."
            )

    def allows(self, indices: Indices, old: NDArray[Any], new: NDArray[Any]) -> NDArray[np.bool_]:
        """Which voxels at `indices` may change from the `old` to the `new` labels: (voxels,) bool ndarray."""
        allowed = np.ones(len(old), np.bool_)
        if self.locked:
            allowed &= ~(np.isin(old, self.locked) | np.isin(new, self.locked))
        if self.inside is not None:
            allowed &= np.isin(old, self.inside)
        if self.mask is not None:
            allowed &= self.mask[indices].astype(np.bool_)
        if self.intensities is not None:
            intensity = self.intensities[indices]
            allowed &= (intensity >= self.lowest) & (intensity <= self.highest)
        return allowed


#: No condition at all.
ANYWHERE = Where()


def settled(
    labels: NDArray[Any],
    box: Box,
    after: NDArray[Any],
    where: Where,
    what: str,
    *,
    only_over: Iterable[int] | None = None,
) -> Change:
    """Return what really changes, and may.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
        The label map before.
    box : Box
        The part that a tool has worked on.
    after : integer ndarray of the box's shape
        The labels it wants there.
    where : Where
    what : str
        What was done.
    only_over : iterable of int, optional
        The labels that the tool paints over where `where.inside` does not say it.

    Returns
    -------
    Change
        Of no voxel if nothing changes.
    """
    before = labels[box]
    in_box = np.nonzero(before != after)
    old, new = before[in_box], after[in_box].astype(labels.dtype)
    x, y, z = (places + side.start for places, side in zip(in_box, box, strict=True))
    keep = where.allows((x, y, z), old, new)
    if only_over is not None and where.inside is None:
        keep &= np.isin(old, list(only_over))
    return Change((x[keep], y[keep], z[keep]), new[keep], what)


def check(labels: NDArray[Any], where: Where, *values: int, geometry: Geometry | None = None) -> None:
    """Refuse a label map, a mask or values that do not fit together.

    Raises
    ------
    LabelError
        If `labels` are not integers, a value does not fit their type, or a value to paint is locked.
    GeometryError
        If the shapes differ.
    """
    if labels.ndim != 3:
        raise GeometryError(f"Expected a label map of three axes, got an array of shape {labels.shape}.")
    if labels.dtype.kind not in "iu":
        raise LabelError(f"Expected integers in a label map, got {labels.dtype}.")
    shapes = {
        "a grid": geometry.shape if geometry is not None else None,
        "a mask": where.mask.shape if where.mask is not None else None,
        "an image": where.intensities.shape if where.intensities is not None else None,
    }
    for name, shape in shapes.items():
        if shape is not None and shape != labels.shape:
            raise GeometryError(f"Expected {name} of the label map's shape {labels.shape}, got {shape}.")
    limits = np.iinfo(labels.dtype)
    for value in values:
        if int(value) != value or not 0 <= value <= limits.max:
            raise LabelError(
                f"Label {value} does not fit a label map of type {labels.dtype}, which holds 0 to {limits.max}."
            )
        if value in where.locked:
            raise LabelError(f"Label {value} is locked; unlock it to change it, or choose another label.")


def check_label(labels: NDArray[Any], where: Where, *values: int, geometry: Geometry | None = None) -> None:
    """Like `check`, and refuse background where a label is meant.

    Raises
    ------
    LabelError
        As `check`, or if a value is 0.
    """
    check(labels, where, *values, geometry=geometry)
    if BACKGROUND in values:
        raise LabelError("Expected a label, got background (0); choose the label to work on.")


def check_length(name: str, length_mm: float, *, zero: bool = False) -> None:
    """Refuse a length that is not a finite number above 0 (or 0, if `zero`).

    Raises
    ------
    CorrectionError
        Naming the length.
    """
    if not np.isfinite(length_mm) or length_mm < 0 or (length_mm == 0 and not zero):
        raise CorrectionError(f"Expected a {name} above 0 mm, got {length_mm:g} mm.")


def check_axis(axis: int) -> None:
    """Refuse an axis that is not 0, 1 or 2.

    Raises
    ------
    CorrectionError
    """
    if axis not in (0, 1, 2):
        raise CorrectionError(f"Expected an axis 0, 1 or 2 (X, Y or Z), got {axis}.")


def voxel_of(labels: NDArray[Any], place: Iterable[float]) -> tuple[int, int, int]:
    """Return the voxel of `labels` (X, Y, Z) at a place in voxels.

    Raises
    ------
    CorrectionError
        If it lies outside the image or is not three finite numbers.
    """
    point = np.asarray(tuple(place), np.float64)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise CorrectionError(f"Expected a place of three numbers along X, Y, Z, got {point.tolist()}.")
    x, y, z = (int(c) for c in np.floor(point + 0.5))
    if not all(0 <= c < n for c, n in zip((x, y, z), labels.shape, strict=True)):
        raise CorrectionError(f"The place {(x, y, z)} lies outside the image of {labels.shape} voxels.")
    return x, y, z


def wider(box: Box, voxels: Iterable[int], shape: tuple[int, ...]) -> Box:
    """Return the box with a margin of so many voxels along X, Y, Z, cut at the image's border."""
    x, y, z = (
        slice(max(side.start - int(more), 0), min(side.stop + int(more), size))
        for side, more, size in zip(box, voxels, shape, strict=True)
    )
    return x, y, z


def voxels_within(length_mm: float, spacing_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    """How many voxels along X, Y, Z have their centre within a length from the middle of another."""
    # Sums of float spacings are not exact: a length of three spacings must reach three voxels.
    x, y, z = (int(np.floor(length_mm / step * (1 + 1e-9))) for step in spacing_mm)
    return x, y, z


def ball(radius_mm: float, spacing_mm: tuple[float, float, float]) -> NDArray[np.intp]:
    """Offsets (voxels, 3) of all voxels whose centre lies within a radius; an ellipsoid on an anisotropic grid."""
    reach = voxels_within(radius_mm, spacing_mm)
    offsets = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1).reshape(-1, 3)
    distance = np.linalg.norm(offsets * np.asarray(spacing_mm), axis=1)
    inside: NDArray[np.intp] = offsets[distance <= radius_mm * (1 + 1e-9)]
    return inside
