"""Where a corrector should look next: disagreements, uncertain regions, and parts that cannot be right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_fill_holes

from ..comparison.difference import MISSED, WRONG_CLASS, Disagreement, places_in
from ..comparison.surface import common_box
from ..errors import CorrectionError, GeometryError
from ..volumes.volume import LabelMap, LabelTable, Volume
from .change import Box, Change, Indices
from .combine import take
from .masks import ANYWHERE, Where, wider

UNCERTAIN, ISLAND, HOLE, BORDER = "uncertain", "island", "hole", "border"
#: Smaller connected parts than this are islands; larger ones may well be meant.
ISLAND_ML = 0.5
Order = Literal["largest", "slices"]


@dataclass(frozen=True, eq=False)
class Stop:
    """A connected place that deserves a look.

    Parameters
    ----------
    kind : str
        "missed", "added", "wrong class", "uncertain", "island", "hole" or "border".
    label : int
        The label it is about, to be selected for painting; 0 where there is none.
    volume_ml : float
    centre_voxel : (int, int, int)
        One of its voxels, the nearest to its centre of mass.
    box : (slice, slice, slice)
        The smallest box that holds it.
    indices : tuple of three (voxels,) intp ndarrays
        Its voxels.
    words : str
        For a list: "missed oedema, 0.42 ml".
    """

    kind: str
    label: int
    volume_ml: float
    centre_voxel: tuple[int, int, int]
    box: Box
    indices: Indices = field(repr=False)
    words: str


def disagreement_stops(
    places: Iterable[Disagreement], edited: LabelMap, other: LabelMap, *, raters: tuple[str, str] | None = None
) -> tuple[Stop, ...]:
    """Return a stop for every disagreement, in the order given.

    Its label is the one that the other map has there most often, or, where that has background, the edited map.

    Parameters
    ----------
    places : iterable of Disagreement
        From `napari_seg3d.comparison.live.LiveComparison.disagreements`, for example.
    edited, other : LabelMap
        The two maps.
    raters : (str, str), optional
        Whose maps they are, where neither is a truth. Nothing is "missed" or "added" then, but in one of them only.
    """
    table = other.table.covering(edited.table.values)
    stops = []
    for place in places:
        source = other if place.kind in (MISSED, WRONG_CLASS) else edited
        label = _most_frequent(source.data[place.indices])
        stop = _stop(place, place.what, label, table)
        if raters is not None:
            names = [_named(_most_frequent(one.data[place.indices]), table) for one in (edited, other)]
            who = list(zip(names, raters, strict=True))
            where = f"only in {raters[place.kind == MISSED]}"
            phrase = " but ".join(f"{name} in {rater}" for name, rater in who)
            phrase = phrase if place.kind == WRONG_CLASS else f"{_named(label, table)} {where}"
            stop = replace(stop, words=f"{phrase}, {_ml(place.volume_ml)}")
        stops.append(stop)
    return tuple(stops)


def uncertain_stops(
    uncertainty: Volume, labels: LabelMap, *, threshold: float = 0.5, smallest_ml: float = 0.0
) -> tuple[Stop, ...]:
    """Return the connected regions in which a model was unsure, the largest first.

    Parameters
    ----------
    uncertainty : Volume
        From 0 (certain) to 1 (undecided).
    labels : LabelMap
        On the same grid.
    threshold : float
        From which uncertainty on a voxel counts.
    smallest_ml : float
        Smaller regions are left out.

    Raises
    ------
    GeometryError
        If the two do not lie on one grid.
    """
    if difference := labels.geometry.difference(uncertainty.geometry):
        raise GeometryError(f"The uncertainty does not lie on the grid of the labels ({difference}).")
    unsure = uncertainty.data >= threshold
    box = common_box(unsure)
    if box is None:
        return ()
    places = places_in(unsure[box].view(np.uint8), box, labels.geometry)
    stops = (
        _stop(place, UNCERTAIN, _most_frequent(labels.data[place.indices], foreground=True), labels.table)
        for place in places
        if place.volume_ml >= smallest_ml
    )
    return in_order(stops, "largest")


def implausible_stops(labels: LabelMap, *, island_ml: float = ISLAND_ML) -> tuple[Stop, ...]:
    """Return islands, holes and parts cut off by the border of the image, the largest first.

    - An island is a connected part of a label (a shared corner connects) of less than `island_ml`, unless it is the
      largest of its label.
    - A hole is background that cannot be left through faces without crossing a label.
    - A part at the border has a voxel in the first or last slice along an axis, where the image may have cut it off.
    """
    box = common_box(labels.data != 0)
    if box is None:
        return ()
    parts = places_in(labels.data[box], box, labels.geometry, connectivity=3)
    largest: dict[int, int] = {}
    for part in parts:
        largest[part.kind] = max(largest.get(part.kind, 0), part.voxels)
    stops = []
    for part in parts:
        if part.voxels < largest[part.kind] and part.volume_ml < island_ml:
            stops.append(_stop(part, ISLAND, part.kind, labels.table))
        elif any(side.start == 0 or side.stop == size for side, size in zip(part.box, labels.data.shape, strict=True)):
            stops.append(_stop(part, BORDER, part.kind, labels.table))
    inside = labels.data[box] != 0
    holes = binary_fill_holes(inside) & ~inside
    for hole in places_in(holes.view(np.uint8), box, labels.geometry):
        stops.append(_stop(hole, HOLE, _most_frequent(_around(hole.indices, hole.box, labels.data)), labels.table))
    return in_order(stops, "largest")


def in_order(stops: Iterable[Stop], order: Order, *, axis: int = 2) -> tuple[Stop, ...]:
    """Return stops with the largest first, or by the slice of their centre across an axis."""
    if order == "largest":
        return tuple(sorted(stops, key=lambda stop: -stop.volume_ml))
    return tuple(sorted(stops, key=lambda stop: (stop.centre_voxel[axis], -stop.volume_ml)))


def position_in_words(stops: Sequence[Stop], number: int) -> str:
    """Where one is in a list, in words: "12 of 37, 4.1 ml left"; `number` counts from 0 and is still to do."""
    if not stops:
        return "nothing left"
    left_ml = sum(stop.volume_ml for stop in stops[number:])
    return f"{number + 1} of {len(stops)}, {_ml(left_ml)} left"


def accept(stop: Stop, labels: NDArray[Any], version: NDArray[Any], *, where: Where = ANYWHERE) -> Change:
    """Return the change that takes another map's version of a stop: the truth's, a prediction's, the other rater's.

    Parameters
    ----------
    stop : Stop
    labels, version : (X, Y, Z) integer ndarray
        The map that is corrected, and the one to take from.
    where : Where
        What may be changed.

    Raises
    ------
    LabelError, GeometryError
        If the maps do not fit together.
    """
    return replace(take(labels, version, stop.indices, where=where), what=f"Take the other version: {stop.words}")


def mend(stop: Stop, labels: NDArray[Any], *, where: Where = ANYWHERE) -> Change:
    """Return the change that mends an implausible part: an island becomes what is around it, a hole is filled.

    Raises
    ------
    CorrectionError
        For other kinds of stops: nobody can say what is right there without looking.
    """
    if stop.kind == ISLAND:
        new, what = _most_frequent(_around(stop.indices, stop.box, labels)), f"Remove the {stop.words}"
    elif stop.kind == HOLE:
        new, what = stop.label, f"Fill the {stop.words}"
    else:
        raise CorrectionError(f"Only islands and holes can be mended, not what is {stop.words}.")
    # What was painted meanwhile stays.
    old = labels[stop.indices]
    values = np.full(old.shape, new, labels.dtype)
    keep = (old == (stop.label if stop.kind == ISLAND else 0)) & (old != values)
    keep &= where.allows(stop.indices, old, values)
    x, y, z = (places[keep] for places in stop.indices)
    return Change((x, y, z), values[keep], what)


def _stop(place: Disagreement, kind: str, label: int, table: LabelTable) -> Stop:
    name = _named(label, table)
    phrases = {ISLAND: f"island of {name}", HOLE: f"hole in {name}", BORDER: f"{name} at the border of the image"}
    phrase = phrases.get(kind, f"{kind} {name}".rstrip())
    words = f"{phrase}, {_ml(place.volume_ml)}"
    return Stop(kind, label, place.volume_ml, place.centre_voxel, place.box, place.indices, words)


def _named(label: int, table: LabelTable) -> str:
    return table.covering([label])[label].name if label else ""


def _ml(volume_ml: float) -> str:
    return f"{volume_ml:.1f} ml" if volume_ml >= 1 else f"{volume_ml:.2g} ml"


def _most_frequent(labels: NDArray[Any], *, foreground: bool = False) -> int:
    """Return the label that occurs most often, the smallest of several; background only where there is nothing else."""
    values, counts = np.unique(labels[labels != 0] if foreground else labels, return_counts=True)
    return int(values[np.argmax(counts)]) if len(values) else 0


def _around(indices: Indices, box: Box, labels: NDArray[Any]) -> NDArray[Any]:
    """Labels of the voxels that touch a part with a face."""
    outer = wider(box, (1, 1, 1), labels.shape)
    part = np.zeros([side.stop - side.start for side in outer], np.bool_)
    part[tuple(places - side.start for places, side in zip(indices, outer, strict=True))] = True
    ring: NDArray[Any] = labels[outer][binary_dilation(part) & ~part]
    return ring
