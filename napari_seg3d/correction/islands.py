"""Connected parts of a label: islands to keep or remove, holes to fill."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected_parts

from ..comparison.surface import common_box
from ..errors import CorrectionError
from ..volumes.geometry import Geometry
from .change import Box, Change
from .masks import (
    ANYWHERE,
    BACKGROUND,
    Where,
    check,
    check_axis,
    check_label,
    settled,
    voxel_of,
)

#: What counts as connected: voxels that share a face, or a corner, too.
Touching = Literal["faces", "corners"]
_CONNECTIVITY = {"faces": 1, "corners": 3}


def keep_largest(
    labels: NDArray[Any],
    value: int,
    *,
    touching: Touching = "faces",
    replace_with: int = BACKGROUND,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that leaves only the largest connected part of a label.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    value : int
        The label.
    touching : {"faces", "corners"}
        Whether voxels that only share an edge or a corner are connected.
    replace_with : int
        What the rest becomes.
    where : Where

    Returns
    -------
    Change
        Of two largest parts of one size, the first in the order of the voxels stays.

    Raises
    ------
    LabelError, GeometryError
        If labels and values do not fit together.
    """
    check_label(labels, where, value)
    box, parts = _parts(labels, value, touching)
    sizes = np.bincount(parts.ravel(order="K"), minlength=1)
    unwanted = np.ones(len(sizes), np.bool_)
    unwanted[0] = False
    if len(sizes) > 1:
        unwanted[1 + np.argmax(sizes[1:])] = False
    return _without(labels, value, box, parts, unwanted, replace_with, where, "Keep the largest part")


