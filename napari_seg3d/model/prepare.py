"""Between a case's own grid and the network's: `prepare` on the way in, `restore` on the way back.

The network's grid has its axes in RAS order (nearest to it, never rotated), is cropped to the foreground and has the
plan's spacing. This module owns the exactness of the crossing: axes are permuted and flipped without touching a voxel,
and where the spacing already is the plan's, nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..cases.case import Case
from ..cases.checked import checked_mask
from ..cases.fingerprint import foreground_mask
from ..cases.labels import labels_from_regions
from ..errors import FileError, LabelError, ModelError
from ..volumes.geometry import Geometry
from ..volumes.resample import reoriented_geometry, resample_label_map, resample_volume, resampled_geometry
from ..volumes.volume import LabelMap, Volume
from .intensities import normalised
from .plan import Plan

#: Target of a voxel from which nothing is learned.
IGNORED = 255
#: Spacings that differ by less than this part are the same: a header's rounding is no reason to interpolate.
SAME_SPACING = 0.01

Box = tuple[slice, slice, slice]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Grid:
    """How a case's own grid and the network's hang together.

    `case` is the stored grid, `box` the part that is kept of it in RAS order, `network` the grid of the prepared array.
    """

    case: Geometry
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    network: Geometry

    @property
    def slices(self) -> Box:
        """The box as slices into an array in RAS order."""
        x, y, z = (slice(start, stop) for start, stop in self.box)
        return x, y, z

    @property
    def box_shape(self) -> tuple[int, int, int]:
        """Shape of the box in the case's own voxels, in RAS order."""
        x, y, z = (stop - start for start, stop in self.box)
        return x, y, z

    def inside(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """View of an array on the case's grid: in RAS order, inside the box."""
        turned: NDArray[Scalar] = apply_orientation(array, self.case.orientation_to("RAS"))
        return turned[self.slices]

    def outside(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return an array on the case's grid that is `array` inside the box and 0 elsewhere: undoes `inside`."""
        ras = reoriented_geometry(self.case, "RAS")
        whole = np.zeros(ras.shape, array.dtype)
        whole[self.slices] = array
        back = ornt_transform(axcodes2ornt(tuple("RAS")), io_orientation(self.case.affine_voxel_to_world))
        return np.ascontiguousarray(apply_orientation(whole, back))


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case as the network sees it.

    Parameters
    ----------
    image : (C, X, Y, Z) float32 ndarray
        Normalised, channels in the plan's order.
    target : (X, Y, Z) uint8 ndarray, optional
        Index into the plan's labels plus one; 0 is background, `IGNORED` is not known.
    grid : Grid
        The way back.
    """

    image: NDArray[np.float32]
    target: NDArray[np.uint8] | None
    grid: Grid


def grid_for(geometry: Geometry, plan: Plan, foreground: NDArray[np.bool_] | None) -> Grid:
    """Return the network's grid for a case; `foreground` (X, Y, Z) on the case's grid sets the crop."""
    ras = reoriented_geometry(geometry, "RAS")
    if foreground is None or not plan.crop_to_foreground:
        box = tuple((0, n) for n in ras.shape)
    else:
        box = _bounding_box(apply_orientation(foreground, geometry.orientation_to("RAS")))
    start = [a for a, _ in box]
    affine = ras.affine_voxel_to_world.copy()
    affine[:3, 3] = ras.world(start)
    cropped = Geometry((box[0][1] - box[0][0], box[1][1] - box[1][0], box[2][1] - box[2][0]), affine)
    same = np.allclose(cropped.spacing_mm, plan.spacing_mm, rtol=SAME_SPACING)
    network = cropped if same else resampled_geometry(cropped, plan.spacing_mm)
    return Grid(geometry, (box[0], box[1], box[2]), network)


def prepare(case: Case, plan: Plan) -> Prepared:
    """Return a case as the network of this plan sees it.

    Raises
    ------
    ModelError
        If the case lacks one of the plan's modalities.
    LabelError
        If its truth has a value that the plan does not know.
    FileError
        If an image holds NaN or infinity.
    """
    check_modalities(case.id, tuple(case.modalities), plan)
    foreground = foreground_mask(case)
    grid = grid_for(case.geometry, plan, foreground)
    inside = np.asarray(grid.inside(foreground), dtype=bool)
    channels = [_image(case.id, name, case.modalities[name], inside, grid, plan) for name in plan.modalities]
    target = None if case.truth is None else _target(case, case.truth, grid, plan)
    return Prepared(np.stack(channels), target, grid)


def check_modalities(case_id: str, modalities: Sequence[str], plan: Plan) -> None:
    """Refuse a case that lacks an image the plan wants.

    Raises
    ------
    ModelError
        Naming what is wanted and what is there.
    """
    if missing := [name for name in plan.modalities if name not in modalities]:
        raise ModelError(
            f"The model wants {', '.join(plan.modalities)}; case {case_id} has {', '.join(modalities)}. "
            f"Missing: {', '.join(missing)}."
        )


def unknown_voxels(case: Case, plan: Plan) -> NDArray[np.bool_] | None:
    """Return where the truth says nothing: outside the checked boxes, or the plan's value to ignore. None: nowhere."""
    if case.truth is None or (case.checked is None and plan.ignore_value is None):
        return None
    unknown = np.zeros(case.geometry.shape, bool)
    if case.checked is not None:
        unknown = ~checked_mask(case.checked, case.geometry.shape)
    if plan.ignore_value is not None:
        unknown |= case.truth.data == plan.ignore_value
    return unknown


def restore(outputs: Tensor, grid: Grid, plan: Plan) -> NDArray[np.unsignedinteger]:
    """Turn logits on the network's grid into label values on the case's own grid.

    Parameters
    ----------
    outputs : (K, X, Y, Z) Tensor
        Logits of `plan.outputs` channels on ``grid.network``, on any device.
    grid : Grid
        From `prepare`.

    Returns
    -------
    (X, Y, Z) ndarray
        The plan's label values on ``grid.case``, uint8 or uint16; 0 outside the crop.

    Notes
    -----
    Logits are interpolated class by class with a running maximum, so that never more than two volumes are held beside
    them. Regions are nested: a voxel of an inner region belongs to all outer ones.
    """
    if plan.targets == "regions":
        masks = [_logits_at(outputs[i], grid) > 0 for i in range(len(plan.regions))]
        values = labels_from_regions(
            np.stack([mask.cpu().numpy() for mask in masks]), plan.label_regions, plan.label_table
        )
    else:
        best = _logits_at(outputs[0], grid)
        winner = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
        for index in range(1, len(outputs)):
            logits = _logits_at(outputs[index], grid)
            better = logits > best
            best = torch.where(better, logits, best)
            winner.masked_fill_(better, index)
        table = np.array([0, *(label.value for label in plan.labels)])
        values = table.astype(np.min_scalar_type(int(table.max())))[winner.cpu().numpy()]
    return grid.outside(values)


def restore_intensities(values: Tensor, grid: Grid) -> NDArray[np.float32]:
    """Turn one map (X, Y, Z) on the network's grid, for example a probability, into one on the case's own grid."""
    at_own_size: NDArray[np.float32] = _logits_at(values, grid).float().cpu().numpy()
    return grid.outside(at_own_size)


def _logits_at(values: Tensor, grid: Grid) -> Tensor:
    if tuple(values.shape) == grid.box_shape:
        return values
    # align_corners=False maps the same field of view edge to edge, as resampled_geometry does on the way in.
    resized: Tensor = functional.interpolate(values[None, None].float(), size=grid.box_shape, mode="trilinear")[0, 0]
    return resized


def _image(
    case_id: str, name: str, volume: Volume, inside: NDArray[np.bool_], grid: Grid, plan: Plan
) -> NDArray[np.float32]:
    voxels = np.asarray(grid.inside(volume.data), dtype=np.float32)
    if not np.isfinite(voxels).all():
        # A single NaN would turn the whole image, and in training all weights, into NaN.
        raise FileError(f"Case {case_id}: {name} holds NaN or infinity. Repair or leave out the case.")
    voxels = normalised(voxels, inside, plan, plan.ct_windows.get(name))
    if grid.network.shape == grid.box_shape:
        return np.ascontiguousarray(voxels)
    return _resampled(voxels, grid)


def _resampled(voxels: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    resampled = resample_volume(Volume(voxels, _box_geometry(grid)), grid.network)
    return np.ascontiguousarray(resampled.data, dtype=np.float32)


def _target(case: Case, truth: LabelMap, grid: Grid, plan: Plan) -> NDArray[np.uint8]:
    known = [label.value for label in plan.labels]
    ignored = [] if plan.ignore_value is None else [plan.ignore_value]
    found = [int(value) for value in np.unique(truth.data) if value != 0]
    if unknown := sorted(set(found) - {*known, *ignored}):
        raise LabelError(f"Case {case.id} has the label values {unknown}; the plan knows {known}.")
    index = np.zeros(max([*known, *found, *ignored]) + 1, np.uint8)
    index[known] = np.arange(1, len(known) + 1)
    target = index[np.asarray(grid.inside(truth.data))]
    if (nothing := unknown_voxels(case, plan)) is not None:
        target[np.asarray(grid.inside(nothing))] = IGNORED
    if grid.network.shape == grid.box_shape:
        return np.ascontiguousarray(target)
    resampled = resample_label_map(LabelMap(target, _box_geometry(grid)), grid.network)
    return np.ascontiguousarray(resampled.data, dtype=np.uint8)


def _box_geometry(grid: Grid) -> Geometry:
    ras = reoriented_geometry(grid.case, "RAS")
    affine = ras.affine_voxel_to_world.copy()
    affine[:3, 3] = ras.world([start for start, _ in grid.box])
    return Geometry(grid.box_shape, affine)


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    box = []
    for axis in range(3):
        occupied = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append((int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else (0, mask.shape[axis]))
    return tuple(box)
