"""What a dataset is like: grids, intensities and label volumes, gathered once so that a plan can follow from it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import DatasetError
from ..events import Event, Finished, Progress, job
from ..volumes.volume import LabelTable, distinct_values
from .case import Case, CaseFiles
from .labels import Region, regions_for

if TYPE_CHECKING:
    from pydantic import ConfigDict, TypeAdapter

#: Voxels drawn from each case for the intensities over all cases: every case weighs the same, memory stays small.
_SAMPLES = 20_000
#: A value that more than this part of the border has is the background's.
_BORDER_SHARE = 0.5


@dataclass(frozen=True)
class Intensities:
    """Intensities of one modality inside the foreground; `low` and `high` are the 0.5 and 99.5 percentiles."""

    mean: float
    std: float
    median: float
    low: float
    high: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Intensities:
        """Return those of an array of at least one voxel."""
        values = values.astype(np.float64, copy=False)
        low, median, high = np.percentile(values, (0.5, 50, 99.5))
        numbers = (values.mean(), values.std(), median, low, high, values.min(), values.max())
        return cls(*(float(number) for number in numbers))


@dataclass(frozen=True)
class CaseFacts:
    """What one case is like.

    Parameters
    ----------
    id : str
    shape : (int, int, int)
        Voxels along X, Y, Z of the file.
    spacing_mm : (float, float, float)
        Along X, Y, Z of the file.
    orientation : str
        Where X, Y, Z point, for example ``"LPS"``.
    cropped_shape : (int, int, int)
        Voxels of the smallest box around the foreground, in RAS order (left-right, back-front, down-up).
    foreground_fraction : float
        Part of the voxels that are foreground.
    labelled : bool
        Whether the case has a truth.
    label_volumes_ml : mapping of int to float
        Label value -> volume; only the values that occur.
    intensities : mapping of str to Intensities
        By modality.
    """

    id: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    cropped_shape: tuple[int, int, int]
    foreground_fraction: float
    labelled: bool
    label_volumes_ml: Mapping[int, float]
    intensities: Mapping[str, Intensities]

    @property
    def ras_shape(self) -> tuple[int, int, int]:
        """Voxels along left-right, back-front, down-up."""
        x, y, z = (self.shape[axis] for axis in ras_axes(self.orientation))
        return x, y, z

    @property
    def ras_spacing_mm(self) -> tuple[float, float, float]:
        """Spacing along left-right, back-front, down-up."""
        x, y, z = (self.spacing_mm[axis] for axis in ras_axes(self.orientation))
        return x, y, z


@dataclass(frozen=True)
class Fingerprint:
    """What a dataset is like. Sizes over all cases are in RAS order: left-right, back-front, down-up.

    Parameters
    ----------
    modalities : tuple of str
        What every case has, in the order of the first.
    table : LabelTable
        Every label that is named or occurs.
    regions : tuple of Region, optional
        Nested regions if the labels' meaning is known.
    cases : tuple of CaseFacts
    intensities : mapping of str to Intensities
        By modality over all cases, every case weighing the same.
    label_intensities : mapping of str to Intensities
        The same for labelled voxels only; empty if there are none.
    """

    # Read by pydantic: a fingerprint with keys that we do not know was made by something else.
    __pydantic_config__: ClassVar[ConfigDict] = {"extra": "forbid"}

    modalities: tuple[str, ...]
    table: LabelTable
    regions: tuple[Region, ...] | None
    cases: tuple[CaseFacts, ...]
    intensities: Mapping[str, Intensities]
    label_intensities: Mapping[str, Intensities] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of cases."""
        return len(self.cases)

    @property
    def median_shape(self) -> tuple[int, int, int]:
        """Median number of voxels of the whole volumes."""
        return _median_size([case.ras_shape for case in self.cases])

    @property
    def median_cropped_shape(self) -> tuple[int, int, int]:
        """Median number of voxels of the foreground's box."""
        return _median_size([case.cropped_shape for case in self.cases])

    @property
    def median_spacing_mm(self) -> tuple[float, float, float]:
        """Median spacing of each axis."""
        x, y, z = np.median([case.ras_spacing_mm for case in self.cases], axis=0)
        return float(x), float(y), float(z)

    @property
    def median_volumes_ml(self) -> dict[int, float]:
        """Median volume of each label of the table over the labelled cases; 0 where a case lacks it."""
        labelled = [case.label_volumes_ml for case in self.cases if case.labelled]
        return {v: float(np.median([c.get(v, 0.0) for c in labelled])) if labelled else 0.0 for v in self.table.values}

    def to_json(self) -> str:
        """Return the fingerprint as JSON text."""
        return _adapter().dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str) -> Fingerprint:
        """Return the fingerprint that a JSON text holds.

        Raises
        ------
        DatasetError
            If it is no JSON, lacks something, or holds something we do not know.
        """
        from pydantic import ValidationError

        try:
            return _adapter().validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            message = f"Expected a fingerprint as JSON; {where or 'it'} is not as it should be ({first['msg']})."
            raise DatasetError(message) from error


