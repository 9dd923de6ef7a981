"""Trees with ``dataset.json``: the Medical Segmentation Decathlon's, and nnU-Net's raw folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from ..volumes.files import strip_suffix
from .case import CaseFiles, ImageFile
from .found import Found, complete, in_one_file, table_from_json
from .listing import Problem, is_image, is_leftover, list_folder, read_json
from .names import natural_key
from .pairs import paired_cases


def decathlon(root: Path) -> Found | None:
    """Return what ``dataset.json`` in a folder says, or None if there is none.

    Raises
    ------
    DatasetError
        If dataset.json is damaged or names no modalities or labels.
    """
    path = root / "dataset.json"
    if not path.is_file():
        return None
    facts = read_json(path)
    channels = facts.get("modality", facts.get("channel_names"))
    names = facts.get("labels")
    if not isinstance(channels, dict) or not channels or not isinstance(names, dict):
        raise DatasetError(f'Expected "modality" (or "channel_names") and "labels" in {path}, each an object of names.')
    modalities = _unique([str(name) for _, name in sorted(channels.items(), key=lambda item: natural_key(item[0]))])
    table, regions = table_from_json(names, path)
    problems = [
        Problem(path, f"The label {label.value} (ignore) is read as an ordinary label, not as unknown.", "error")
        for label in table
        if label.name.lower() == "ignore"
    ]
    training, test = (facts.get(name) for name in ("training", "test"))
    if isinstance(training, list):
        entries = [*training, *(test if isinstance(test, list) else [])]
        cases = _Lists(root, modalities, problems).read(entries)
        layout = "Decathlon"
    else:
        cases = paired_cases(list_folder(root), problems, modalities)
        layout = "nnU-Net raw"
    return complete(Found(layout, tuple(cases), modalities, table, regions, tuple(problems)), root)


class _Lists:
    """The cases that lists of files in dataset.json name, compared with the files that are there."""

    def __init__(self, root: Path, modalities: Sequence[str], problems: list[Problem]) -> None:
        self._root = root
        self._modalities = modalities
        self._problems = problems
        self._present: dict[Path, frozenset[str]] = {}

    def read(self, entries: Sequence[Any]) -> list[CaseFiles]:
        """Return the listed cases whose images are there; what is missing, unlisted or doubled is a problem."""
        cases: dict[str, CaseFiles] = {}
        named: set[Path] = set()
        for entry in entries:
            image, label = (entry.get("image"), entry.get("label")) if isinstance(entry, Mapping) else (entry, None)
            if not isinstance(image, str) or not (label is None or isinstance(label, str)):
                self._tell(self._root / "dataset.json", f"Expected an image and a label in the entry {entry!r}.")
                continue
            if is_leftover(Path(image).name):
                continue
            files = self._channels(self._root / image)
            truth = None if label is None else self._root / label
            named.update(file.path for file in files.values())
            named.update(path for path in (truth,) if path is not None)
            case_id = _case_id(self._root / image, truth)
            if missing := [file.path for file in files.values() if not self._is_there(file.path)]:
                self._tell(missing[0], "dataset.json lists this image, but it is not there. The case is left out.")
            elif case_id in cases:
                self._tell(self._root / image, f"dataset.json lists the case {case_id} twice. The first entry counts.")
            else:
                cases[case_id] = CaseFiles(case_id, files, self._existing(truth))
        self._tell_unlisted(named)
        return list(cases.values())

    def _channels(self, path: Path) -> dict[str, ImageFile]:
        """Where a case's modalities lie: in channels of one file, or in nnU-Net's files ``…_0000``, ``…_0001``."""
        stem = strip_suffix(path)
        ending = path.name[len(stem) :]
        parts = [path.with_name(f"{stem}_{i:04d}{ending}") for i in range(len(self._modalities))]
        if not self._is_there(path) and self._is_there(parts[0]):
            return {name: ImageFile(part) for name, part in zip(self._modalities, parts, strict=True)}
        return in_one_file(path, self._modalities)

    def _existing(self, truth: Path | None) -> Path | None:
        if truth is not None and not self._is_there(truth):
            self._tell(truth, "dataset.json lists this label file, but it is not there. The case has no truth.")
            return None
        return truth

    def _is_there(self, path: Path) -> bool:
        return path.name in self._names(path.parent)

    def _names(self, folder: Path) -> frozenset[str]:
        # One listing per folder is much faster than a question per file, above all on network drives.
        if folder not in self._present:
            self._present[folder] = (
                frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()
            )
        return self._present[folder]

    def _tell(self, path: Path, message: str) -> None:
        self._problems.append(Problem(path, message, "error"))

    def _tell_unlisted(self, named: set[Path]) -> None:
        for folder in sorted({path.parent for path in named}):
            for name in sorted(self._names(folder), key=natural_key):
                if is_image(name) and not is_leftover(name) and folder / name not in named:
                    message = "This file is in no list of dataset.json and is left out."
                    self._problems.append(Problem(folder / name, message))


def _case_id(image: Path, truth: Path | None) -> str:
    """The image's name, without the channel if the label file's name tells that the last number is one."""
    stem = strip_suffix(image)
    return strip_suffix(truth) if truth is not None and stem == f"{strip_suffix(truth)}_0000" else stem


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Names with a number added where they come twice: some call several channels "MRI"."""
    return tuple(name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names))
