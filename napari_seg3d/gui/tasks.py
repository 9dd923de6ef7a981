"""Small jobs of the window itself: generators of events for the worker, without Qt and without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cases.case import Case, CaseFiles
from ..cases.corrections import save_correction
from ..cases.dataset import open_dataset
from ..comparison.difference import Disagreement, difference_map, disagreements, slice_profile
from ..comparison.report import Scores, compare
from ..errors import FileError, GeometryError, Seg3dError
from ..events import Event, Finished, Progress, Saved, Warned, job
from ..volumes.files import read_label_map, read_volume, write_label_map
from ..volumes.volume import LabelMap, Volume
from .layers import Display, display_range, on_screen, warm_up

#: Voxels below which a disagreement is no place to go to; a noisy prediction has a hundred thousand of them.
SMALLEST_PLACE = 3


@dataclass(frozen=True, eq=False)
class OpenedCase:
    """A case in memory, how each of its modalities is shown, and its newest prediction by file, if there is one."""

    case: Case
    displays: Mapping[str, Display]
    predictions: Mapping[Path, LabelMap]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Scores of a prediction, and where it differs from its truth.

    `difference` is the (X, Y, Z) difference map, `profiles` holds for each axis of the screen (I, P, L) the missed,
    added and wrong-class voxels of every slice, `places` the connected disagreements of at least `SMALLEST_PLACE`
    voxels, the largest first.
    """

    scores: Scores
    difference: NDArray[np.uint8]
    profiles: tuple[NDArray[np.int64], ...]
    places: tuple[Disagreement, ...]


@job
def read_dataset(path: Path, corrections: Path) -> Iterator[Event]:
    """Open a dataset folder; Finished.result = Dataset."""
    yield Progress("looking for cases", 0)
    yield Finished(open_dataset(path, corrections=corrections))


@job
def load_case(files: CaseFiles, prediction: Path | None = None) -> Iterator[Event]:
    """Read a case and its prediction, and choose the contrast of its images; Finished.result = OpenedCase.

    A prediction that cannot be read or lies on another grid is told and left out.
    """
    yield Progress("reading", 0)
    warm_up()
    case = files.load()
    displays: dict[str, Display] = {}
    for name, volume in case.modalities.items():
        yield Progress("reading", len(displays) + 1, len(case.modalities) + 1)
        displays[name] = display_range(volume, case.mask)
    predictions = {}
    if prediction is not None:
        try:
            label_map = read_label_map(prediction, files.table)
            if difference := case.geometry.difference(label_map.geometry):
                raise GeometryError(f"it lies on another grid than the case ({difference}).")
            predictions[prediction] = label_map
        except Seg3dError as error:
            yield Warned(f"The prediction {prediction.name} is not shown: {error}")
    yield Finished(OpenedCase(case, displays, predictions))


@job
def score_predictions(predictions: Mapping[str, tuple[Path, CaseFiles]]) -> Iterator[Event]:
    """Mean Dice of predictions on disk; Finished.result = path -> (time of change in ns, mean Dice).

    A prediction that cannot be compared with its truth is told and left out.
    """
    scored: dict[Path, tuple[int, float]] = {}
    for done, (case_id, (path, files)) in enumerate(predictions.items()):
        yield Progress("scoring predictions", done, len(predictions))
        if files.best_truth is None:
            continue
        try:
            truth = read_label_map(files.best_truth, files.table)
            changed = path.stat().st_mtime_ns
            scored[path] = changed, compare(read_label_map(path, files.table), truth, surface=False).mean_dice
        except Seg3dError as error:
            yield Warned(f"The prediction of {case_id} was not scored: {error}")
    yield Finished(scored)


@job
def compare_maps(predicted: LabelMap, truth: LabelMap, case: str, surface: bool) -> Iterator[Event]:
    """Compare two label maps in memory; Finished.result = Comparison."""
    yield Progress("comparing", 0)
    scores = compare(predicted, truth, surface=surface, case=case)
    difference = difference_map(predicted.data, truth.data)
    shown = on_screen(difference, truth.geometry)
    profiles = tuple(slice_profile(shown, axis) for axis in range(3))
    smallest_ml = (SMALLEST_PLACE - 0.5) * truth.geometry.voxel_volume_ml
    places = disagreements(difference, truth.geometry, smallest_ml=smallest_ml)
    yield Finished(Comparison(scores, difference, profiles, places))


@job
def save_new_version(
    folder: Path, case_id: str, label_map: LabelMap, based_on: LabelMap | None, author: str, seconds: float
) -> Iterator[Event]:
    """Save a correction as a new version and read it again; Finished.result = its path."""
    yield Progress("saving", 0)
    path = save_correction(folder, case_id, label_map, based_on=based_on, author=author, seconds=seconds)
    _check_identical(path, label_map)
    yield Saved(path, "correction")
    yield Finished(path)


@job
def save_as(path: Path, label_map: LabelMap, overwrite: bool) -> Iterator[Event]:
    """Save a label map under a chosen name and read it again; Finished.result = its path."""
    yield Progress("saving", 0)
    path = write_label_map(path, label_map, overwrite=overwrite)
    _check_identical(path, label_map)
    yield Saved(path, "label map")
    yield Finished(path)


def _check_identical(path: Path, label_map: LabelMap) -> None:
    """Compare the file, read afresh, with what the user saw.

    Raises
    ------
    FileError
        If a voxel or the grid differs.
    """
    written = read_label_map(path)
    same = np.array_equal(written.data, label_map.data) and written.geometry.same_grid(label_map.geometry)
    if not same:
        raise FileError(f"{path.name} was written but does not read back identical. Save it to another folder.")


@job
def read_labels(path: Path, files: CaseFiles | None) -> Iterator[Event]:
    """Read a label file with the names of its case; Finished.result = LabelMap."""
    yield Progress("reading", 0)
    yield Finished(read_label_map(path, None if files is None else files.table))


@job
def read_volumes(paths: Sequence[Path]) -> Iterator[Event]:
    """Read images; Finished.result = dict of path -> Volume."""
    volumes: dict[Path, Volume] = {}
    for path in paths:
        yield Progress("reading", len(volumes), len(paths))
        volumes[path] = read_volume(path)
    yield Finished(volumes)
