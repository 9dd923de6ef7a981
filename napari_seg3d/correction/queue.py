"""Which case next, and why: the review list of a dataset, its order, and what the review has cost so far."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from math import inf, nan
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ..cases.case import CaseFiles
from ..cases.checked import VoxelBox, checked_mask, read_checked
from ..cases.corrections import Correction, versions
from ..cases.names import natural_key
from ..comparison.overlap import joint_histogram, kappa, overlap
from ..errors import CorrectionError, FileError, GeometryError
from ..volumes.atomic import write_text_whole
from ..volumes.files import inspect_file
from ..volumes.volume import LabelMap

FORMAT = "napari-seg3d review"
FILE_NAME = "review.json"
Order = Literal["hand", "quality", "certainty", "uncertainty", "age"]
#: Another window writes for some milliseconds; whoever waits longer is told.
_WAIT_S = 5.0


class State(StrEnum):
    """How far the review of a case is."""

    TO_DO = "to do"
    IN_PROGRESS = "in progress"
    CHECKED = "checked"
    FLAGGED = "flagged"


@dataclass(frozen=True)
class Review:
    """What is known of one case: its state, a comment, who said so and when (ISO 8601, UTC)."""

    state: State = State.TO_DO
    comment: str = ""
    author: str = ""
    date: str = ""


@dataclass(frozen=True)
class Facts:
    """What an order can go by; what is not known is None.

    Parameters
    ----------
    quality : float, optional
        Predicted or measured quality, for example a Dice; low ones come first.
    uncertainty : float, optional
        Of the prediction; high ones come first.
    predicted : str, optional
        When the prediction's model was made (ISO 8601); old ones come first.
    """

    quality: float | None = None
    uncertainty: float | None = None
    predicted: str | None = None


@dataclass(frozen=True)
class Effort:
    """What one case has cost.

    Parameters
    ----------
    case_id : str
    versions : int
    minutes : float
        Over all versions.
    changed_ml : float
        Volume of the voxels that changed label, over all versions; NaN if a sidecar is missing.
    """

    case_id: str
    versions: int
    minutes: float
    changed_ml: float

    @property
    def minutes_per_ml(self) -> float:
        """Minutes for each ml changed; NaN where nothing changed."""
        return self.minutes / self.changed_ml if self.changed_ml > 0 else nan


@dataclass(frozen=True)
class Agreement:
    """How far two raters agree on one case.

    Parameters
    ----------
    by_label : mapping of str to float
        Name -> Dice; 1 where neither has it, 0 where one has.
    kappa : float
        Cohen's kappa over all voxels, background being a class; 1 where both are empty (Cohen 1960,
        doi:10.1177/001316446002000104). Agreement on background counts as chance, so it does not flatter.
    first_ml, second_ml : mapping of str to float
        Volumes by name.
    """

    by_label: Mapping[str, float]
    kappa: float
    first_ml: Mapping[str, float] = field(repr=False)
    second_ml: Mapping[str, float] = field(repr=False)


class ReviewList:
    """The states of all cases of a dataset, in one JSON file beside its corrections.

    Each change takes a lock, reads the file again, changes one case and writes the file whole. So two windows never
    lose each other's states; of two that set the same case at once, the later one counts.

    Parameters
    ----------
    folder : Path
        The folder of the corrections; made when something is written.
    case_ids : sequence of str
        The cases of the dataset. The file may know others, which are kept.

    Raises
    ------
    FileError
        If the file cannot be understood.
    """

    def __init__(self, folder: Path, case_ids: Sequence[str]) -> None:
        self.path = folder / FILE_NAME
        self._case_ids = tuple(dict.fromkeys(case_ids))
        self._by_hand: tuple[str, ...] = ()
        self._reviews: dict[str, Review] = {}
        self._order = sorted(self._case_ids, key=natural_key)
        self.refresh()

    def refresh(self) -> bool:
        """Read the file again; True if another window has changed something."""
        by_hand, reviews = _read(self.path)
        changed = (by_hand, reviews) != (self._by_hand, self._reviews)
        self._by_hand, self._reviews = by_hand, reviews
        return changed

    def __getitem__(self, case_id: str) -> Review:
        return self._reviews.get(case_id, Review())

    def counts(self) -> dict[State, int]:
        """Return the number of cases in each state."""
        return {state: sum(self[case_id].state is state for case_id in self._case_ids) for state in State}

    def set(self, case_id: str, state: State | str, *, comment: str | None = None, author: str = "") -> Review:
        """Set the state of a case and return what is known of it now.

        Parameters
        ----------
        case_id : str
            One of the dataset.
        state : State or str
        comment : str, optional
            Without it the comment stays.
        author : str

        Raises
        ------
        CorrectionError
            If the case is not of this dataset, or another window keeps the file locked.
        FileError
            If the file cannot be written.
        """
        if case_id not in self._case_ids:
            raise CorrectionError(f"There is no case {case_id} in this dataset.")
        date = datetime.now(UTC).isoformat(timespec="seconds")

        def change() -> None:
            words = self[case_id].comment if comment is None else comment
            self._reviews[case_id] = Review(State(state), words, author, date)

        self._write(change)
        return self[case_id]

    def move(self, case_id: str, place: int) -> None:
        """Put a case at a place (from 0) of the order by hand.

        Raises
        ------
        CorrectionError, FileError
            As `set`.
        """
        if case_id not in self._case_ids:
            raise CorrectionError(f"There is no case {case_id} in this dataset.")

        def change() -> None:
            others = [other for other in self._hand_order() if other != case_id]
            others.insert(place, case_id)
            self._by_hand = tuple(others)

        self._write(change)

    def arrange(self, by: Order, facts: Mapping[str, Facts] | None = None) -> tuple[str, ...]:
        """Set the order in which `next_after` goes on, and return it.

        Parameters
        ----------
        by : {"hand", "quality", "certainty", "uncertainty", "age"}
            As moved by hand (cases never moved come last, by name), lowest quality first, lowest uncertainty first,
            highest uncertainty first, or oldest model first. Of equal cases the name decides; those of which nothing is
            known come last.
        facts : mapping of str to Facts, optional
            By case id.
        """
        known = facts or {}
        first: Mapping[str, Callable[[Facts], Any]] = {
            "quality": lambda fact: inf if fact.quality is None else fact.quality,
            "certainty": lambda fact: inf if fact.uncertainty is None else fact.uncertainty,
            "uncertainty": lambda fact: inf if fact.uncertainty is None else -fact.uncertainty,
            # "~" comes after every digit.
            "age": lambda fact: "~" if fact.predicted is None else fact.predicted,
        }
        if by == "hand":
            self._order = self._hand_order()
        elif by in first:
            names = sorted(self._case_ids, key=natural_key)
            self._order = sorted(names, key=lambda case_id: first[by](known.get(case_id, Facts())))
        else:
            raise CorrectionError(f"Expected an order by {', '.join(('hand', *first))}, got {by!r}.")
        return tuple(self._order)

    @property
    def order(self) -> tuple[str, ...]:
        """All cases in the order arranged last; at first by name."""
        return tuple(self._order)

    def next_after(self, case_id: str | None = None) -> str | None:
        """Return the next case that is to do or in progress, from the beginning again after the last.

        Parameters
        ----------
        case_id : str, optional
            Where one is; without it, before the first.

        Returns
        -------
        str or None
            None if no other case is left to do.
        """
        start = self._order.index(case_id) + 1 if case_id in self._order else 0
        around = self._order[start:] + self._order[:start]
        return next((one for one in around if one != case_id and self._is_open(one)), None)

    def _is_open(self, case_id: str) -> bool:
        return self[case_id].state in (State.TO_DO, State.IN_PROGRESS)

    def _hand_order(self) -> list[str]:
        moved = [case_id for case_id in self._by_hand if case_id in self._case_ids]
        return moved + sorted(set(self._case_ids) - set(moved), key=natural_key)

    def _write(self, change: Callable[[], None]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_name(f".{FILE_NAME}.lock"), timeout=_WAIT_S):
                self.refresh()
                change()
                facts = {
                    "format": FORMAT,
                    "order": list(self._by_hand),
                    "cases": {
                        case_id: {
                            "state": review.state.value,
                            "comment": review.comment,
                            "author": review.author,
                            "date": review.date,
                        }
                        for case_id, review in sorted(self._reviews.items(), key=lambda item: natural_key(item[0]))
                    },
                }
                write_text_whole(self.path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        except Timeout:
            raise CorrectionError(f"Another window keeps {FILE_NAME} locked. Try again.") from None
        except FileError:
            raise
        except OSError as error:
            raise FileError(f"Cannot write {FILE_NAME}: {error.strerror or error}.") from error


def checked_cases(cases: Sequence[CaseFiles], folder: Path) -> tuple[CaseFiles, ...]:
    """Return the cases that a model may learn from: those that a person has checked, as a whole or in part.

    These are the cases whose state is "checked", and those in progress of whose newest correction some slices are
    marked; where nobody has kept a review list, all that were corrected.

    Parameters
    ----------
    cases : sequence of CaseFiles
        With their newest corrections (`napari_seg3d.cases.dataset.open_dataset`).
    folder : Path
        The folder of the corrections.

    Raises
    ------
    FileError
        If the review list or a note of marked slices cannot be understood.
    """
    if not (folder / FILE_NAME).is_file():
        return tuple(case for case in cases if case.corrected is not None)
    reviews = ReviewList(folder, [case.id for case in cases])
    return tuple(
        case for case in cases if case.best_truth is not None and _may_be_learned(case, reviews[case.id].state)
    )


def _may_be_learned(case: CaseFiles, state: State) -> bool:
    if state is State.CHECKED:
        return True
    return state is State.IN_PROGRESS and case.corrected is not None and bool(read_checked(case.corrected))


# ---------------------------------------------------------------------------------------------------- checked slices


def slices_checked(boxes: Sequence[VoxelBox], shape: tuple[int, int, int], axis: int) -> NDArray[np.bool_]:
    """Return which slices across an axis were checked as a whole: (slices,) bool."""
    others = tuple(a for a in range(3) if a != axis)
    return np.asarray(checked_mask(boxes, shape).all(axis=others))


def with_slice(
    boxes: Sequence[VoxelBox], shape: tuple[int, int, int], axis: int, number: int, *, checked: bool = True
) -> tuple[VoxelBox, ...]:
    """Return the boxes with one slice marked as checked, or no longer so; for `cases.checked.write_checked`.

    Parameters
    ----------
    boxes : sequence of boxes
        First voxel and end along X, Y, Z; those across the slice are cut in two where it is taken out.
    shape : (int, int, int)
    axis : int
        Across which the slice lies.
    number : int
        From 0.

    Raises
    ------
    CorrectionError
        If there is no such slice.

    Examples
    --------
    >>> marked = with_slice(with_slice((), (4, 5, 6), 2, 1), (4, 5, 6), 2, 2)
    >>> marked
    (((0, 4), (0, 5), (1, 3)),)
    >>> with_slice(marked, (4, 5, 6), 2, 1, checked=False)
    (((0, 4), (0, 5), (2, 3)),)
    """
    if not 0 <= number < shape[axis]:
        raise CorrectionError(f"There is no slice {number} among {shape[axis]}.")
    pieces = [piece for box in boxes for piece in _without(box, axis, number)]
    if checked:
        x, y, z = ((number, number + 1) if a == axis else (0, size) for a, size in enumerate(shape))
        pieces.append((x, y, z))
    return _joined(pieces, axis)


def _without(box: VoxelBox, axis: int, number: int) -> Iterable[VoxelBox]:
    start, end = box[axis]
    for low, high in ((start, min(end, number)), (max(start, number + 1), end)):
        if low < high:
            x, y, z = ((low, high) if a == axis else side for a, side in enumerate(box))
            yield x, y, z


def _joined(boxes: list[VoxelBox], axis: int) -> tuple[VoxelBox, ...]:
    """Boxes that follow one another along an axis, as one: hundreds of slices stay one line in the file."""
    # The sides across the axis first, so that boxes to be joined are neighbours.
    boxes = sorted(set(boxes), key=lambda box: ([side for a, side in enumerate(box) if a != axis], box[axis]))
    joined = boxes[:1]
    for before, box in pairwise(boxes):
        last = joined[-1]
        same = all(before[a] == box[a] for a in range(3) if a != axis)
        if same and box[axis][0] <= last[axis][1]:
            end = max(last[axis][1], box[axis][1])
            x, y, z = ((last[axis][0], end) if a == axis else side for a, side in enumerate(box))
            joined[-1] = (x, y, z)
        else:
            joined.append(box)
    return tuple(joined)


# ---------------------------------------------------------------------------------------------------- effort, agreement


def effort(folder: Path, case_ids: Iterable[str]) -> tuple[Effort, ...]:
    """Return what every corrected case has cost so far, from the histories of its corrections.

    Parameters
    ----------
    folder : Path
        The folder of the corrections.
    case_ids : iterable of str
        Cases without a correction are left out.

    Raises
    ------
    DatasetError
        If a sidecar is damaged.
    FileError
        If a correction cannot be read.
    """
    efforts = []
    for case_id in case_ids:
        found = versions(folder, case_id)
        if found:
            voxel_ml = inspect_file(found[-1].path).geometry.voxel_volume_ml
            voxels = sum(_changed_voxels(version) for version in found)
            minutes = sum(version.seconds for version in found) / 60
            efforts.append(Effort(case_id, len(found), minutes, voxels * voxel_ml))
    return tuple(efforts)


def _changed_voxels(version: Correction) -> float:
    if version.voxels is not None:
        return float(version.voxels)
    if version.changed is None:
        return nan
    # Older sidecars do not tell it: at least so many.
    added = sum(plus for plus, _ in version.changed.values())
    removed = sum(minus for _, minus in version.changed.values())
    return float(max(added, removed))


def agreement(first: LabelMap, second: LabelMap) -> Agreement:
    """Return how far two raters agree; where they do not, `LiveComparison` and `disagreement_stops` step through.

    Raises
    ------
    GeometryError
        If the maps do not lie on one grid.

    Examples
    --------
    >>> from napari_seg3d.volumes.geometry import Geometry
    >>> grid = Geometry((1, 2, 3), np.eye(4))
    >>> one = LabelMap(np.array([[[1, 1, 2], [0, 0, 0]]]), grid)
    >>> other = LabelMap(np.array([[[1, 2, 2], [0, 0, 0]]]), grid)
    >>> between = agreement(one, other)
    >>> {name: round(dice, 2) for name, dice in between.by_label.items()}, round(between.kappa, 2)
    ({'label 1': 0.67, 'label 2': 0.67}, 0.74)
    """
    if difference := first.geometry.difference(second.geometry):
        raise GeometryError(f"Two raters can be compared only on one grid ({difference}).")
    values, counts = joint_histogram(first.data, second.data)
    table = first.table.covering(second.table.values).covering(values[values > 0].tolist())
    by_label = {score.name: score.dice for score in overlap(first.data, second.data, tuple(table))}
    voxel_ml = first.geometry.voxel_volume_ml
    place = {int(value): number for number, value in enumerate(values)}
    first_ml, second_ml = (
        {label.name: float(sums[place[label.value]]) * voxel_ml if label.value in place else 0.0 for label in table}
        for sums in (counts.sum(axis=1), counts.sum(axis=0))
    )
    return Agreement(by_label, kappa(counts), first_ml, second_ml)


def _read(path: Path) -> tuple[tuple[str, ...], dict[str, Review]]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return (), {}
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"Cannot read {path.name}: {error}.") from error
    try:
        facts = json.loads(text)
        if facts["format"] != FORMAT:
            raise ValueError("another format")
        reviews = {
            str(case_id): Review(
                State(one["state"]), *(str(one.get(name, "")) for name in ("comment", "author", "date"))
            )
            for case_id, one in facts["cases"].items()
        }
        return tuple(str(case_id) for case_id in facts.get("order", ())), reviews
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileError(
            f"Expected the states of a review in {path}; it cannot be understood ({error}). Repair it, or move it away."
        ) from None
