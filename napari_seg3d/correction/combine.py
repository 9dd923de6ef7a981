"""Labels taken from another map, combined with one another, or renamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..comparison.surface import common_box
from ..errors import CorrectionError, GeometryError, LabelError
from ..volumes.volume import distinct_values
from .change import Change, Indices
from .islands import part_at
from .masks import ANYWHERE, BACKGROUND, Where, check, check_label, settled, voxel_of

#: What becomes of a label and a second set of voxels.
Operation = Literal["union", "intersection", "difference"]
_NAMES = {"union": "Add to the label", "intersection": "Keep what both have", "difference": "Take away from the label"}
_TAKE = "Take from the other map"


def take(labels: NDArray[Any], other: NDArray[Any], indices: Indices, *, where: Where = ANYWHERE) -> Change:
    """Return the change that takes some voxels' labels from another map: one disagreement, for example.

    Parameters
    ----------
    labels, other : (X, Y, Z) integer ndarray
        The map that is corrected and the one that is right there, on one grid.
    indices : tuple of three (voxels,) ndarrays
        Which voxels; `Disagreement.indices` of `napari_seg3d.comparison.difference` are made for it.
    where : Where

    Returns
    -------
    Change

    Raises
    ------
    LabelError, GeometryError
        If the maps do not fit together.
    """
    check(labels, where)
    _check_pair(labels, other)
    old, new = labels[indices], other[indices]
    # A locked label is no fault here: its voxels stay, the others are taken.
    check(labels, Where(), *distinct_values(new).tolist())
    new = new.astype(labels.dtype)
    keep = (old != new) & where.allows(indices, old, new)
    x, y, z = (places[keep] for places in indices)
    return Change((x, y, z), new[keep], _TAKE)


def copy_part(
    labels: NDArray[Any],
    other: NDArray[Any],
    voxel: Sequence[float],
    value: int | None = None,
    *,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that copies the connected part of a label at a voxel of another map.

    Parameters
    ----------
    labels, other : (X, Y, Z) integer ndarray
        The map to paint in and the one to copy from, on one grid.
    voxel : (int, int, int)
        A voxel of the part in `other`.
    value : int, optional
        The label to paint; that of the part if not given.
    where : Where

    Returns
    -------
    Change

    Raises
    ------
    CorrectionError
        If the voxel lies outside the image or on the other map's background.
    LabelError, GeometryError
        If maps and value do not fit together.
    """
    check(labels, where)
    _check_pair(labels, other)
    box, mask = part_at(other, voxel)
    painted = int(other[voxel_of(other, voxel)]) if value is None else value
    check(labels, where, painted)
    after = np.where(mask, labels.dtype.type(painted), labels[box])
    return settled(labels, box, after, where, "Copy a part")


def combine(
    labels: NDArray[Any],
    value: int,
    other: NDArray[np.bool_],
    operation: Operation,
    *,
    replace_with: int = BACKGROUND,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that makes a label its union, intersection or difference with other voxels.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    value : int
        The label that changes.
    other : (X, Y, Z) bool ndarray
        The second set: ``labels == 2`` for another label of the map, ``layer == 2`` for one of another layer.
    operation : {"union", "intersection", "difference"}
        Add the others; keep only what both have; take the others away.
    replace_with : int
        What voxels become that the label loses.
    where : Where

    Returns
    -------
    Change

    Raises
    ------
    CorrectionError
        If the operation is another one.
    LabelError, GeometryError
        If labels, values and mask do not fit together.
    """
    check_label(labels, where, value)
    check(labels, where, replace_with)
    if other.shape != labels.shape:
        raise GeometryError(f"Expected voxels of the label map's shape {labels.shape}, got {other.shape}.")
    if operation not in _NAMES:
        raise CorrectionError(f"Expected one of {', '.join(_NAMES)}, got {operation!r}.")
    mine = labels == value
    other = other.astype(np.bool_, copy=False)
    box = common_box(mine | other if operation == "union" else mine)
    if box is None:
        return Change.nothing(_NAMES[operation], labels.dtype)
    after = labels[box].copy()
    if operation == "union":
        after[other[box]] = value
    else:
        kept = other[box] if operation == "intersection" else ~other[box]
        after[mine[box] & ~kept] = replace_with
    return settled(labels, box, after, where, _NAMES[operation])


def relabel(labels: NDArray[Any], value: int, new_value: int, *, where: Where = ANYWHERE) -> Change:
    """Return the change that gives all voxels of a label another label.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    value, new_value : int
        0 is background: `new_value` 0 deletes the label.
    where : Where

    Returns
    -------
    Change

    Raises
    ------
    LabelError, GeometryError
        If labels and values do not fit together.
    """
    check_label(labels, where, value)
    check(labels, where, new_value)
    what = f"Relabel {value} to {new_value}"
    box = common_box(labels == value)
    if box is None:
        return Change.nothing(what, labels.dtype)
    before = labels[box]
    return settled(labels, box, np.where(before == value, labels.dtype.type(new_value), before), where, what)


def relabel_part(labels: NDArray[Any], voxel: Sequence[float], new_value: int, *, where: Where = ANYWHERE) -> Change:
    """Return the change that gives the connected part of a label at a voxel (X, Y, Z) another label.

    Parameters and errors are those of `relabel`; a voxel outside the image or on background raises `CorrectionError`.
    """
    check(labels, where, new_value)
    box, mask = part_at(labels, voxel)
    value = int(labels[voxel_of(labels, voxel)])
    check(labels, where, value)
    after = np.where(mask, labels.dtype.type(new_value), labels[box])
    return settled(labels, box, after, where, f"Relabel a part of {value} to {new_value}")


def _check_pair(labels: NDArray[Any], other: NDArray[Any]) -> None:
    if other.shape != labels.shape:
        raise GeometryError(f"Expected another map of the label map's shape {labels.shape}, got {other.shape}.")
    if other.dtype.kind not in "iu":
        raise LabelError(f"Expected integers in the other map, got {other.dtype}.")
