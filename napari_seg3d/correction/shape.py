"""The outline of labels: smooth, grow, shrink."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..comparison.surface import boundary, common_box
from ..errors import CorrectionError
from ..volumes.geometry import Geometry
from ..volumes.volume import distinct_values
from .change import Change
from .masks import (
    ANYWHERE,
    BACKGROUND,
    Where,
    ball,
    check,
    check_label,
    check_length,
    settled,
    voxels_within,
    wider,
)

#: From how many writes per voxel of the box on the distance transform is quicker than a ball at each surface voxel.
_WRITES_PER_VOXEL = 6


def smooth(
    labels: NDArray[Any],
    geometry: Geometry,
    value: int | None = None,
    *,
    kernel_mm: float,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that smooths all labels together, or one.

    Every voxel takes the label that is most frequent around it, background being one of them; so labels that touch stay
    in touch, without gap or overlap.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    geometry : Geometry
        Its grid.
    value : int, optional
        Smooth this label alone: only voxels that it wins or loses change. What it loses becomes the label that is most
        frequent among the others; it wins background alone unless ``where.inside`` names more.
    kernel_mm : float
        Diameter of the ball around a voxel whose labels are counted; an ellipsoid on an anisotropic grid. At the border
        of the image the outermost voxels are repeated.
    where : Where

    Returns
    -------
    Change
        In a tie a voxel keeps its label if it is among the first; otherwise the lowest value wins.

    Raises
    ------
    CorrectionError
        If the ball holds a single voxel.
    LabelError, GeometryError
        If labels, value and grid do not fit together.

    Notes
    -----
    For one label the median filter of its mask; for several the mode filter, its counterpart for classes without an
    order. Votes are counted only where the neighbourhood holds more than one label.
    """
    if value is None:
        check(labels, where, geometry=geometry)
    else:
        check_label(labels, where, value, geometry=geometry)
    check_length("kernel", kernel_mm)
    offsets = ball(kernel_mm / 2, geometry.spacing_mm)
    if len(offsets) == 1:
        least_mm = 2 * min(geometry.spacing_mm)
        raise CorrectionError(f"Expected a kernel of {least_mm:g} mm or more, which reaches a second voxel.")
    what = "Smooth all labels" if value is None else "Smooth"
    inner = common_box(labels != BACKGROUND if value is None else labels == value)
    if inner is None:
        return Change.nothing(what, labels.dtype)
    margin = np.abs(offsets).max(axis=0)
    box = wider(inner, margin, labels.shape)
    padded = np.pad(labels[box], [(m, m) for m in margin], mode="edge")
    mixed = _mixed(padded if value is None else padded == value, margin)
    after = labels[box].copy(order="C")
    voxels = np.nonzero(mixed)
    after[voxels] = _voted(padded, voxels, margin, offsets, value)
    # A single label gives its voxels to any other, and takes from background alone.
    return settled(labels, box, after, where, what, only_over=None if value is None else (value, BACKGROUND))


