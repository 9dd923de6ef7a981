"""A folder becomes a dataset of cases; a dataset is split into training and validation, once or in folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DatasetError
from ..volumes.files import IMAGE_SUFFIXES
from ..volumes.volume import LabelTable
from .case import CaseFiles
from .corrections import latest_corrections
from .found import Found
from .labels import Region
from .layouts import UNDERSTOOD, of_tree, recognise, single_file
from .listing import Problem, is_image, list_folder, read_json
from .names import natural_key
from .patterns import read_by_patterns

__all__ = ["Dataset", "Problem", "Split", "fold_cases", "open_dataset", "read_split", "split_cases"]

#: Part of the labelled cases that is kept for validation unless somebody says otherwise.
VALIDATION_FRACTION = 0.1


@dataclass(frozen=True)
class Dataset:
    """Cases on disk and what is known about all of them.

    Parameters
    ----------
    root : Path
        The folder, or the file if only one was opened.
    layout : str
        How the files lie, in words.
    cases : tuple of CaseFiles
        In natural order of their ids, which are unique.
    modalities : tuple of str
        What a complete case has, in display order.
    table : LabelTable
        Known label names; empty if neither files nor folder names tell them.
    regions : tuple of Region, optional
        Nested regions if the labels' meaning is known.
    problems : tuple of Problem
        Everything unmatched or odd; see `napari_seg3d.cases.check.check_cases` for what only reading the voxels shows.
    """

    root: Path
    layout: str
    cases: tuple[CaseFiles, ...]
    modalities: tuple[str, ...]
    table: LabelTable
    regions: tuple[Region, ...] | None = None
    problems: tuple[Problem, ...] = ()

    def __iter__(self) -> Iterator[CaseFiles]:
        return iter(self.cases)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, case_id: str) -> CaseFiles:
        for case in self.cases:
            if case.id == case_id:
                return case
        raise DatasetError(
            f"There is no case {case_id} in {self.root}; it has {_listed([case.id for case in self.cases])}."
        )

    @property
    def labelled(self) -> tuple[CaseFiles, ...]:
        """The cases to learn from: with all modalities and a truth or a correction."""
        return tuple(
            case for case in self.cases if case.best_truth is not None and tuple(case.modalities) == self.modalities
        )


@dataclass(frozen=True)
class Split:
    """Which cases are for what."""

    train: tuple[CaseFiles, ...]
    test: tuple[CaseFiles, ...] = ()
    validation: tuple[CaseFiles, ...] = ()


def open_dataset(
    path: Path | str, *, corrections: Path | None = None, patterns: Mapping[str, str] | None = None
) -> Dataset:
    """Return the cases in a folder of any recognised layout, in a single case folder, or in a single image file.

    No voxel is read. A file or a folder inside a dataset (``imagesTr``) brings its case's names and truth along.

    Parameters
    ----------
    path : Path or str
    corrections : Path, optional
        Folder written by `napari_seg3d.cases.corrections.save_correction`; its newest label maps are preferred.
    patterns : mapping of str to str, optional
        What is what in a folder that no layout fits; see `napari_seg3d.cases.patterns.read_by_patterns`.

    Raises
    ------
    DatasetError
        If there is nothing at `path`, or nothing that can be read as a case.
    """
    path = Path(path).expanduser()
    if path.name == "dataset.json":
        path = path.parent
    if not path.exists():
        raise DatasetError(f"There is no folder or file {path}.")
    found = _found_in(path, patterns) if path.is_dir() else _found_for(path)
    cases, problems = found.cases, found.problems
    if corrections is not None:
        cases, more = _with_corrections(cases, corrections)
        problems += more
    return Dataset(path, found.layout, cases, found.modalities, found.table, found.regions, problems)


def _found_in(folder: Path, patterns: Mapping[str, str] | None) -> Found:
    if patterns:
        return read_by_patterns(folder, patterns)
    found = of_tree(folder, {folder / name for name in list_folder(folder).images}) or recognise(folder)
    if found is None:
        raise DatasetError(f"No cases were found in {folder}. Understood are: {UNDERSTOOD}.")
    return found


def _found_for(file: Path) -> Found:
    if not is_image(file.name):
        raise DatasetError(
            f"{file.name} is no image that can be read; expected a name ending in {' or '.join(IMAGE_SUFFIXES)}."
        )
    return of_tree(file.parent, {file}) or single_file(file)


def _with_corrections(cases: Sequence[CaseFiles], folder: Path) -> tuple[tuple[CaseFiles, ...], tuple[Problem, ...]]:
    corrected = latest_corrections(folder)
    known = {case.id for case in cases}
    problems = tuple(
        Problem(path, f"This correction belongs to the case {case_id}, which is not in the dataset.")
        for case_id, path in corrected.items()
        if case_id not in known
    )
    return tuple(replace(case, corrected=corrected.get(case.id)) for case in cases), problems


def split_cases(
    cases: Sequence[CaseFiles], *, validation_fraction: float = VALIDATION_FRACTION, seed: int = 0
) -> tuple[tuple[CaseFiles, ...], tuple[CaseFiles, ...]]:
    """Return training and validation cases; all cases of one patient are on the same side.

    At least one patient validates as soon as there are two and the fraction is above 0, and at least one trains. The
    same cases and seed give the same split, in whatever order the cases come.

    Parameters
    ----------
    cases : sequence of CaseFiles
    validation_fraction : float
        From 0 (no validation) up to, but not including, 1.
    seed : int

    Raises
    ------
    DatasetError
        If the fraction is out of range.
    """
    if not 0 <= validation_fraction < 1:
        raise DatasetError(f"Expected a validation fraction from 0 up to below 1, got {validation_fraction}.")
    patients = sorted({_patient(case) for case in cases})
    wanted = round(validation_fraction * len(patients))
    if validation_fraction > 0 and len(patients) > 1:
        wanted = min(max(wanted, 1), len(patients) - 1)
    order = np.random.default_rng(seed).permutation(len(patients))
    chosen = {patients[i] for i in order[:wanted]}
    train = tuple(case for case in cases if _patient(case) not in chosen)
    return train, tuple(case for case in cases if _patient(case) in chosen)


def fold_cases(
    cases: Sequence[CaseFiles], folds: int, fold: int, *, seed: int = 0
) -> tuple[tuple[CaseFiles, ...], tuple[CaseFiles, ...]]:
    """Return training and validation cases of one fold of a cross-validation.

    Over all folds each case validates exactly once; all cases of one patient do so in the same fold. The folds differ
    by as few cases as the patients allow. The same cases and seed give the same folds, in whatever order they come.

    Parameters
    ----------
    cases : sequence of CaseFiles
    folds : int
        How many there are, from 2 to the number of patients.
    fold : int
        Which one, from 1 to `folds`.
    seed : int

    Raises
    ------
    DatasetError
        If there are too few patients, or there is no such fold.
    """
    sizes = Counter(_patient(case) for case in cases)
    if not 2 <= folds <= len(sizes):
        raise DatasetError(
            f"Expected from 2 folds up to the number of patients, got {folds} folds for {len(sizes)} patients."
        )
    if not 1 <= fold <= folds:
        raise DatasetError(f"Expected a fold from 1 to {folds}, got {fold}.")
    patients = sorted(sizes)
    drawn = [patients[i] for i in np.random.default_rng(seed).permutation(len(patients))]
    members: list[set[str]] = [set() for _ in range(folds)]
    counts = [0] * folds
    # Patients with many cases first, each into the emptiest fold: that keeps the folds even.
    for patient in sorted(drawn, key=lambda name: -sizes[name]):
        emptiest = counts.index(min(counts))
        members[emptiest].add(patient)
        counts[emptiest] += sizes[patient]
    chosen = members[fold - 1]
    train = tuple(case for case in cases if _patient(case) not in chosen)
    return train, tuple(case for case in cases if _patient(case) in chosen)


def read_split(path: Path | str, dataset: Dataset) -> Split:
    """Return the split that a JSON file names: lists of case ids under ``train``, ``test`` and ``validation``.

    Other keys are passed over.

    Raises
    ------
    DatasetError
        If the file is no such JSON, names a case that the dataset has not, or one case in two lists.
    """
    path = Path(path)
    content = read_json(path)
    lists = {name: content.get(name, []) for name in ("train", "test", "validation")}
    for name, ids in lists.items():
        if not isinstance(ids, list) or not all(isinstance(case_id, str) for case_id in ids):
            raise DatasetError(f'Expected a list of case ids under "{name}" in {path}.')
    if not lists["train"]:
        raise DatasetError(f'Expected case ids under "train" in {path}; there are none.')
    known = {case.id: case for case in dataset.cases}
    named = [case_id for ids in lists.values() for case_id in ids]
    if unknown := [case_id for case_id in named if case_id not in known]:
        raise DatasetError(f"{path} names cases that {dataset.root} does not have: {_listed(unknown)}.")
    if doubled := sorted({case_id for case_id in named if named.count(case_id) > 1}, key=natural_key):
        raise DatasetError(f"{path} names cases more than once: {_listed(doubled)}. Each case may be in one list only.")
    return Split(**{name: tuple(known[case_id] for case_id in ids) for name, ids in lists.items()})


def _patient(case: CaseFiles) -> str:
    return case.patient or case.id


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
