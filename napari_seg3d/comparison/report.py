"""A prediction held against its truth, in numbers: one case, or a whole folder.

Every mean is a mean over cases of the value per case, background excluded. Beside it stands in how many cases the
structure is absent (`napari_seg3d.comparison.overlap` says what they count) and how many have no distance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np

from ..cases.case import Case, ImageFile
from ..cases.dataset import Dataset, open_dataset
from ..cases.labels import Region, regions_for
from ..cases.names import natural_key
from ..errors import DatasetError, FileError, GeometryError, Seg3dError
from ..events import Event, Finished, Progress, Warned, job
from ..volumes.files import IMAGE_SUFFIXES, read_label_map, read_volume, strip_suffix
from ..volumes.volume import Label, LabelMap, LabelTable, Volume
from .baselines import ALL_BACKGROUND, Baseline, baselines, mean_baseline
from .overlap import Overlap, overlap
from .surface import SurfaceScores, common_box, surface_distances


@dataclass(frozen=True)
class LabelScores:
    """How well one class, or one region of several classes, was found in one case.

    Volumes are in ml, distances in mm. Distances are NaN where truth or prediction is empty or nobody asked for them.
    """

    name: str
    values: tuple[int, ...]
    color: str
    is_region: bool
    dice: float
    iou: float
    predicted_ml: float
    truth_ml: float
    hd_mm: float = nan
    hd95_mm: float = nan
    mean_surface_mm: float = nan
    surface_dice: float = nan

    @property
    def difference_ml(self) -> float:
        """Predicted minus true volume in ml."""
        return self.predicted_ml - self.truth_ml

    @property
    def absent(self) -> bool:
        """Whether neither truth nor prediction holds it: its Dice of 1 then says that nothing was invented."""
        return self.predicted_ml == 0 and self.truth_ml == 0


@dataclass(frozen=True)
class Scores:
    """How well one case was predicted: per class, per region where the classes have any, and what to know about it."""

    case: str
    by_label: tuple[LabelScores, ...]
    by_region: tuple[LabelScores, ...] = ()
    tolerance_mm: float = 1.0
    notes: tuple[str, ...] = ()
    #: Part of all voxels with the right class, and what it would be if all were called background: never show one
    #: without the other, for a tumour is so small that both come out above 0.98.
    voxel_accuracy: float = nan
    background_accuracy: float = nan
    #: What the best range of intensities reaches, where the images are known.
    threshold: Baseline | None = None

    @property
    def baselines(self) -> tuple[Baseline, ...]:
        """What is reached without learning: all background, and the best threshold where it is known."""
        dices = [{s.name: float(s.truth_ml == 0) for s in scores} for scores in (self.by_label, self.by_region)]
        nothing = Baseline(ALL_BACKGROUND, dices[0], dict.fromkeys(dices[0], "background"), dices[1])
        return (nothing,) if self.threshold is None or not self.by_label else (nothing, self.threshold)

    def with_threshold(self, found: Baseline) -> Scores:
        """Return the scores with a best threshold beside them; what the truth lacks is best left unlabelled."""
        missing = {s.name: 1.0 for s in self.by_label if s.name not in found.dice}
        how = {**found.how, **dict.fromkeys(missing, "background")}
        return replace(self, threshold=replace(found, dice={**found.dice, **missing}, how=how))

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the classes (not the regions); NaN if there is no class."""
        return _mean([score.dice for score in self.by_label])

    @property
    def mean_region_dice(self) -> float:
        """Mean Dice over the regions; NaN if there is none."""
        return _mean([score.dice for score in self.by_region])


@dataclass(frozen=True)
class Summary:
    """One class or region over all cases. Distances are means over the cases that have one."""

    name: str
    values: tuple[int, ...]
    color: str
    is_region: bool
    cases: int
    mean_dice: float
    median_dice: float
    lowest_dice: float
    sd_dice: float
    mean_iou: float
    mean_difference_ml: float
    mean_hd95_mm: float
    mean_surface_mm: float
    mean_surface_dice: float
    #: Cases in which neither truth nor prediction holds it; they count as Dice 1.
    absent: int
    #: Cases that are missing in the distances because truth or prediction is empty.
    without_distance: int


