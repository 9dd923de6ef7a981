"""Pictures of many cases as files: those of a table of scores, and the articles' figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..cases.dataset import Dataset
from ..cases.labels import Region, regions_for
from ..errors import DatasetError, FileError
from ..events import Event, Finished, Progress, Saved, job
from ..volumes.files import read_label_map
from ..volumes.volume import Label, LabelMap, Volume
from .canvas import save_figure
from .confusion import Confusion, confusion, confusion_figure, total_confusion
from .figures import case_figure, overview_figure
from .panel_figures import blind_figure, panels_figure, truth_is_first
from .report import Table, TruthFile, label_files, truth_files
from .slice_figures import Structure, agreement_figure, classes_figure, slice_grid_figure, triples_figure
from .slices import PLANES, Plane, common_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["slices", "overview", "triples", "classes", "panels", "blind", "confusion"]
#: What can be drawn of cases, with what it shows.
KINDS: dict[Kind, str] = {
    "slices": "truth, prediction and difference (-1 missed … 1 added) on chosen slices",
    "overview": "image, prediction, truth, and where both agree or disagree, on chosen slices",
    "triples": "prediction, truth and image side by side, a row for each chosen slice",
    "classes": "each class and region on its own, on the middle slice",
    "panels": "all modalities and the labels side by side",
    "blind": "prediction and truth without their names; the answer is a picture of its own",
    "confusion": "which class is taken for which, over all voxels of all cases",
}


@dataclass(frozen=True)
class Choice:
    """What figures shall show.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    plane : {"axial", "coronal", "sagittal"}
    all_planes : bool
        Whether panels have a row for each plane.
    slices : tuple of int
        Numbers in the file's order, from 0; by default those that have something to show.
    structure : str
        Name of the class or region; all labels together if empty.
    modality : str
        The image beneath the labels; the first if empty.
    seed : int
        From which the order of the blind test follows.
    """

    kind: Kind
    plane: Plane = "axial"
    all_planes: bool = True
    slices: tuple[int, ...] = ()
    structure: str = ""
    modality: str = ""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Material:
    """A case to be drawn: prediction and truth on one grid, images by modality, regions of its labels.

    Panels need no prediction, all other figures need both.
    """

    case: str
    predicted: LabelMap | None
    truth: LabelMap | None
    images: dict[str, Volume]
    regions: tuple[Region, ...] = ()


def draw(choice: Choice, material: Material, *, revealed: bool = False) -> Figure:
    """Draw one figure of one case.

    Raises
    ------
    DatasetError
        If prediction, truth or image is missing, or there is no class or modality of a name.
    GeometryError
        If grids differ, or there is no such slice.
    """
    image = _image(choice, material)
    if choice.kind == "panels":
        return _panels(choice, material)
    predicted, truth = _both(material)
    if choice.kind == "confusion":
        return confusion_figure(confusion(predicted, truth), material.case)
    if choice.kind == "blind":
        return blind_figure(predicted, truth, image, case=material.case, seed=choice.seed, revealed=revealed)
    if choice.kind == "classes":
        return classes_figure(
            predicted, truth, image, regions=material.regions, plane=choice.plane, title=material.case
        )
    figures = {"slices": slice_grid_figure, "overview": agreement_figure, "triples": triples_figure}
    return figures[choice.kind](
        predicted,
        truth,
        image,
        structure=_structure(choice.structure, predicted, truth, material.regions),
        plane=choice.plane,
        slices=choice.slices,
        title=material.case,
    )


def _panels(choice: Choice, material: Material) -> Figure:
    if not material.images:
        raise DatasetError(f"{material.case or 'The case'} has no image for the panels. Give a dataset with images.")
    planes = PLANES if choice.all_planes and not choice.slices else (choice.plane,)
    slices = {choice.plane: choice.slices[0]} if choice.slices else {}
    labels = material.truth or material.predicted
    return panels_figure(
        material.images, labels, regions=material.regions, planes=planes, slices=slices, title=material.case
    )


def _both(material: Material) -> tuple[LabelMap, LabelMap]:
    if material.predicted is None or material.truth is None:
        raise DatasetError(f"{material.case or 'The case'} needs a prediction and a truth for this figure.")
    return material.predicted, material.truth


def _image(choice: Choice, material: Material) -> Volume | None:
    if choice.modality and choice.modality not in material.images:
        raise _no_modality(choice.modality, material.case, list(material.images))
    return material.images[choice.modality] if choice.modality else next(iter(material.images.values()), None)


def _no_modality(name: str, case: str, there: Sequence[str]) -> DatasetError:
    return DatasetError(f"{case or 'The case'} has no modality {name}; it has {', '.join(there) or 'no image'}.")


def _structure(name: str, predicted: LabelMap, truth: LabelMap, regions: Sequence[Region]) -> Structure:
    if not name:
        return None
    known: list[Label | Region] = [*common_table(truth, predicted), *regions]
    for structure in known:
        if structure.name.lower() == name.lower():
            return structure
    raise DatasetError(f"There is no label {name}; there are {', '.join(one.name for one in known)}.")


@job
def write_figures(folder: Path, table: Table, predictions: Path, truths: Path | Dataset) -> Iterator[Event]:
    """Draw what `napari_seg3d.comparison.report.evaluate` has compared.

    Parameters
    ----------
    folder : Path
        Gets ``overview.png`` and ``<case>.png``; older ones are replaced.
    table : Table
        From `evaluate` with the same predictions and truths.
    predictions, truths : Path, Path or Dataset
        As given to `evaluate`. A dataset's images are shown beneath the labels.

    Yields
    ------
    Event
        Progress, `Saved` for each picture; the last is Finished with a tuple of paths.
    """
    ours, theirs = label_files(predictions), truth_files(truths)
    written = [save_figure(folder / "overview.png", overview_figure(table))]
    yield Saved(written[0], "figure")
    for done, scores in enumerate(table.cases):
        yield Progress(f"Drawing {scores.case}", done, len(table.cases))
        truth_file = theirs[scores.case] if scores.case in theirs else next(iter(theirs.values()))
        truth = truth_file.read(ours[scores.case])
        predicted = read_label_map(ours[scores.case], truth.table)
        image = next(iter(truth_file.read_images(list(truth_file.images)[:1]).values()), None)
        written.append(save_figure(folder / f"{scores.case}.png", case_figure(predicted, truth, image, scores)))
        yield Saved(written[-1], "figure")
    yield Finished(tuple(written))


@job
def draw_cases(
    choice: Choice, predictions: Path | None, truths: Path | Dataset, output: Path, *, cases: Sequence[str] = ()
) -> Iterator[Event]:
    """Draw one kind of figure of cases on disk.

    Parameters
    ----------
    choice : Choice
    predictions : Path, optional
        Folder of label files named after their cases, or one file. Panels can do without.
    truths : Path or Dataset
        A dataset, a folder of label files named alike, or one file. A dataset's images are shown.
    output : Path
        A ``.png`` file for one figure, else a folder: ``<case>.png``, ``confusion.png``, and ``<case>.answer.png``
        beside a blind test. Older ones are replaced.
    cases : sequence of str
        Only these; all that have what the figure needs by default.

    Yields
    ------
    Event
        Progress, `Saved` for each picture; the last is Finished with a dict of path -> the letter of the truth in a
        blind test, else "".
    """
    ours = {} if predictions is None else label_files(predictions)
    theirs = truth_files(truths)
    chosen = _chosen(choice, ours, theirs, cases)
    one_file = output.suffix.lower() == ".png"
    if one_file and len(chosen) > 1 and choice.kind != "confusion":
        raise FileError(f"{len(chosen)} cases do not fit into one picture. Name one with --cases, or a folder.")
    written: dict[Path, str] = {}
    counts: list[Confusion] = []
    for done, (case, (prediction, truth_file)) in enumerate(chosen.items()):
        yield Progress(f"Drawing {case}", done, len(chosen))
        material = _read(choice, case, prediction, truth_file)
        if choice.kind == "confusion":
            counts.append(confusion(*_both(material)))
            continue
        path = output if one_file else output / f"{case}.png"
        letter = "" if choice.kind != "blind" else "A" if truth_is_first(case, choice.seed) else "B"
        written[save_figure(path, draw(choice, material))] = letter
        yield Saved(path, "figure")
        if choice.kind == "blind":
            answer = path.with_name(f"{path.stem}.answer.png")
            written[save_figure(answer, draw(choice, material, revealed=True))] = letter
            yield Saved(answer, "figure")
    if choice.kind == "confusion":
        path = output if one_file else output / "confusion.png"
        written[save_figure(path, confusion_figure(total_confusion(counts)))] = ""
        yield Saved(path, "figure")
    yield Finished(written)


_Files = tuple[Path | None, TruthFile]


def _chosen(
    choice: Choice, ours: dict[str, Path], theirs: dict[str, TruthFile], cases: Sequence[str]
) -> dict[str, _Files]:
    if choice.kind == "panels":
        known: dict[str, _Files] = {case: (None, file) for case, file in theirs.items() if file.images}
    elif len(ours) == len(theirs) == 1:
        # Two files belong together whatever their names.
        known = {next(iter(ours)): (next(iter(ours.values())), next(iter(theirs.values())))}
    else:
        known = {case: (path, theirs[case]) for case, path in ours.items() if case in theirs}
    if not known:
        what = "images" if choice.kind == "panels" else "a prediction and a truth of the same name"
        raise DatasetError(f"No case has {what}. Predictions must be named after their case, such as case_01.nii.gz.")
    if unknown := [case for case in cases if case not in known]:
        some = list(known)
        more = " …" if len(some) > 5 else ""
        raise DatasetError(f"There is nothing to draw of {', '.join(unknown)}; there is {', '.join(some[:5])}{more}.")
    return {case: known[case] for case in cases} if cases else known


def _read(choice: Choice, case: str, prediction: Path | None, file: TruthFile) -> Material:
    if choice.modality and choice.modality not in file.images:
        raise _no_modality(choice.modality, case, list(file.images))
    truth = file.read(prediction) if prediction is not None else read_label_map(file.path, file.table)
    predicted = None if prediction is None else read_label_map(prediction, truth.table)
    if choice.kind == "confusion":
        names: list[str] = []
    elif choice.kind == "panels":
        names = list(file.images)
    else:
        names = [choice.modality] if choice.modality else list(file.images)[:1]
    regions = file.regions if file.regions is not None else regions_for(truth.table)
    return Material(case, predicted, truth, file.read_images(names), regions or ())
