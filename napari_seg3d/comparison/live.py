"""Two label maps compared while one of them is being edited: every stroke costs what it changed, not a whole volume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cases.labels import Region
from ..errors import CorrectionError, GeometryError
from ..volumes.volume import Label, LabelMap
from .difference import ADDED, MISSED, WRONG_CLASS, Disagreement, places_in
from .overlap import dice, joint_histogram, kappa
from .surface import common_box

#: Places of voxels: ``array[indices]`` picks them.
_Indices = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]
_Box = tuple[slice, slice, slice]
_KINDS = (MISSED, ADDED, WRONG_CLASS)
#: A pair of label values is counted under one number: edited value times this, plus the other's.
_PAIR = 1 << 31


@dataclass(frozen=True)
class LiveScore:
    """How one class, or one region of several, stands at this moment.

    Parameters
    ----------
    name, values, color
        The class or region.
    dice : float
        With the other map; 1 where both are empty, 0 where one is.
    volume_ml : float
        In the edited map.
    change_ml : float
        How much more that is than in the map that was loaded.
    other_ml : float
        In the other map.
    """

    name: str
    values: tuple[int, ...]
    color: str
    dice: float
    volume_ml: float
    change_ml: float
    other_ml: float


@dataclass(frozen=True, eq=False)
class Edit:
    """Voxels that got another label: where, what stood there, what stands there now; each voxel once."""

    indices: _Indices = field(repr=False)
    old: NDArray[Any] = field(repr=False)
    new: NDArray[Any] = field(repr=False)

    def __len__(self) -> int:
        """Number of voxels."""
        return len(self.old)

    @property
    def box(self) -> _Box:
        """The smallest box that holds them."""
        x, y, z = (slice(int(places.min()), int(places.max()) + 1) for places in self.indices)
        return x, y, z


class LiveVolumes:
    """The volumes of a label map that is being edited and has nothing to be compared with.

    Parameters
    ----------
    edited : LabelMap
        As it is now; only counted.
    loaded : LabelMap, optional
        What the changes are measured against; by default `edited`.

    Examples
    --------
    >>> from napari_seg3d.volumes.geometry import Geometry
    >>> label_map = LabelMap(np.ones((2, 3, 4), np.uint8), Geometry((2, 3, 4), np.diag([5.0, 5, 40, 1])))
    >>> live = LiveVolumes(label_map)
    >>> live.changed(old=np.array([1, 1, 1]), new=np.array([2, 0, 2]))
    >>> [(one.name, round(one.volume_ml, 3), round(one.change_ml, 3)) for one in live.volumes()]
    [('label 1', 21.0, -3.0), ('label 2', 2.0, 2.0)]
    """

    def __init__(self, edited: LabelMap, loaded: LabelMap | None = None) -> None:
        self._table = edited.table
        self._voxel_ml = edited.geometry.voxel_volume_ml
        self._sizes = _value_counts(edited.data)
        self._loaded = dict(self._sizes) if loaded is None else _value_counts(loaded.data)

    def changed(self, old: NDArray[Any], new: NDArray[Any]) -> None:
        """Take over an edit: the labels before and after of the voxels that it changed."""
        for labels, sign in ((old, -1), (new, 1)):
            for value, count in _value_counts(labels).items():
                self._sizes[value] = self._sizes.get(value, 0) + sign * count

    def volumes(self) -> tuple[LiveScore, ...]:
        """Return the volume of every label, and how much more that is than was loaded; `dice` is not a number."""
        found = {value for sizes in (self._sizes, self._loaded) for value, count in sizes.items() if count}
        ml = self._voxel_ml
        return tuple(
            LiveScore(
                name=label.name,
                values=(label.value,),
                color=label.color,
                dice=nan,
                volume_ml=self._sizes.get(label.value, 0) * ml,
                change_ml=(self._sizes.get(label.value, 0) - self._loaded.get(label.value, 0)) * ml,
                other_ml=nan,
            )
            for label in self._table.covering(sorted(found - {0}))
        )


class LiveComparison:
    """A label map that is being edited beside another one: truth, another rater, another model, or itself as loaded.

    Built once, then told of every edit by `changed`, or asked to look for itself by `follow` (after an undo, which does
    not tell what it changed). All that it says equals a full comparison at that moment.

    Parameters
    ----------
    edited : LabelMap
        Its voxels are copied.
    other : LabelMap
        On the same grid; its voxels are not copied and must stay as they are. Without a truth, give the map as loaded.
    regions : sequence of Region
        To be scored beside the classes.
    loaded : LabelMap, optional
        What `change_ml` is measured against; by default `edited` as it is now.

    Raises
    ------
    GeometryError
        If the maps do not lie on one grid.

    Examples
    --------
    >>> from napari_seg3d.volumes.geometry import Geometry
    >>> truth = LabelMap(np.ones((2, 3, 4), np.uint8), Geometry((2, 3, 4), np.diag([5.0, 5, 40, 1])))
    >>> live = LiveComparison(truth.with_data(np.zeros((2, 3, 4), np.uint8)), truth)
    >>> place = (np.array([0, 0]), np.array([1, 2]), np.array([3, 3]))
    >>> box = live.changed(place, old=0, new=1)
    >>> score = live.scores()[0]
    >>> round(score.dice, 3), round(score.volume_ml, 3), round(live.left_ml, 3), len(live.disagreements())
    (0.154, 2.0, 22.0, 1)
    """

    def __init__(
        self, edited: LabelMap, other: LabelMap, *, regions: Sequence[Region] = (), loaded: LabelMap | None = None
    ) -> None:
        for one in (edited, *(() if loaded is None else (loaded,))):
            if difference := other.geometry.difference(one.geometry):
                raise GeometryError(f"Two label maps can be compared only on one grid ({difference}).")
        self.geometry = other.geometry
        #: (X, Y, Z) uint8: 0 agree, `MISSED`, `ADDED`, `WRONG_CLASS`; follows every edit in place. To be read only.
        self.difference: NDArray[np.uint8] = np.zeros(other.data.shape, np.uint8)
        self._edited = edited.data.copy(order="K")
        self._other = other.data
        self._table = other.table.covering(edited.table.values)
        self._regions = tuple(regions)
        self._pairs: dict[int, int] = {}
        inside = common_box((edited.data != 0) | (other.data != 0)) or (slice(0, 1),) * 3
        values, counts = joint_histogram(edited.data[inside], other.data[inside])
        for row, column in zip(*np.nonzero(counts), strict=True):
            self._pairs[int(values[row]) * _PAIR + int(values[column])] = int(counts[row, column])
        self._pairs[0] = self._pairs.get(0, 0) + other.data.size - int(counts.sum())
        self._loaded = self._sizes() if loaded is None else _value_counts(loaded.data)
        self._profiles: list[NDArray[np.int64]] = [
            np.zeros((self.difference.shape[axis], len(_KINDS)), np.int64) for axis in range(3)
        ]
        # Number of the place that a voxel belongs to; 0 for none.
        self._place_at: NDArray[np.int32] = np.zeros(self.difference.shape, np.int32)
        self._places: dict[int, tuple[int, Disagreement]] = {}
        self._next_number = 1
        self._ranked: tuple[Disagreement, ...] | None = None
        self._compare_all()

    # ------------------------------------------------------------------------------------------------ what it says

    def scores(self) -> tuple[LiveScore, ...]:
        """Return the scores of every class, then of every region."""
        sizes = self._sizes()
        table = self._table.covering(sorted({*sizes, *self._sizes(of_other=True)} - {0}))
        return tuple(self._score(of) for of in (*table, *self._regions))

    def profile(self, axis: int) -> NDArray[np.int64]:
        """Return the disagreeing voxels in every slice across an axis: (slices, 3), columns missed, added, wrong class.

        The same as `napari_seg3d.comparison.difference.slice_profile`, as a copy.
        """
        return self._profiles[axis].copy()

    def disagreements(self, *, smallest_ml: float = 0.0) -> tuple[Disagreement, ...]:
        """Return the connected disagreements, the largest first, as `difference.disagreements` does."""
        if smallest_ml > 0:
            # Noise has thousands of tiny places: sorting what is left takes no time.
            found = [item for item in self._places.values() if item[1].volume_ml >= smallest_ml]
            return tuple(place for _, place in sorted(found, key=_rank))
        if self._ranked is None:
            self._ranked = tuple(place for _, place in sorted(self._places.values(), key=_rank))
        return self._ranked

    def disagreement_at(self, voxel: Sequence[int]) -> Disagreement | None:
        """Return the disagreement that a voxel belongs to; None where the maps agree."""
        number = int(self._place_at[voxel[0], voxel[1], voxel[2]])
        return self._places[number][1] if number else None

    @property
    def left_ml(self) -> float:
        """Volume of all that still disagrees."""
        return int(self._profiles[0].sum()) * self.geometry.voxel_volume_ml

    @property
    def kappa(self) -> float:
        """Cohen's kappa of the two maps as two raters, see `overlap.kappa`."""
        used = {pair: count for pair, count in self._pairs.items() if count}
        values = sorted({value for pair in used for value in divmod(pair, _PAIR)})
        place = {value: number for number, value in enumerate(values)}
        counts = np.zeros((len(values), len(values)), np.int64)
        for pair, count in used.items():
            ours, theirs = divmod(pair, _PAIR)
            counts[place[ours], place[theirs]] = count
        return kappa(counts)

    # ------------------------------------------------------------------------------------------------ edits

    def changed(self, indices: Iterable[NDArray[Any]], old: Any, new: Any) -> _Box | None:
        """Take over an edit.

        Parameters
        ----------
        indices : three (voxels,) integer ndarrays
            Where, along X, Y, Z. A voxel that comes more than once is taken as painted in that order.
        old, new : (voxels,) integer ndarray or int
            The labels before and after.

        Returns
        -------
        (slice, slice, slice) or None
            The box in which the difference map is another than before.

        Raises
        ------
        CorrectionError
            If `old` is not what stood there: an edit was not told of. `follow` then puts it right.
        """
        x, y, z = (np.asarray(places, np.intp) for places in indices)
        old, new = np.broadcast_to(old, x.shape), np.broadcast_to(new, x.shape)
        flat = np.ravel_multi_index((x, y, z), self.difference.shape)
        if np.any(flat[1:] <= flat[:-1]):
            flat, first = np.unique(flat, return_index=True)
            # Of a voxel that was painted twice the first old and the last new label count.
            last = (
                len(x)
                - 1
                - np.unique(np.ravel_multi_index((x, y, z), self.difference.shape)[::-1], return_index=True)[1]
            )
            old, new = old[first], new[last]
            x, y, z = (np.asarray(places, np.intp) for places in np.unravel_index(flat, self.difference.shape))
        before = self._edited[x, y, z]
        if not np.array_equal(before, old):
            raise CorrectionError("The labels were edited without the comparison being told. Compare them anew.")
        after = new.astype(before.dtype)
        if not np.array_equal(after, new):
            raise CorrectionError(f"A new label does not fit into labels of type {before.dtype}. Compare them anew.")
        return self._take(Edit((x, y, z), before, after))

    def follow(self, edited: NDArray[Any], box: _Box | None = None) -> Edit | None:
        """Look for what was edited, take it over and return it; None if nothing was.

        Parameters
        ----------
        edited : (X, Y, Z) integer ndarray
            The whole label array as it is now.
        box : (slice, slice, slice), optional
            Where to look; by default everywhere, which takes some milliseconds for a study.
        """
        if edited.shape != self.difference.shape:
            raise GeometryError(f"Expected labels of shape {self.difference.shape}, got {edited.shape}.")
        if edited.dtype != self._edited.dtype:
            self._edited = self._edited.astype(np.promote_types(edited.dtype, self._edited.dtype))
        whole = (slice(None),) * 3 if box is None else box
        differs = edited[whole] != self._edited[whole]
        inner = common_box(differs)
        if inner is None:
            return None
        starts = [
            outer.indices(size)[0] + part.start for outer, size, part in zip(whole, edited.shape, inner, strict=True)
        ]
        x, y, z = (places + start for places, start in zip(np.nonzero(differs[inner]), starts, strict=True))
        edit = Edit((x, y, z), self._edited[x, y, z], edited[x, y, z])
        self._take(edit)
        return edit

    # ------------------------------------------------------------------------------------------------ counting

    def _sizes(self, *, of_other: bool = False) -> dict[int, int]:
        sizes: dict[int, int] = {}
        for pair, count in self._pairs.items():
            value = pair % _PAIR if of_other else pair // _PAIR
            if count:
                sizes[value] = sizes.get(value, 0) + count
        return sizes

    def _score(self, of: Label | Region) -> LiveScore:
        values = of.values if isinstance(of, Region) else (of.value,)
        ours = theirs = both = 0
        for pair, count in self._pairs.items():
            in_ours, in_theirs = pair // _PAIR in values, pair % _PAIR in values
            ours += count * in_ours
            theirs += count * in_theirs
            both += count * (in_ours and in_theirs)
        ml = self.geometry.voxel_volume_ml
        before = sum(self._loaded.get(value, 0) for value in values)
        return LiveScore(
            name=of.name,
            values=tuple(values),
            color=of.color,
            dice=dice(both, ours - both, theirs - both),
            volume_ml=ours * ml,
            change_ml=(ours - before) * ml,
            other_ml=theirs * ml,
        )

    def _take(self, edit: Edit) -> _Box | None:
        others = self._other[edit.indices].astype(np.int64)
        self._count(edit.old.astype(np.int64) * _PAIR + others, -1)
        self._count(edit.new.astype(np.int64) * _PAIR + others, 1)
        self._edited[edit.indices] = edit.new
        was = self.difference[edit.indices]
        becomes = _kinds(edit.new, self._other[edit.indices])
        moved = was != becomes
        if not moved.any():
            return None
        x, y, z = (places[moved] for places in edit.indices)
        self.difference[x, y, z] = becomes[moved]
        for profile, places in zip(self._profiles, (x, y, z), strict=True):
            profile += _by_slice(places, becomes[moved], len(profile)) - _by_slice(places, was[moved], len(profile))
        box = Edit((x, y, z), was, becomes).box
        self._find_places_again((x, y, z), box)
        return box

    def _count(self, pairs: NDArray[np.int64], sign: int) -> None:
        for pair, count in zip(*(found.tolist() for found in np.unique(pairs, return_counts=True)), strict=True):
            self._pairs[pair] = self._pairs.get(pair, 0) + sign * count

    def _compare_all(self) -> None:
        box = common_box(self._edited != self._other)
        if box is None:
            return
        part = self.difference[box]
        ours, theirs = self._edited[box], self._other[box]
        places = np.nonzero(ours != theirs)
        part[places] = _kinds(ours[places], theirs[places])
        for profile, along, side in zip(self._profiles, places, box, strict=True):
            profile[side] = _by_slice(along, part[places], side.stop - side.start)
        self._add_places(part, box)

    # ------------------------------------------------------------------------------------------------ places

    def _find_places_again(self, moved: _Indices, box: _Box) -> None:
        """Relabel the places that lost or won one of the moved voxels; all others stay what they are."""
        touched = np.unique(np.concatenate([self._place_at[moved], *self._numbers_beside(moved)])).tolist()
        self._place_at[moved] = 0
        for number in touched:
            if number:
                box = _around(box, self._places.pop(number)[1].box)
        numbers = self._place_at[box]
        # Voxels of no place that differ are the moved ones.
        is_touched = np.zeros(self._next_number, bool)
        is_touched[[0, *touched]] = True
        self._add_places(np.where(is_touched[numbers], self.difference[box], 0).astype(np.uint8, copy=False), box)

    def _numbers_beside(self, moved: _Indices) -> Iterable[NDArray[np.int32]]:
        kinds = self.difference[moved]
        for axis in range(3):
            for step in (-1, 1):
                along = moved[axis] + step
                beside = (along >= 0) & (along < self.difference.shape[axis]) & (kinds > 0)
                neighbours = tuple((along if a == axis else moved[a])[beside] for a in range(3))
                yield self._place_at[neighbours][self.difference[neighbours] == kinds[beside]]

    def _add_places(self, part: NDArray[np.uint8], box: _Box) -> None:
        self._ranked = None
        places = places_in(part, box, self.geometry)
        if not places:
            return
        # All at once: noise has thousands of places.
        sizes = [place.voxels for place in places]
        x, y, z = (np.concatenate([place.indices[axis] for place in places]) for axis in range(3))
        flat = np.ravel_multi_index((x, y, z), self.difference.shape)
        firsts = np.minimum.reduceat(flat, np.cumsum([0, *sizes[:-1]])).tolist()
        numbers = range(self._next_number, self._next_number + len(places))
        self._place_at.reshape(-1)[flat] = np.repeat(np.asarray(numbers, np.int32), sizes)
        self._places.update(zip(numbers, zip(firsts, places, strict=True), strict=True))
        self._next_number += len(places)