@dataclass(frozen=True)
class Table:
    """The scores of many cases, and which files could not be scored."""

    cases: tuple[Scores, ...]
    predictions_without_truth: tuple[str, ...] = ()
    truths_without_prediction: tuple[str, ...] = ()
    #: Case id -> why it could not be compared.
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def mean_dice(self) -> float:
        """Mean over cases of the mean Dice over classes."""
        return _mean([case.mean_dice for case in self.cases if not isnan(case.mean_dice)])

    def baselines(self) -> tuple[Baseline, ...]:
        """Means over the cases of what is reached without learning; those that are known of every case."""
        if not any(case.by_label for case in self.cases):
            return ()
        by_case = [case.baselines for case in self.cases if case.by_label]
        return tuple(mean_baseline(parts) for parts in zip(*by_case, strict=False))

    @property
    def voxel_accuracy(self) -> tuple[float, float]:
        """Mean voxel accuracy, and the mean of calling all voxels background."""
        known = [case for case in self.cases if not isnan(case.voxel_accuracy)]
        return _mean([case.voxel_accuracy for case in known]), _mean([case.background_accuracy for case in known])

    def summaries(self) -> tuple[Summary, ...]:
        """Every class, then every region, over all cases."""
        groups: dict[tuple[bool, tuple[int, ...], str], list[LabelScores]] = {}
        for case in self.cases:
            for score in (*case.by_label, *case.by_region):
                groups.setdefault((score.is_region, score.values, score.name), []).append(score)
        # Classes by value; regions stay in the order of their scheme, outer to inner.
        labels = sorted((key for key in groups if not key[0]), key=lambda key: key[1])
        return tuple(_summary(groups[key]) for key in (*labels, *(key for key in groups if key[0])))


def compare(
    predicted: LabelMap,
    truth: LabelMap,
    *,
    regions: Sequence[Region] | None = None,
    surface: bool = True,
    tolerance_mm: float = 1.0,
    case: str = "",
) -> Scores:
    """Scores of a prediction.

    Parameters
    ----------
    predicted, truth : LabelMap
        On one grid. The truth's table says which classes there are; values that only the prediction has are scored too.
    regions : sequence of Region, optional
        Scored beside the classes. By default those that belong to the truth's label scheme, if any.
    surface : bool
        Whether to measure distances.
    tolerance_mm : float
        For the surface Dice.
    case : str
        The case's name; by default the truth's.

    Raises
    ------
    GeometryError
        If the two do not lie on one grid.

    Notes
    -----
    Distances need perpendicular voxel axes: on a sheared grid they stay NaN, and `Scores.notes` says so.
    """
    if difference := truth.geometry.difference(predicted.geometry):
        raise GeometryError(
            f"{case or truth.name or 'The case'}: the prediction does not lie on the truth's grid ({difference}). "
            "Predict the case again, or resample one of them first."
        )
    notes: list[str] = []
    if surface and truth.geometry.is_sheared:
        surface = False
        notes.append("The voxel axes are not perpendicular, so distances were not measured.")
    # Outside this box both are background, so nothing there is worth a pass over the whole study.
    box = common_box((predicted.data != 0) | (truth.data != 0)) or (slice(0, 1),) * 3
    ours, theirs = predicted.data[box], truth.data[box]
    table = truth.table.covering([*np.unique(ours).tolist(), *np.unique(theirs).tolist()])
    chosen = tuple((regions_for(table) or ()) if regions is None else regions)
    counts = overlap(ours, theirs, (*table, *chosen))
    distances = {
        values: surface_distances(
            np.isin(ours, values), np.isin(theirs, values), truth.geometry.spacing_mm, tolerance_mm=tolerance_mm
        )
        for values in ({count.values for count in counts} if surface else ())
    }
    scores = [
        _label_scores(count, of, distances.get(count.values), truth.geometry.voxel_volume_ml)
        for count, of in zip(counts, (*table, *chosen), strict=True)
    ]
    by_label, by_region = tuple(scores[: len(table)]), tuple(scores[len(table) :])
    return Scores(
        case or truth.name,
        by_label,
        by_region,
        tolerance_mm,
        tuple(notes),
        voxel_accuracy=1 - np.count_nonzero(ours != theirs) / truth.data.size,
        background_accuracy=1 - np.count_nonzero(theirs) / truth.data.size,
    )