def remove_smaller(
    labels: NDArray[Any],
    geometry: Geometry,
    value: int,
    *,
    smallest_ml: float,
    touching: Touching = "faces",
    replace_with: int = BACKGROUND,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that removes the connected parts of a label below a volume in ml.

    Parameters
    ----------
    geometry : Geometry
        Grid of the labels.
    smallest_ml : float
        Parts of this volume stay.
    labels, value, touching, replace_with, where
        As for `keep_largest`.

    Returns
    -------
    Change

    Raises
    ------
    CorrectionError
        If the volume is not a finite number above 0.
    LabelError, GeometryError
        If labels, values and grid do not fit together.
    """
    check_label(labels, where, value, geometry=geometry)
    if not np.isfinite(smallest_ml) or smallest_ml <= 0:
        raise CorrectionError(f"Expected a smallest volume above 0 ml, got {smallest_ml:g} ml.")
    box, parts = _parts(labels, value, touching)
    sizes = np.bincount(parts.ravel(order="K"), minlength=1)
    # Float rounding must not remove a part of exactly this volume.
    unwanted = sizes * geometry.voxel_volume_ml < smallest_ml * (1 - 1e-9)
    unwanted[0] = False
    return _without(labels, value, box, parts, unwanted, replace_with, where, f"Remove parts below {smallest_ml:g} ml")


def keep_island(
    labels: NDArray[Any],
    voxel: Sequence[float],
    *,
    touching: Touching = "faces",
    replace_with: int = BACKGROUND,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that leaves of a label only the connected part at a voxel (X, Y, Z).

    Parameters and errors are those of `keep_largest`; the label is the one at the voxel. A voxel outside the image or
    on background raises `CorrectionError`.
    """
    value, place = _clicked(labels, voxel, where)
    box, parts = _parts(labels, value, touching)
    unwanted = np.ones(int(parts.max()) + 1, np.bool_)
    unwanted[[0, _part_at(parts, box, place)]] = False
    return _without(labels, value, box, parts, unwanted, replace_with, where, "Keep the clicked part")


def remove_island(
    labels: NDArray[Any],
    voxel: Sequence[float],
    *,
    touching: Touching = "faces",
    replace_with: int = BACKGROUND,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that removes the connected part of a label at a voxel (X, Y, Z).

    Parameters and errors are those of `keep_largest`; the label is the one at the voxel. A voxel outside the image or
    on background raises `CorrectionError`.
    """
    value, place = _clicked(labels, voxel, where)
    box, parts = _parts(labels, value, touching)
    unwanted = np.zeros(int(parts.max()) + 1, np.bool_)
    unwanted[_part_at(parts, box, place)] = True
    return _without(labels, value, box, parts, unwanted, replace_with, where, "Remove the clicked part")


def fill_holes(
    labels: NDArray[Any],
    value: int,
    *,
    axis: int | None = None,
    walls: Sequence[int] = (),
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that fills the holes of a label, in 3D or slice by slice.

    A hole is what cannot be left through faces without crossing the label; what reaches the border of the image is
    open. Other labels in a hole stay as they are, unless ``where.inside`` names them.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    value : int
        The label.
    axis : int, optional
        Fill every slice across this axis by itself, so that a hole needs to be closed in the slice only.
    walls : sequence of int
        Other labels that close a hole together with this one.
    where : Where

    Returns
    -------
    Change
        Filling twice is the same as once.

    Raises
    ------
    CorrectionError, LabelError, GeometryError
        If the axis is none, or labels and values do not fit together.
    """
    check_label(labels, where, value)
    what = "Fill holes" if axis is None else "Fill holes in slices"
    closed = labels == value
    for wall in walls:
        closed |= labels == wall
    box = common_box(closed)
    if box is None:
        return Change.nothing(what, labels.dtype)
    if axis is None:
        holes = _enclosed(closed[box])
    else:
        check_axis(axis)
        slices = np.moveaxis(closed[box], axis, 0)
        holes = np.moveaxis(np.stack([_enclosed(one) for one in slices]), 0, axis)
    after = np.where(holes, labels.dtype.type(value), labels[box])
    return settled(labels, box, after, where, what, only_over=(BACKGROUND,))


def part_at(
    labels: NDArray[Any], voxel: Sequence[float], touching: Touching = "faces"
) -> tuple[Box, NDArray[np.bool_]]:
    """Return the connected part of a label at a voxel, as a box and a mask in it.

    Parameters
    ----------
    labels : (X, Y, Z) integer or bool ndarray
    voxel : (int, int, int)

    Raises
    ------
    CorrectionError
        If the voxel lies outside the image or on background.
    """
    place = voxel_of(labels, voxel)
    value = labels[place].item()
    if value == BACKGROUND:
        raise CorrectionError(f"There is only background at voxel {place}; point at a label.")
    box, parts = _parts(labels, value, touching)
    mask: NDArray[np.bool_] = parts == _part_at(parts, box, place)
    return box, mask


def _enclosed(closed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a mask of any dimension is not set and cannot be reached from outside the array."""
    open_parts = connected_parts(np.pad(~closed, 1, constant_values=True), connectivity=1)  # type: ignore[no-untyped-call]  # scikit-image has no types here
    inner = open_parts[(slice(1, -1),) * closed.ndim]
    holes: NDArray[np.bool_] = ~closed & (inner != open_parts.flat[0])
    return holes


def _clicked(labels: NDArray[Any], voxel: Sequence[float], where: Where) -> tuple[int, tuple[int, int, int]]:
    check(labels, where)
    place = voxel_of(labels, voxel)
    value = int(labels[place])
    if value == BACKGROUND:
        raise CorrectionError(f"There is only background at voxel {place}; point at a label.")
    check_label(labels, where, value)
    return value, place


def _parts(labels: NDArray[Any], value: int | bool, touching: Touching) -> tuple[Box, NDArray[np.int64]]:
    """Return the box of a label and in it the number of its connected part, from 1; 0 elsewhere."""
    if touching not in _CONNECTIVITY:
        raise CorrectionError(f'Expected "faces" or "corners", got {touching!r}.')
    mask = labels == value
    box = common_box(mask) or (slice(0, 0), slice(0, 0), slice(0, 0))
    if box[0].stop == 0:
        return box, np.zeros((0, 0, 0), np.int64)
    parts: NDArray[np.int64] = connected_parts(  # type: ignore[no-untyped-call]  # scikit-image has no types here
        mask[box], connectivity=_CONNECTIVITY[touching]
    )
    return box, parts


def _part_at(parts: NDArray[np.int64], box: Box, place: tuple[int, int, int]) -> int:
    x, y, z = (p - side.start for p, side in zip(place, box, strict=True))
    return int(parts[x, y, z])


def _without(
    labels: NDArray[Any],
    value: int,
    box: Box,
    parts: NDArray[np.int64],
    unwanted: NDArray[np.bool_],
    replace_with: int,
    where: Where,
    what: str,
) -> Change:
    """Replace the parts whose number is `unwanted` (parts + 1,)."""
    check(labels, where, replace_with)
    if not unwanted.any():
        return Change.nothing(what, labels.dtype)
    after = np.where(unwanted[parts], labels.dtype.type(replace_with), labels[box])
    return settled(labels, box, after, where, what, only_over=(value,))
