"""Which cases a command is about: what a dataset and a split file say, and what loose image files mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..cases.case import CaseFiles, ImageFile
from ..cases.dataset import Dataset, Problem, Split, open_dataset, read_split, split_cases
from ..cases.names import read_name
from ..errors import DatasetError
from ..volumes.files import inspect_file, strip_suffix

#: With fewer training cases none is kept for validation, unless the user names some.
FEWEST_TO_VALIDATE = 8


def training_split(dataset: Dataset, split_file: Path | None, seed: int) -> Split:
    """The labelled cases to train on and to validate with.

    Validation cases are those of the split file; without any, a tenth of the training cases is drawn with the seed.
    Cases that the file lists under ``test`` are left alone.

    Raises
    ------
    DatasetError
        If no labelled case is left to train on.
    """
    labelled = {case.id for case in dataset.labelled}
    split = Split(dataset.labelled) if split_file is None else read_split(split_file, dataset)
    train = tuple(case for case in split.train if case.id in labelled)
    validation = tuple(case for case in split.validation if case.id in labelled)
    if not train:
        where = dataset.root if split_file is None else split_file
        raise DatasetError(f"{where} names no case with a truth and all modalities, so there is nothing to learn from.")
    if not validation and len(train) >= FEWEST_TO_VALIDATE:
        train, validation = split_cases(train, seed=seed)
    return Split(train, split.test, validation)


def unlabelled(dataset: Dataset, split_file: Path | None) -> tuple[str, ...]:
    """Ids of the cases that a split file names for training or validation although they cannot be learned from."""
    if split_file is None:
        return ()
    labelled = {case.id for case in dataset.labelled}
    split = read_split(split_file, dataset)
    return tuple(case.id for case in (*split.train, *split.validation) if case.id not in labelled)


def cases_to_predict(
    inputs: Sequence[Path], modalities: Sequence[str]
) -> tuple[tuple[CaseFiles, ...], tuple[Problem, ...]]:
    """The cases that folders and image files stand for, and what is odd about the folders.

    Parameters
    ----------
    inputs : sequence of Path
        Datasets, case folders, image files. A file that belongs to a dataset brings its whole case. Other files are one
        case each if the model wants one image; else they are put together by the modality in their names, or, if there
        are as many as the model wants, in the model's order.
    modalities : sequence of str
        What the model wants.

    Raises
    ------
    DatasetError
        If something is no image, two cases have one id, or files do not make up cases.
    """
    cases: list[CaseFiles] = []
    problems: list[Problem] = []
    loose: list[Path] = []
    for path in inputs:
        dataset = open_dataset(path)
        if dataset.root.is_file() and dataset.layout == "one file":
            loose.append(path)
        else:
            # Several files of one case bring the same case each.
            cases += [case for case in dataset.cases if case not in cases]
            problems += [problem for problem in dataset.problems if path.is_dir()]
    cases += _from_loose(loose, tuple(modalities))
    ids = [case.id for case in cases]
    if doubled := sorted({case_id for case_id in ids if ids.count(case_id) > 1}):
        raise DatasetError(f"Several inputs have the name {doubled[0]}. Predict them one by one, into two folders.")
    return tuple(cases), tuple(problems)


def chosen(cases: Sequence[CaseFiles], ids: Sequence[str]) -> tuple[CaseFiles, ...]:
    """Pick cases by id, in the order of the ids.

    Raises
    ------
    DatasetError
        If there is no case of an id.
    """
    known = {case.id: case for case in cases}
    if unknown := [case_id for case_id in ids if case_id not in known]:
        raise DatasetError(
            f"There are no cases {', '.join(unknown[:5])}. There are {', '.join(list(known)[:5])}"
            f"{' …' if len(known) > 5 else ''}."
        )
    return tuple(known[case_id] for case_id in ids)


def _from_loose(files: Sequence[Path], modalities: tuple[str, ...]) -> list[CaseFiles]:
    if not files:
        return []
    if len(modalities) == 1:
        return [CaseFiles(strip_suffix(file), {modalities[0]: ImageFile(file)}) for file in files]
    if all(inspect_file(file).channels == len(modalities) for file in files):
        # 4-D files hold the modalities in the model's order, as in the Decathlon.
        channels = {name: number for number, name in enumerate(modalities)}
        return [
            CaseFiles(strip_suffix(file), {name: ImageFile(file, number) for name, number in channels.items()})
            for file in files
        ]
    if named := _by_name(files, modalities):
        return named
    if len(files) == len(modalities):
        in_order = {name: ImageFile(file) for name, file in zip(modalities, files, strict=True)}
        return [CaseFiles(_common_id(files), in_order)]
    raise DatasetError(
        f"The model wants {len(modalities)} images a case ({', '.join(modalities)}), but {len(files)} files were given "
        "and their names do not tell which is which. Name one file for each, in that order."
    )


def _by_name(files: Sequence[Path], modalities: tuple[str, ...]) -> list[CaseFiles]:
    """Complete cases by the modality and the rest of each file's name; nothing if the names do not tell them."""
    found: dict[str, dict[str, ImageFile]] = {}
    for file in files:
        modality, rest = _modality_and_rest(strip_suffix(file), modalities)
        group = found.setdefault(rest or file.parent.name, {})
        if modality is None or modality in group:
            return []
        group[modality] = ImageFile(file)
    if any(set(group) != set(modalities) for group in found.values()):
        return []
    return [CaseFiles(case_id, {name: group[name] for name in modalities}) for case_id, group in found.items()]


def _modality_and_rest(stem: str, modalities: tuple[str, ...]) -> tuple[str | None, str]:
    if (numbered := re.fullmatch(r"(.+)_(\d{4})", stem)) and int(numbered[2]) < len(modalities):
        # nnU-Net numbers the modalities instead of naming them.
        return modalities[int(numbered[2])], numbered[1]
    name = read_name(stem)
    return {modality.lower(): modality for modality in modalities}.get(name.modality.lower()), name.rest


def _common_id(files: Sequence[Path]) -> str:
    """What the names of a case's files have in common; the folder's name if that is nothing."""
    stems = [strip_suffix(file) for file in files]
    length = 0
    while all(len(stem) > length and stem[length] == stems[0][length] for stem in stems):
        length += 1
    return stems[0][:length].rstrip("_-. ") or files[0].parent.name or stems[0]
