"""Small jobs of the window itself: generators of events for the worker, without Qt and without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cases.case import Case, CaseFiles
from ..cases.corrections import save_correction
from ..cases.dataset import open_dataset
from ..cases.labels import regions_for
from ..comparison.difference import Disagreement
from ..comparison.live import LiveComparison
from ..comparison.report import LabelScores, Scores, compare
from ..correction.stops import implausible_stops, uncertain_stops
from ..errors import FileError, GeometryError, Seg3dError
from ..events import Event, Finished, Progress, Saved, Warned, job
from ..volumes.files import read_label_map, read_volume, write_label_map
from ..volumes.volume import LabelMap, Volume
from .layers import SCREEN, Display, display_range, warm_up

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
    """Scores of a prediction, and where it differs from its truth; `live` follows edits of the prediction."""

    scores: Scores
    live: LiveComparison

    @property
    def difference(self) -> NDArray[np.uint8]:
        """The (X, Y, Z) difference map; it follows edits in place."""
        return self.live.difference

    def profile(self, screen_axis: int) -> NDArray[np.int64]:
        """Return the missed, added and wrong-class voxels of every slice along an axis of the screen (I, P, L)."""
        for axis, (to, flip) in enumerate(self.live.geometry.orientation_to(SCREEN)):
            if int(to) == screen_axis:
                return self.live.profile(axis)[:: int(flip)]
        raise AssertionError("Three axes have three places on the screen.")

    @property
    def places(self) -> tuple[Disagreement, ...]:
        """The connected disagreements of at least `SMALLEST_PLACE` voxels, the largest first."""
        return self.live.disagreements(smallest_ml=(SMALLEST_PLACE - 0.5) * self.live.geometry.voxel_volume_ml)

    def after(self, touched: Iterable[int]) -> Comparison:
        """Return the comparison after an edit that `live` was told of, and that touched some labels.

        Distances are unknown then for these labels, and for regions that hold one; those of others stay.
        """
        touched = set(touched)
        known = {score.values: score for score in (*self.scores.by_region, *self.scores.by_label)}
        regions = len(self.scores.by_region)
        now = self.live.scores()
        by_label: list[LabelScores] = []
        by_region: list[LabelScores] = []
        for place, score in enumerate(now):
            is_region = place >= len(now) - regions
            before = self.scores.by_region[place - len(now) + regions] if is_region else known.get(score.values)
            if before is None:
                if not score.volume_ml and not score.other_ml:
                    continue
                before = LabelScores(score.name, score.values, score.color, False, nan, nan, nan, nan)
            new = replace(
                before,
                dice=score.dice,
                iou=score.dice / (2 - score.dice),
                predicted_ml=score.volume_ml,
                truth_ml=score.other_ml,
            )
            if touched & set(score.values):
                new = replace(new, hd_mm=nan, hd95_mm=nan, mean_surface_mm=nan, surface_dice=nan)
            (by_region if is_region else by_label).append(new)
        voxels = self.live.difference.size * self.live.geometry.voxel_volume_ml
        scores = replace(
            self.scores,
            by_label=tuple(by_label),
            by_region=tuple(by_region),
            voxel_accuracy=1 - self.live.left_ml / voxels,
        )
        return replace(self, scores=scores)


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
def compare_maps(
    predicted: LabelMap, truth: LabelMap, case: str, surface: bool, loaded: LabelMap | None = None
) -> Iterator[Event]:
    """Compare two label maps in memory; Finished.result = Comparison. `loaded`: the prediction as it was loaded."""
    yield Progress("comparing", 0)
    scores = compare(predicted, truth, surface=surface, case=case)
    regions = regions_for(truth.table.covering([score.values[0] for score in scores.by_label])) or ()
    yield Finished(Comparison(scores, LiveComparison(predicted, truth, regions=regions, loaded=loaded)))


@job
def measure(predicted: LabelMap, truth: LabelMap, case: str) -> Iterator[Event]:
    """Score two label maps in memory, distances too; Finished.result = Scores."""
    yield Progress("measuring distances", 0)
    yield Finished(compare(predicted, truth, case=case))


@job
def find_stops(labels: LabelMap, uncertainty: Volume | Path | None = None) -> Iterator[Event]:
    """Look for implausible parts, or for uncertain regions; Finished.result = tuple of Stop, the largest first."""
    yield Progress("looking for places", 0)
    if isinstance(uncertainty, Path):
        uncertainty = read_volume(uncertainty)
    if uncertainty is None:
        yield Finished(implausible_stops(labels))
    else:
        smallest_ml = (SMALLEST_PLACE - 0.5) * labels.geometry.voxel_volume_ml
        yield Finished(uncertain_stops(uncertainty, labels, smallest_ml=smallest_ml))


@job
def save_new_version(
    folder: Path,
    case_id: str,
    label_map: LabelMap,
    based_on: LabelMap | None,
    author: str,
    seconds: float,
    parents: Sequence[Path | str] = (),
) -> Iterator[Event]:
    """Save a correction as a new version and read it again; Finished.result = its path."""
    yield Progress("saving", 0)
    path = save_correction(
        folder, case_id, label_map, based_on=based_on, author=author, seconds=seconds, parents=parents
    )
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