def _mixed(padded: NDArray[Any], margin: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which voxels of an array padded by `margin` (3,) may see two values within the margin; some that do not."""
    found = np.zeros(padded.shape, np.bool_)
    for axis in range(3):
        along, edge = np.moveaxis(padded, axis, 0), np.moveaxis(found, axis, 0)
        edge[:-1] |= along[:-1] != along[1:]
    for axis in range(3):
        size, reach = padded.shape[axis] - 2 * int(margin[axis]), int(margin[axis])
        along = np.moveaxis(found, axis, 0)
        seen = along[:size].copy()
        for start in range(1, 2 * reach + 1):
            seen |= along[start : start + size]
        found = np.moveaxis(seen, 0, axis)
    return found


def _voted(
    padded: NDArray[Any],
    voxels: tuple[NDArray[np.intp], ...],
    margin: NDArray[np.intp],
    offsets: NDArray[np.intp],
    value: int | None,
) -> NDArray[Any]:
    """Return the new labels (voxels,) of voxels whose places are those before padding by `margin` (3,)."""
    flat = padded.ravel()
    centres = np.ravel_multi_index([v + int(m) for v, m in zip(voxels, margin, strict=True)], padded.shape)
    steps = (offsets @ [padded.shape[1] * padded.shape[2], padded.shape[2], 1]).tolist()
    old = flat[centres]
    # First who keeps the majority, which most do: only the rest is worth counting label by label.
    own = np.zeros(len(centres), np.int32)
    for step in steps:
        own += flat[centres + step] == (old if value is None else value)
    new = old.copy()
    if value is None:
        open_to = np.flatnonzero(2 * own < len(steps))
    else:
        new[2 * own > len(steps)] = value
        open_to = np.flatnonzero((old == value) & (2 * own < len(steps)))
    values = distinct_values(padded)
    votes = np.zeros((len(values), len(open_to)), np.int32)
    for step in steps:
        seen = flat[centres[open_to] + step]
        for number, candidate in enumerate(values):
            votes[number] += seen == candidate
    if value is not None:
        votes[values == value] = -1
    best = values[np.argmax(votes, axis=0)]
    # In a tie the old label stays.
    new[open_to] = np.where(own[open_to] == votes.max(axis=0), old[open_to], best) if value is None else best
    return new


def grow(labels: NDArray[Any], geometry: Geometry, value: int, *, margin_mm: float, where: Where = ANYWHERE) -> Change:
    """Return the change that grows a label by a margin in every direction.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    geometry : Geometry
        Its grid.
    value : int
        The label.
    margin_mm : float
        Voxels are added whose centre lies this near to one of the label.
    where : Where
        Without `inside`, only background is painted over.

    Returns
    -------
    Change

    Raises
    ------
    CorrectionError
        If the margin is not above 0.
    LabelError, GeometryError
        If labels, value and grid do not fit together.

    Examples
    --------
    >>> labels = np.zeros((9, 9, 5), np.uint8)
    >>> labels[4, 4, 2] = 1
    >>> grown = grow(labels, Geometry.with_spacing(labels.shape, (1, 1, 3)), 1, margin_mm=3)
    >>> [side.stop - side.start for side in grown.box]
    [7, 7, 3]
    """
    check_label(labels, where, value, geometry=geometry)
    check_length("margin", margin_mm)
    what = f"Grow by {margin_mm:g} mm"
    mask = labels == value
    inner = common_box(mask)
    if inner is None:
        return Change.nothing(what, labels.dtype)
    box = wider(inner, voxels_within(margin_mm, geometry.spacing_mm), labels.shape)
    reached = near(mask[box], margin_mm, geometry.spacing_mm)
    after = np.where(reached, labels.dtype.type(value), labels[box])
    return settled(labels, box, after, where, what, only_over=(BACKGROUND,))


def shrink(
    labels: NDArray[Any],
    geometry: Geometry,
    value: int,
    *,
    margin_mm: float,
    replace_with: int = BACKGROUND,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that shrinks a label by a margin.

    Parameters
    ----------
    margin_mm : float
        Voxels of the label are taken away whose centre lies this near to one that is not of it. The border of the image
        takes nothing away: the label may go on behind it.
    replace_with : int
        What they become.
    labels, geometry, value, where
        As for `grow`.

    Returns
    -------
    Change

    Raises
    ------
    CorrectionError, LabelError, GeometryError
        As `grow`.
    """
    check_label(labels, where, value, geometry=geometry)
    check(labels, where, replace_with)
    check_length("margin", margin_mm)
    what = f"Shrink by {margin_mm:g} mm"
    inner = common_box(labels == value)
    if inner is None:
        return Change.nothing(what, labels.dtype)
    box = wider(inner, (1, 1, 1), labels.shape)
    mask = labels[box] == value
    lost = mask & near(~mask, margin_mm, geometry.spacing_mm)
    after = np.where(lost, labels.dtype.type(replace_with), labels[box])
    return settled(labels, box, after, where, what, only_over=(value,))


def near(mask: NDArray[np.bool_], length_mm: float, spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Where the nearest voxel of a mask (X, Y, Z) is at most so far away, centre to centre; the mask included.

    Exact either way: by a ball at every surface voxel, or, where those are too many, by the distance transform.
    """
    if not mask.any():
        return mask.copy()
    offsets = ball(length_mm, spacing_mm)
    surface = np.nonzero(boundary(mask))
    if len(offsets) * len(surface[0]) > _WRITES_PER_VOXEL * mask.size:
        distance = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
        reached: NDArray[np.bool_] = distance <= length_mm * (1 + 1e-9)
        return reached
    reach = np.abs(offsets).max(axis=0)
    padded = np.zeros([n + 2 * r for n, r in zip(mask.shape, reach, strict=True)], np.bool_)
    flat = padded.reshape(-1)
    centres = np.ravel_multi_index([s + r for s, r in zip(surface, reach, strict=True)], padded.shape)
    steps = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    for step in (offsets @ steps).tolist():
        flat[centres + step] = True
    return padded[tuple(slice(r, r + n) for r, n in zip(reach, mask.shape, strict=True))] | mask