@job
def evaluate(
    predictions: Path,
    truths: Path | Dataset,
    *,
    surface: bool = True,
    tolerance_mm: float = 1.0,
    thresholds: bool = True,
) -> Iterator[Event]:
    """Compare every prediction with the truth of the same case id.

    Parameters
    ----------
    predictions : Path
        Folder of label files named ``<case>.nii.gz`` (or .nii), or one such file.
    truths : Path or Dataset
        A dataset, a folder of label files named alike, or one file.
    surface : bool
        Whether to measure distances.
    tolerance_mm : float
        For the surface Dice.
    thresholds : bool
        Whether to look for the best threshold of every case whose images are known, as a baseline.

    Yields
    ------
    Event
        Progress per case, `Warned` for each case that cannot be compared; the last is Finished with a `Table`.
    """
    ours, theirs = label_files(predictions), truth_files(truths)
    if predictions.is_file() and isinstance(truths, Path) and truths.is_file():
        # Two files were named, so they belong together whatever their names.
        (name, path), (_, wanted) = ours.popitem(), theirs.popitem()
        ours, theirs = {name: path}, {name: wanted}
    common = [name for name in ours if name in theirs]
    if not common:
        raise DatasetError(
            f"No prediction has the name of a truth: predictions are {_some(ours)}, truths {_some(theirs)}. "
            "Predictions must be named after their case, for example case_01.nii.gz."
        )
    scores: list[Scores] = []
    failed: dict[str, str] = {}
    for done, name in enumerate(common):
        yield Progress(f"Comparing {name}", done, len(common))
        try:
            truth = theirs[name].read(ours[name])
            predicted = read_label_map(ours[name], truth.table)
            if contradiction := _other_meanings(truth.table, _recorded_table(ours[name])):
                yield Warned(f"{name}: the prediction means something else by {contradiction}. Check the label scheme.")
            regions = theirs[name].regions
            one = compare(predicted, truth, regions=regions, surface=surface, tolerance_mm=tolerance_mm, case=name)
            scores.append(_beside_threshold(one, theirs[name], truth, regions) if thresholds else one)
        except Seg3dError as error:
            failed[name] = str(error)
            yield Warned(str(error))
    yield Finished(
        Table(
            tuple(scores),
            predictions_without_truth=tuple(name for name in ours if name not in theirs),
            truths_without_prediction=tuple(name for name in theirs if name not in ours),
            failed=failed,
        )
    )


def _beside_threshold(scores: Scores, file: TruthFile, truth: LabelMap, regions: Sequence[Region] | None) -> Scores:
    """Return the scores with the best threshold beside them, if there are images and something to find in them."""
    if not file.images or not truth.data.any():
        return scores
    chosen = tuple((regions_for(truth.table) or ()) if regions is None else regions)
    try:
        _, threshold = baselines(Case(scores.case, file.read_images(), truth), chosen)
    except Seg3dError as error:
        # The scores stand without it.
        return replace(scores, notes=(*scores.notes, f"No best threshold: {error}"))
    return scores.with_threshold(threshold)


def label_files(path: Path) -> dict[str, Path]:
    """Label files by case id: those in a folder, or the one file.

    Raises
    ------
    FileError
        If there is nothing at `path`, or no label file in it.
    """
    if path.is_file():
        return {strip_suffix(path): path}
    if not path.is_dir():
        raise FileError(f"There is no file or folder {path}.")
    files = {strip_suffix(file): file for file in sorted(path.iterdir(), key=_natural) if _is_label_file(file)}
    if not files:
        raise FileError(f"{path} holds no label files. Expected files named after their cases, such as case_01.nii.gz.")
    return files


def _natural(path: Path) -> Any:
    return natural_key(path.name)


def _is_label_file(path: Path) -> bool:
    name = path.name.lower()
    # Maps that a prediction leaves beside its label file are no labels.
    is_map = re.search(r"\.(uncertainty|(probability|logits)-[^.]*)\.nii(\.gz)?$", name) is not None
    return path.is_file() and not name.startswith(".") and name.endswith(IMAGE_SUFFIXES) and not is_map