@job
def fingerprint(cases: Sequence[CaseFiles | Case], *, regions: Sequence[Region] | None = None) -> Iterator[Event]:
    """Read every case once and tell what the dataset is like.

    Parameters
    ----------
    cases : sequence of CaseFiles or Case
        At least one; all with the same modalities, with or without truth.
    regions : sequence of Region, optional
        Those of the dataset, if it declares some; else they follow from the label names.

    Yields
    ------
    Progress
        After each case.
    Finished
        Its result is a `Fingerprint`.

    Raises
    ------
    DatasetError
        (as Failed) If there is no case, or two have different modalities.
    """
    if not cases:
        raise DatasetError("Expected at least one case to plan for, got none.")
    modalities = tuple(cases[0].modalities)
    started = time.monotonic()
    facts: list[CaseFacts] = []
    samples: dict[str, list[NDArray[Any]]] = {name: [] for name in modalities}
    of_labels: dict[str, list[NDArray[Any]]] = {name: [] for name in modalities}
    table = LabelTable()
    yield Progress("Reading cases", 0, len(cases))
    for i, entry in enumerate(cases):
        if set(entry.modalities) != set(modalities):
            raise DatasetError(
                f"Expected {', '.join(modalities)} in every case, as {cases[0].id} has; "
                f"{entry.id} has {', '.join(entry.modalities)}. Leave it out or complete it."
            )
        case = entry.load()
        mask = foreground_mask(case)
        facts.append(_facts(case, mask))
        rng = np.random.default_rng(i)
        for name in modalities:
            samples[name].append(rng.choice(case.modalities[name].data[mask], _SAMPLES))
        labelled = None if case.truth is None else case.truth.data > 0
        if labelled is not None and labelled.any():
            for name in modalities:
                of_labels[name].append(rng.choice(case.modalities[name].data[labelled], _SAMPLES))
        table = _joined(table, case, entry)
        elapsed = time.monotonic() - started
        yield Progress("Reading cases", i + 1, len(cases), elapsed / (i + 1) * (len(cases) - i - 1))
    over_all = {name: Intensities.of(np.concatenate(values)) for name, values in samples.items()}
    inside_labels = {name: Intensities.of(np.concatenate(values)) for name, values in of_labels.items() if values}
    nested = tuple(regions) if regions is not None else regions_for(table)
    result = Fingerprint(modalities, table, nested, tuple(facts), over_all, inside_labels)
    yield Finished(result, f"{len(cases)} cases were read.", time.monotonic() - started)


def foreground_mask(case: Case) -> NDArray[np.bool_]:
    """Return where the head, or what else was imaged, is.

    This is the case's own mask if it has one. Else it is every voxel that is not constant background in all modalities:
    the value that most of the border has, whatever it is (0, or negative after somebody's normalisation), as far as it
    reaches in from the border, so that dark holes inside stay foreground. Where a modality has no such background
    (noisy air, a cropped volume), everything is foreground.

    Parameters
    ----------
    case : Case

    Returns
    -------
    (X, Y, Z) bool ndarray
        Never all False.
    """
    if case.mask is not None and case.mask.any():
        return case.mask
    background = np.ones(case.geometry.shape, dtype=bool)
    for volume in case.modalities.values():
        value = _background_value(volume.data)
        if value is None:
            return np.ones(case.geometry.shape, dtype=bool)
        background &= volume.data == value
    outside = _reached_from_border(background)
    return np.ones_like(outside) if outside.all() else ~outside


def ras_axes(orientation: str) -> tuple[int, int, int]:
    """Which voxel axis runs left-right, back-front, down-up.

    Examples
    --------
    >>> ras_axes("PIR")
    (2, 0, 1)
    """
    x, y, z = (next(i for i, code in enumerate(orientation) if code in pair) for pair in ("RL", "AP", "SI"))
    return x, y, z


def _facts(case: Case, mask: NDArray[np.bool_]) -> CaseFacts:
    geometry = case.geometry
    box = [int(np.ptp(np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))))) + 1 for axis in range(3)]
    right, front, up = ras_axes(geometry.orientation)
    volumes: dict[int, float] = {}
    if case.truth is not None:
        values = [int(value) for value in distinct_values(case.truth.data) if value != 0]
        volumes = {value: case.truth.volume_ml(value) for value in values}
    return CaseFacts(
        id=case.id,
        shape=geometry.shape,
        spacing_mm=geometry.spacing_mm,
        orientation=geometry.orientation,
        cropped_shape=(box[right], box[front], box[up]),
        foreground_fraction=float(mask.mean()),
        labelled=case.truth is not None,
        label_volumes_ml=volumes,
        intensities={name: Intensities.of(volume.data[mask]) for name, volume in case.modalities.items()},
    )


def _joined(table: LabelTable, case: Case, entry: CaseFiles | Case) -> LabelTable:
    """The table with the names that a case adds: what its dataset names, and what occurs in its truth."""
    known = (
        case.truth.table if case.truth is not None else entry.table if isinstance(entry, CaseFiles) else LabelTable()
    )
    more = [label for label in known if label.value not in table.values]
    return LabelTable((*table, *more)) if more else table


def _background_value(data: NDArray[Any]) -> float | None:
    """The value that more than half of the border voxels have, or None."""
    faces = [np.take(data, end, axis).ravel() for axis in range(3) for end in (0, -1)]
    values, counts = np.unique(np.concatenate(faces), return_counts=True)
    most = int(counts.argmax())
    return values[most].item() if counts[most] > _BORDER_SHARE * counts.sum() else None


def _reached_from_border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts of a mask that touch the border of the volume (neighbours share a face)."""
    parts, count = ndimage.label(mask)
    touching = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        for end in (0, -1):
            touching[np.unique(np.take(parts, end, axis))] = True
    touching[0] = False
    reached: NDArray[np.bool_] = touching[parts]
    return reached


def _median_size(shapes: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    x, y, z = np.median(shapes, axis=0)
    return round(float(x)), round(float(y)), round(float(z))


def _adapter() -> TypeAdapter[Fingerprint]:
    # Imported here because opening a dataset must not wait for pydantic.
    from pydantic import TypeAdapter

    return TypeAdapter(Fingerprint)
