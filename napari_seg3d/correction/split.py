"""One label made two: along a plane, or between two scribbles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from ..comparison.surface import common_box
from ..errors import CorrectionError
from ..volumes.geometry import Geometry
from .change import Box, Change
from .islands import part_at
from .masks import ANYWHERE, Where, check_label, settled, voxel_of


def split_by_plane(
    labels: NDArray[Any],
    geometry: Geometry,
    value: int,
    new_value: int,
    *,
    point_mm: ArrayLike,
    normal_mm: ArrayLike,
    voxel: Sequence[float] | None = None,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that gives the part of a label on one side of a plane another label.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    geometry : Geometry
        Its grid.
    value, new_value : int
        The label, and what becomes of its voxels whose centre lies on the side that the normal points to.
    point_mm, normal_mm : (3,) array_like
        A point of the plane and its direction in world coordinates (RAS+ mm).
    voxel : (int, int, int), optional
        Split only the connected part of the label at this voxel.
    where : Where

    Returns
    -------
    Change

    Raises
    ------
    CorrectionError
        If point or normal are not three finite numbers, the normal has no length, or `voxel` is not in the label.
    LabelError, GeometryError
        If labels, values and grid do not fit together.
    """
    check_label(labels, where, value, new_value, geometry=geometry)
    point, normal = _vector("a point", point_mm), _vector("a normal", normal_mm)
    if not normal.any():
        raise CorrectionError("Expected a normal with a direction, got (0, 0, 0).")
    what = "Split by a plane"
    found = _mask(labels, value, voxel)
    if found is None:
        return Change.nothing(what, labels.dtype)
    box, mask = found
    # The height above the plane is linear along the voxel axes.
    affine = geometry.affine_voxel_to_world
    steps = normal @ affine[:3, :3]
    height = sum(places * step for places, step in zip(np.ogrid[box], steps, strict=True)) + normal @ (
        affine[:3, 3] - point
    )
    after = np.where(mask & (height > 0), labels.dtype.type(new_value), labels[box])
    return settled(labels, box, after, where, what)


def split_by_seeds(
    labels: NDArray[Any],
    geometry: Geometry,
    value: int,
    new_value: int,
    *,
    stays: ArrayLike,
    leaves: ArrayLike,
    where: Where = ANYWHERE,
) -> Change:
    """Return the change that cuts a label at its neck between two scribbles.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    geometry : Geometry
        Its grid.
    value, new_value : int
        The label, and what the part around `leaves` becomes.
    stays, leaves : (points, 3) array_like
        Voxels of the two scribbles; those outside the label count for nothing. Connected parts of the label with
        neither stay as they are.
    where : Where

    Returns
    -------
    Change

    Raises
    ------
    CorrectionError
        If a scribble does not touch the label, or both touch it in the same voxels only.
    LabelError, GeometryError
        If labels, values and grid do not fit together.

    Notes
    -----
    Watershed of the distance in mm to the label's edge, with the scribbles as markers: the cut lies where the label is
    thinnest between them.
    """
    check_label(labels, where, value, new_value, geometry=geometry)
    what = "Split by scribbles"
    found = _mask(labels, value, None)
    if found is None:
        return Change.nothing(what, labels.dtype)
    box, mask = found
    markers = np.zeros(mask.shape, np.int32)
    for number, scribble in ((1, stays), (2, leaves)):
        voxels = [voxel_of(labels, point) for point in np.atleast_2d(np.asarray(scribble, np.float64))]
        places = np.array(voxels, np.intp).reshape(-1, 3) - [side.start for side in box]
        places = places[np.all((places >= 0) & (places < mask.shape), axis=1)]
        markers[tuple(places.T)] = number
    markers[~mask] = 0
    if not ((markers == 1).any() and (markers == 2).any()):
        raise CorrectionError(f"Expected two scribbles that touch label {value} in different voxels; draw both on it.")
    # Beyond the label's box is outside of it.
    thickness = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=geometry.spacing_mm)[1:-1, 1:-1, 1:-1]
    parts = watershed(-thickness, markers, mask=mask)  # type: ignore[no-untyped-call]  # scikit-image has no types here
    after = np.where(parts == 2, labels.dtype.type(new_value), labels[box])
    return settled(labels, box, after, where, what)


def _mask(labels: NDArray[Any], value: int, voxel: Sequence[float] | None) -> tuple[Box, NDArray[np.bool_]] | None:
    """Return a label's voxels as a box and a mask in it, or those of its part at a voxel; None if there are none."""
    if voxel is None:
        mask = labels == value
        box = common_box(mask)
        return None if box is None else (box, mask[box])
    place = voxel_of(labels, voxel)
    if labels[place] != value:
        raise CorrectionError(f"Voxel {place} has label {labels[place]}, not {value}; point at the label to split.")
    return part_at(labels, place)


def _vector(name: str, numbers: ArrayLike) -> NDArray[np.float64]:
    vector = np.asarray(numbers, np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise CorrectionError(f"Expected {name} of three numbers in mm, got {vector.tolist()}.")
    return vector
