"""Volumes and label maps on another grid: smooth for intensities, label-safe for labels.

Grids are compared voxel centre by voxel centre through the world, so any pair of affines will do: other spacing, other
axis order, rotated, shifted. Where the voxels of both grids coincide they are copied, not interpolated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import numpy as np
from nibabel.orientations import inv_ornt_aff, io_orientation
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from ..errors import GeometryError
from .geometry import SAME_GRID_FRACTION, Geometry
from .volume import LabelMap, Volume, distinct_values

#: Blurs below this (in voxels) change no voxel by more than a millionth and are left out.
_LEAST_SIGMA = 0.2
_TRUNCATE = 3.0
#: Voxels reach half a voxel around their centre; a little more lets the rounding of affines pass.
_EDGE = 0.5 + 1e-3

Box = tuple[slice, slice, slice]
Order = Literal[0, 1, 3]


def resampled_geometry(geometry: Geometry, spacing_mm: ArrayLike) -> Geometry:
    """Return the grid of another spacing in the same box: the outer faces of the outermost voxels coincide.

    Parameters
    ----------
    geometry : Geometry
        The grid whose axes and box are kept.
    spacing_mm : (3,) array_like
        The spacing wanted along its X, Y, Z. As the box holds a whole number of voxels, the spacing that comes out is
        the nearest one that fits exactly.

    Raises
    ------
    GeometryError
        If a spacing is not a positive number.

    Examples
    --------
    >>> thick = Geometry.with_spacing((10, 10, 4), (1.0, 1.0, 5.0))
    >>> fine = resampled_geometry(thick, (1.0, 1.0, 1.5))
    >>> fine.shape
    (10, 10, 13)
    """
    wanted = np.asarray(spacing_mm, dtype=np.float64)
    if wanted.shape != (3,) or not np.isfinite(wanted).all() or wanted.min() <= 0:
        raise GeometryError(f"Expected three positive spacings in mm, got {wanted.tolist()}.")
    old_shape = np.array(geometry.shape)
    shape = np.maximum(1, np.rint(old_shape * geometry.spacing_mm / wanted)).astype(int)
    step = old_shape / shape
    to_old = np.diag([*step, 1.0])
    # Voxel 0 is centred half a new voxel behind the face, which lies half an old voxel before the old voxel 0.
    to_old[:3, 3] = (step - 1) / 2
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), geometry.affine_voxel_to_world @ to_old)


def reoriented_geometry(geometry: Geometry, codes: str = "RAS") -> Geometry:
    """Return the grid of the same voxels with the axes in another order and direction.

    It is that of the view which `nibabel.orientations.apply_orientation` gives with ``geometry.orientation_to(codes)``.

    Examples
    --------
    >>> scan = Geometry((4, 5, 6), np.diag([-1.0, -1.0, 3.0, 1.0]))
    >>> reoriented_geometry(scan, "SPL").shape
    (6, 5, 4)
    """
    turn = geometry.orientation_to(codes)
    shape = [0, 0, 0]
    for size, new_axis in zip(geometry.shape, turn[:, 0].astype(int), strict=True):
        shape[new_axis] = size
    affine = geometry.affine_voxel_to_world @ inv_ornt_aff(turn, geometry.shape)
    return Geometry((shape[0], shape[1], shape[2]), affine)


def resample_volume(volume: Volume, geometry: Geometry, *, order: Order = 1) -> Volume:
    """Return intensities on another grid.

    Parameters
    ----------
    volume : Volume
        On any grid.
    geometry : Geometry
        The grid wanted.
    order : 0, 1 or 3
        Of the spline: 1 is linear, 3 cubic, 0 the nearest voxel.

    Returns
    -------
    Volume
        float32; where the grids' voxels coincide, the very voxels in their own type. What lies outside the old grid
        gets the volume's smallest value.

    Notes
    -----
    Along axes that become coarser the image is blurred first, so that nothing is lost between the new voxels: by a
    Gaussian that turns the point spread of the old voxel into that of the new one (Cardoso et al. 2015, "Scale factor
    point spread function matching", doi:10.1007/978-3-319-24571-3_81).
    """
    way = _Way.between(volume.geometry, geometry)
    turned = way.turned(volume.data)
    outside = turned.min()
    if way.copies:
        return replace(volume, data=way.copied(turned, geometry.shape, outside), geometry=geometry)
    # The nearest voxel is wanted as it is, not blurred.
    source = _blurred(turned.astype(np.float32), way.sigma if order else np.zeros(3))
    data = way.interpolated(source, geometry.shape, order)
    way.fill_outside(data, float(outside))
    return replace(volume, data=data, geometry=geometry)


def resample_label_map(label_map: LabelMap, geometry: Geometry) -> LabelMap:
    """Return labels on another grid: each voxel gets the label that fills most of it.

    Every label is interpolated linearly by itself (blurred first along axes that become coarser, as in
    `resample_volume`) and the largest share wins, so that no value appears that was not there and borders stay smooth.
    Ties go to the background, then to the smaller value. Outside the old grid is background. The type is kept.
    """
    way = _Way.between(label_map.geometry, geometry)
    turned = way.turned(label_map.data)
    if way.copies:
        return replace(label_map, data=way.copied(turned, geometry.shape, 0), geometry=geometry)
    winner = np.zeros(geometry.shape, label_map.data.dtype)
    largest = np.zeros(geometry.shape, np.float32)
    total = np.zeros(geometry.shape, np.float32)
    for value, box in _label_boxes(turned, way.sigma):
        target = way.reached(box, geometry.shape)
        if not winner[target].size:
            continue
        part = way.within(box, target)
        filled = _blurred((turned[box] == value).astype(np.float32), way.sigma)
        share = part.interpolated(filled, winner[target].shape, 1)
        part.fill_outside(share, 0.0)
        better = share > largest[target]
        largest[target][better] = share[better]
        winner[target][better] = value
        total[target] += share
    # What no label fills is background's share.
    winner[1 - total >= largest] = 0
    return replace(label_map, data=winner, geometry=geometry)


@dataclass(frozen=True, eq=False)
class _Way:
    """How target voxels find their place among the source's: ``matrix @ target + offset``.

    The source's axes are first turned by `axes` and `flips`, without touching a voxel, so that they run nearest to
    the target's; `shape` is that of the turned source.
    """

    shape: tuple[int, ...]
    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]
    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    #: Whether target voxels coincide with source voxels (or lie outside).
    copies: bool

    @classmethod
    def between(cls, source: Geometry, target: Geometry) -> _Way:
        combined = np.linalg.solve(source.affine_voxel_to_world, target.affine_voxel_to_world)
        turn = io_orientation(combined)
        axes = tuple(int(axis) for axis in turn[:, 0])
        flips = tuple(bool(direction < 0) for direction in turn[:, 1])
        shape = tuple(source.shape[axis] for axis in axes)
        signs = np.where(flips, -1.0, 1.0)
        matrix = signs[:, None] * combined[:3, :3][list(axes)]
        offset = signs * combined[:3, 3][list(axes)] + np.where(flips, np.array(shape) - 1, 0)
        # Rounding in the affines is not worth a slow, general rotation, nor an interpolation.
        corners = np.array(list(product(*[(0, n - 1) for n in target.shape])), dtype=np.float64)
        straight, shift = np.diag(matrix.diagonal()), np.rint(offset)
        if np.abs(corners @ (matrix - straight).T).max() <= SAME_GRID_FRACTION / 10:
            matrix = straight
        copies = bool(np.abs(corners @ (matrix - np.eye(3)).T + offset - shift).max() <= SAME_GRID_FRACTION)
        return cls(shape, np.eye(3) if copies else matrix, shift if copies else offset, axes, flips, copies)

    @property
    def sigma(self) -> NDArray[np.float64]:
        """Width in source voxels, by axis, of the blur that suits the target's coarser voxels."""
        steps = np.linalg.norm(self.matrix, axis=1)
        return np.asarray(np.sqrt(np.maximum(steps**2 - 1, 0) / (8 * np.log(2))))

    @property
    def is_straight(self) -> bool:
        return not np.any(self.matrix - np.diag(self.matrix.diagonal()))

    def turned(self, data: NDArray[Any]) -> NDArray[Any]:
        """View of the source with its axes as `shape` says."""
        return data.transpose(self.axes)[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def copied(self, turned: NDArray[Any], shape: tuple[int, int, int], outside: Any) -> NDArray[Any]:
        """Return the target (`shape`) where its voxels are the source's."""
        data = np.full(shape, outside, turned.dtype)
        start = self.offset.astype(int)
        inside = tuple(
            slice(min(n, max(0, -a)), max(0, min(n, size - a)))
            for a, n, size in zip(start, shape, self.shape, strict=True)
        )
        data[inside] = turned[tuple(slice(s.start + a, s.stop + a) for s, a in zip(inside, start, strict=True))]
        return data

    def within(self, source: Box, target: Box) -> _Way:
        """Return the same way between a box of the turned source and a box of the target."""
        offset = self.offset + self.matrix @ [s.start for s in target] - [s.start for s in source]
        return replace(self, shape=tuple(s.stop - s.start for s in source), offset=offset)

    def reached(self, source: Box, shape: tuple[int, int, int]) -> Box:
        """Return the box of the target (`shape`) outside of which nothing in a box of the source has a share."""
        ends = product(*[(s.start - 1, s.stop) for s in source])
        places = np.linalg.solve(self.matrix, (np.array(list(ends)) - self.offset).T)
        first = np.clip(np.floor(places.min(axis=1)).astype(int), 0, shape)
        last = np.clip(np.ceil(places.max(axis=1)).astype(int) + 1, first, shape)
        return _box(first, last)

    def interpolated(self, turned: NDArray[np.float32], shape: tuple[int, ...], order: Order) -> NDArray[np.float32]:
        """Return the target (`shape`); half a voxel around the source its outermost values go on."""
        if order == 1 and self.is_straight:
            return self._interpolated_by_axis(turned, shape)
        result: NDArray[np.float32] = ndimage.affine_transform(
            turned, self.matrix, self.offset, tuple(shape), order=order, mode="nearest"
        )
        return result

    def _interpolated_by_axis(self, data: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
        # Several times faster than scipy's general transform; shrinking axes come first, so that less is left to do.
        for axis in np.argsort([new / old for new, old in zip(shape, self.shape, strict=True)]):
            places = np.arange(shape[axis]) * self.matrix[axis, axis] + self.offset[axis]
            places = np.clip(places, 0, self.shape[axis] - 1)
            before = np.minimum(places.astype(int), max(0, self.shape[axis] - 2))
            after = np.minimum(before + 1, self.shape[axis] - 1)
            part = (places - before).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
            low = data.take(before, axis)
            low += (data.take(after, axis) - low) * part
            data = low
        return data

    def fill_outside(self, target: NDArray[np.float32], value: float) -> None:
        """Overwrite the voxels of the target whose centres lie in no voxel of the source."""
        axes = np.ogrid[tuple(slice(n) for n in target.shape)]
        for row, offset, size in zip(self.matrix, self.offset, self.shape, strict=True):
            lowest, highest = -_EDGE, size - 1 + _EDGE
            ends = [step * (n - 1) for step, n in zip(row, target.shape, strict=True)]
            # The usual case, a target within the source, is told from its corners alone.
            if offset + np.minimum(ends, 0).sum() >= lowest and offset + np.maximum(ends, 0).sum() <= highest:
                continue
            place = offset + sum(step * axis for step, axis in zip(row, axes, strict=True) if step)
            target[np.broadcast_to((place < lowest) | (place > highest), target.shape)] = value


def _blurred(data: NDArray[np.float32], sigma: NDArray[np.float64]) -> NDArray[np.float32]:
    if sigma.max() < _LEAST_SIGMA:
        return data
    # scipy leaves axes alone whose sigma is 0.
    sigma = np.where(sigma < _LEAST_SIGMA, 0, sigma)
    return np.asarray(ndimage.gaussian_filter(data, sigma, mode="nearest", truncate=_TRUNCATE))


def _label_boxes(turned: NDArray[Any], sigma: NDArray[np.float64]) -> Iterator[tuple[int, Box]]:
    """Yield every label with the box that it can reach after the blur, one voxel wider."""
    values = distinct_values(turned)
    values = values[values > 0]
    # Small consecutive numbers, because the search takes memory for every number up to the largest.
    numbered = np.searchsorted(values, turned) + 1
    numbered[turned == 0] = 0
    margin = np.ceil(_TRUNCATE * sigma).astype(int) + 1
    for value, box in zip(values, ndimage.find_objects(numbered), strict=True):
        first = np.maximum(0, [s.start for s in box] - margin)
        last = np.minimum(turned.shape, [s.stop for s in box] + margin)
        yield int(value), _box(first, last)


def _box(first: NDArray[np.intp], last: NDArray[np.intp]) -> Box:
    x, y, z = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return x, y, z