@dataclass(frozen=True)
class TruthFile:
    """Where a case's truth lies, what its labels mean, and its images if they are known."""

    path: Path
    table: LabelTable = field(default_factory=LabelTable)
    regions: tuple[Region, ...] | None = None
    images: Mapping[str, ImageFile] = field(default_factory=dict)

    def read_images(self, names: Sequence[str] | None = None) -> dict[str, Volume]:
        """Modality -> image with the modality's name; all, or those that are asked for.

        Raises
        ------
        FileError, GeometryError
            As `napari_seg3d.volumes.files.read_volume`.
        """
        chosen = self.images if names is None else {name: self.images[name] for name in names}
        return {name: replace(read_volume(file.path, channel=file.channel), name=name) for name, file in chosen.items()}

    def read(self, prediction: Path) -> LabelMap:
        """The truth; where nothing tells its labels' names, with those that the prediction's record has."""
        table = self.table if len(self.table) else _recorded_table(prediction)
        return read_label_map(self.path, table)


def _recorded_table(prediction: Path) -> LabelTable:
    """Label names from the record (.json) beside a prediction; empty if there is none."""
    record = prediction.with_name(f"{strip_suffix(prediction)}.json")
    try:
        names = json.loads(record.read_text(encoding="utf-8"))["labels"]
        return LabelTable.from_names({int(value): str(name) for value, name in names.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # The record is a convenience: scores do not depend on names.
        return LabelTable()


def _other_meanings(truth: LabelTable, recorded: LabelTable) -> str:
    """Values that have another meaning in a prediction's record than in the truth, in words; empty if none."""
    pairs = [(label, recorded[label.value].name) for label in truth if label.value in recorded.values]
    # Colours belong to meanings, so they tell "oedema" from "core" but not from "edema".
    return ", ".join(
        f"label {label.value} ({name} against {label.name})"
        for label, name in pairs
        if not {label.name, name} & {f"label {label.value}"}
        and Label.named(label.value, label.name).color != Label.named(label.value, name).color
    )


def truth_files(truths: Path | Dataset) -> dict[str, TruthFile]:
    """Truths by case id: those of a dataset, of a folder of label files, or the one file.

    Raises
    ------
    DatasetError, FileError
        If there is nothing, or no case has a truth.
    """
    if isinstance(truths, Path):
        # A dataset keeps its files in folders or has a dataset.json; label files side by side are just truths.
        if truths.is_file() or (truths.is_dir() and any(_is_label_file(file) for file in truths.iterdir())):
            return {name: TruthFile(path) for name, path in label_files(truths).items()}
        truths = open_dataset(truths)
    found = {
        case.id: TruthFile(
            case.best_truth,
            case.table if len(case.table) else truths.table,
            truths.regions,
            case.modalities,
        )
        for case in truths.cases
        if case.best_truth is not None
    }
    if not found:
        raise DatasetError(f"No case of {truths.root} has a truth to compare with.")
    return found


def _some(names: Mapping[str, object]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _label_scores(
    count: Overlap, of: Label | Region, distances: SurfaceScores | None, voxel_volume_ml: float
) -> LabelScores:
    return LabelScores(
        name=count.name,
        values=count.values,
        color=of.color,
        is_region=isinstance(of, Region),
        dice=count.dice,
        iou=count.iou,
        predicted_ml=count.predicted_voxels * voxel_volume_ml,
        truth_ml=count.truth_voxels * voxel_volume_ml,
        hd_mm=nan if distances is None else distances.hd_mm,
        hd95_mm=nan if distances is None else distances.hd95_mm,
        mean_surface_mm=nan if distances is None else distances.mean_mm,
        surface_dice=nan if distances is None else distances.surface_dice,
    )


def _summary(scores: Sequence[LabelScores]) -> Summary:
    first, dices = scores[0], [score.dice for score in scores]
    return Summary(
        name=first.name,
        values=first.values,
        color=first.color,
        is_region=first.is_region,
        cases=len(scores),
        mean_dice=fmean(dices),
        median_dice=median(dices),
        lowest_dice=min(dices),
        sd_dice=stdev(dices) if len(dices) > 1 else nan,
        mean_iou=fmean(score.iou for score in scores),
        mean_difference_ml=fmean(score.difference_ml for score in scores),
        mean_hd95_mm=_mean([score.hd95_mm for score in scores if not isnan(score.hd95_mm)]),
        mean_surface_mm=_mean([score.mean_surface_mm for score in scores if not isnan(score.mean_surface_mm)]),
        mean_surface_dice=_mean([score.surface_dice for score in scores if not isnan(score.surface_dice)]),
        absent=sum(score.absent for score in scores),
        without_distance=sum(isnan(score.hd95_mm) for score in scores),
    )


def _mean(numbers: Sequence[float]) -> float:
    return fmean(numbers) if numbers else nan