def _rank(item: tuple[int, Disagreement]) -> tuple[int, int]:
    """What places are sorted by: the largest first, of equal ones that with the first voxel."""
    return -item[1].voxels, item[0]


def _kinds(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.uint8]:
    """Kind of disagreement of single voxels, as in a difference map."""
    kinds = np.where(ours == 0, MISSED, np.where(theirs == 0, ADDED, WRONG_CLASS)).astype(np.uint8)
    kinds[ours == theirs] = 0
    return kinds


def _by_slice(along: NDArray[np.intp], kinds: NDArray[np.uint8], slices: int) -> NDArray[np.int64]:
    """Voxels of each kind in every slice: (slices, 3)."""
    columns = len(_KINDS) + 1
    counts = np.bincount(along * columns + kinds, minlength=slices * columns).reshape(slices, columns)
    return counts[:, 1:].astype(np.int64)


def _value_counts(data: NDArray[Any]) -> dict[int, int]:
    """How many voxels each label has; of a volume only the part is looked through that is labelled."""
    part = data
    if data.ndim == 3:
        part = data[common_box(data != 0) or (slice(0, 0),) * 3]
    if part.dtype == np.uint8:
        found = np.bincount(part.ravel("K"))
        counts = {value: int(found[value]) for value in np.flatnonzero(found).tolist()}
    else:
        values, numbers = np.unique(part, return_counts=True)
        counts = dict(zip(values.tolist(), numbers.tolist(), strict=True))
    if data.size > part.size:
        counts[0] = counts.get(0, 0) + data.size - part.size
    return counts


def _around(one: _Box, other: _Box) -> _Box:
    x, y, z = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return x, y, z
