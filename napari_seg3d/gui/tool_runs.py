"""The tools of `napari_seg3d.correction` on what the window shows: which label, where, in this slice or in all.

No Qt here: what a button does is a function of a `Bench`, so it can run in the worker thread and be tested without a
window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..correction.between import fill_between
from ..correction.change import Change
from ..correction.combine import Operation, combine, copy_part, relabel, relabel_part
from ..correction.islands import fill_holes, keep_island, keep_largest, remove_island, remove_smaller
from ..correction.masks import ANYWHERE, Where
from ..correction.seeds import grow_from_seeds
from ..correction.shape import grow, shrink, smooth
from ..correction.split import split_by_plane, split_by_seeds
from ..errors import CorrectionError
from ..events import Event, Finished, Progress, job
from ..volumes.geometry import Geometry
from ..volumes.volume import Label, LabelMap, LabelTable, distinct_values
from .layers import SCREEN

#: The label in a preview that stands for voxels that lose theirs.
TAKEN_AWAY = "taken away"


@dataclass(frozen=True, eq=False)
class Bench:
    """What a tool works on.

    Parameters
    ----------
    labels : (X, Y, Z) integer ndarray
    geometry : Geometry
        Its grid.
    label : int
        The active label.
    where : Where
        Where may be painted, with the locked labels.
    axis : int
        The axis of `labels` across the slices that are shown.
    index : int
        The shown slice along it.
    flat : bool
        Whether tools work on this slice alone.
    """

    labels: NDArray[Any] = field(repr=False)
    geometry: Geometry
    label: int
    where: Where = ANYWHERE
    axis: int = 2
    index: int = 0
    flat: bool = False

    def slice_alone(self) -> Bench:
        """Return the shown slice as a bench of its own, one voxel thick."""
        sides = [slice(None)] * 3
        sides[self.axis] = slice(self.index, self.index + 1)
        box = (sides[0], sides[1], sides[2])
        affine = self.geometry.affine_voxel_to_world.copy()
        affine[:3, 3] += self.index * affine[:3, self.axis]
        labels = self.labels[box]
        mask, intensities = self.where.mask, self.where.intensities
        where = replace(
            self.where,
            mask=None if mask is None else mask[box],
            intensities=None if intensities is None else intensities[box],
        )
        x, y, z = labels.shape
        return replace(self, labels=labels, geometry=Geometry((x, y, z), affine), where=where, index=0)

    def back(self, change: Change) -> Change:
        """Return a change of the slice alone as one of all labels."""
        places = list(change.indices)
        places[self.axis] = places[self.axis] + self.index
        return replace(change, indices=(places[0], places[1], places[2]), what=f"{change.what} (one slice)")

    def values(self) -> list[int]:
        """Labels that occur and are not locked."""
        return [int(v) for v in distinct_values(self.labels) if v != 0 and int(v) not in self.where.locked]


Tool = Callable[..., Change]


def _between(bench: Bench, *, all_labels: bool) -> Change:
    values = bench.values() if all_labels else [bench.label]
    if not values:
        raise CorrectionError("There is no label that is not locked; unlock one, or paint two slices first.")
    return fill_between(bench.labels, bench.geometry, values, axis=bench.axis, where=bench.where)


def _largest(bench: Bench) -> Change:
    return keep_largest(bench.labels, bench.label, where=bench.where)


def _smaller(bench: Bench, *, smallest_ml: float) -> Change:
    return remove_smaller(bench.labels, bench.geometry, bench.label, smallest_ml=smallest_ml, where=bench.where)


def _keep_clicked(bench: Bench, *, voxel: Sequence[float]) -> Change:
    return keep_island(bench.labels, voxel, where=bench.where)


def _remove_clicked(bench: Bench, *, voxel: Sequence[float]) -> Change:
    return remove_island(bench.labels, voxel, where=bench.where)


def _holes(bench: Bench) -> Change:
    return fill_holes(bench.labels, bench.label, axis=bench.axis if bench.flat else None, where=bench.where)


def _smooth(bench: Bench, *, kernel_mm: float, all_labels: bool) -> Change:
    value = None if all_labels else bench.label
    return smooth(bench.labels, bench.geometry, value, kernel_mm=kernel_mm, where=bench.where)


def _grow(bench: Bench, *, margin_mm: float) -> Change:
    return grow(bench.labels, bench.geometry, bench.label, margin_mm=margin_mm, where=bench.where)


def _shrink(bench: Bench, *, margin_mm: float) -> Change:
    return shrink(bench.labels, bench.geometry, bench.label, margin_mm=margin_mm, where=bench.where)


def _seeds(bench: Bench, *, seeds: NDArray[Any], images: Sequence[NDArray[Any]], background: int) -> Change:
    return grow_from_seeds(
        bench.labels, bench.geometry, seeds, images, background=background, where=bench.where
    )  # fmt: skip


def _copy(bench: Bench, *, other: NDArray[Any], voxel: Sequence[float]) -> Change:
    return copy_part(bench.labels, other, voxel, where=bench.where)


def _relabel(bench: Bench, *, new_value: int) -> Change:
    return relabel(bench.labels, bench.label, new_value, where=bench.where)


def _relabel_clicked(bench: Bench, *, voxel: Sequence[float], new_value: int) -> Change:
    return relabel_part(bench.labels, voxel, new_value, where=bench.where)


def _combine(bench: Bench, *, other: NDArray[Any], value: int, operation: Operation) -> Change:
    return combine(bench.labels, bench.label, other == value, operation, where=bench.where)


def _plane(bench: Bench, *, start: Sequence[float], end: Sequence[float], new_value: int) -> Change:
    """Split along the plane that stands on the shown slice through a line drawn in it; the smaller side leaves."""
    across = bench.geometry.affine_voxel_to_world[:3, bench.axis]
    start_mm, end_mm = bench.geometry.world((start, end))
    normal = np.cross(end_mm - start_mm, across)
    # A millionth of a millimetre is rounding.
    if np.linalg.norm(normal) <= 1e-6 * np.linalg.norm(across):
        raise CorrectionError("Expected a line of some length; press, drag across the label and let go.")
    sides = [
        split_by_plane(
            bench.labels, bench.geometry, bench.label, new_value, point_mm=start_mm, normal_mm=n, where=bench.where
        )
        for n in (normal, -normal)
    ]
    smaller = min(sides, key=len)
    if not len(smaller):
        raise CorrectionError("The line leaves the whole label on one side; draw it across the label.")
    return smaller


def _scribbles(bench: Bench, *, stays: ArrayLike, leaves: ArrayLike, new_value: int) -> Change:
    return split_by_seeds(
        bench.labels, bench.geometry, bench.label, new_value, stays=stays, leaves=leaves, where=bench.where
    )


#: By name: what is done with a bench and the tool's own settings.
TOOLS: Mapping[str, Tool] = {
    "between": _between,
    "largest": _largest,
    "smaller": _smaller,
    "keep clicked": _keep_clicked,
    "remove clicked": _remove_clicked,
    "holes": _holes,
    "smooth": _smooth,
    "grow": _grow,
    "shrink": _shrink,
    "seeds": _seeds,
    "copy": _copy,
    "relabel": _relabel,
    "relabel clicked": _relabel_clicked,
    "combine": _combine,
    "plane": _plane,
    "scribbles": _scribbles,
}
#: Tools that need more than one slice.
DEEP = ("between",)


def run(name: str, bench: Bench, settings: Mapping[str, Any]) -> Change:
    """Return what a tool changes, in the shown slice alone if the bench is flat.

    Parameters
    ----------
    name : str
        One of `TOOLS`.
    bench : Bench
    settings : mapping
        The tool's own: millimetres, a voxel, another map …

    Raises
    ------
    Seg3dError
        Whatever the tool refuses.
    """
    tool = TOOLS[name]
    if not bench.flat or name in DEEP:
        return tool(bench, **settings)
    own = {key: _in_slice(bench, key, value) for key, value in settings.items()}
    return bench.back(tool(bench.slice_alone(), **own))


def _in_slice(bench: Bench, name: str, value: Any) -> Any:
    """Return a setting as the slice alone needs it: maps cut, places moved."""
    if name == "images":
        return [_in_slice(bench, "", image) for image in value]
    if name in ("voxel", "start", "end", "stays", "leaves"):
        places = np.array(value, np.float64)
        places[..., bench.axis] -= bench.index
        return places
    if isinstance(value, np.ndarray):
        return np.take(value, [bench.index], axis=bench.axis)
    return value


@job
def use_tool(name: str, bench: Bench, settings: Mapping[str, Any]) -> Iterator[Event]:
    """Run a tool in the background; Finished.result = Change."""
    yield Progress("working", 0)
    yield Finished(run(name, bench, settings))


def voxel_in_file(index: Sequence[float], geometry: Geometry) -> tuple[float, float, float]:
    """Index along (X, Y, Z) of an index along (I, P, L): undoes `layers.voxel_on_screen`."""
    x, y, z = (
        float(index[int(axis)]) if flip > 0 else size - 1 - float(index[int(axis)])
        for size, (axis, flip) in zip(geometry.shape, geometry.orientation_to(SCREEN), strict=True)
    )
    return x, y, z


def axis_in_file(screen_axis: int, geometry: Geometry) -> int:
    """Which of X, Y, Z lies along an axis of the screen (0 I, 1 P, 2 L)."""
    return int(np.flatnonzero(geometry.orientation_to(SCREEN)[:, 0] == screen_axis)[0])


def preview_map(change: Change, geometry: Geometry, table: LabelTable) -> LabelMap:
    """Label map of what a change would paint, in the colours of its labels, and white where a label is taken away."""
    values = np.asarray(change.values)
    used = {*table.values, *distinct_values(values).tolist()} - {0}
    taken_away = next(value for value in range(1, len(used) + 2) if value not in used)
    data = np.zeros(geometry.shape, np.result_type(values.dtype, np.min_scalar_type(taken_away)))
    data[change.indices] = np.where(values == 0, taken_away, values)
    known = table.covering(used)
    return LabelMap(data, geometry, LabelTable((*known, Label(taken_away, TAKEN_AWAY, "#ffffff"))))


def change_in_words(change: Change, labels: NDArray[Any], geometry: Geometry, table: LabelTable) -> str:
    """Say what a change does to `labels` (X, Y, Z) before it: "Smooth: 214 voxels; oedema −0.12 ml"."""
    if not len(change):
        return f"{change.what}: nothing to change here."
    lost, won = (
        dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True))
        for values in (labels[change.indices], change.values)
    )
    parts = []
    for value in sorted({*lost, *won} - {0}):
        name = table.covering([value])[value].name
        ml = (won.get(value, 0) - lost.get(value, 0)) * geometry.voxel_volume_ml
        parts.append(f"{name} {ml:+.2f} ml".replace("-", "\N{MINUS SIGN}"))
    count = len(change)
    return f"{change.what}: {count:,} voxel{'s' if count != 1 else ''}; {', '.join(parts)}"
