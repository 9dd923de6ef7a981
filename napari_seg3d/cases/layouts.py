"""The folder layouts of the field, recognised by what lies where. No voxel is read here, and hardly a header.

Each reader takes a folder and returns what it `Found`, or None if the folder is not laid out its way. Files are paired
by case id, never by their place in a list; whatever fits nowhere is a `Problem`, not a guess.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..volumes.files import inspect_file, strip_suffix
from .case import CaseFiles
from .decathlon import decathlon
from .folders import case_folders
from .found import Found, channel_names, complete, in_one_file
from .names import read_name
from .pairs import IMAGE_FOLDERS, TEST_FOLDERS, images_and_labels

UNDERSTOOD = (
    "a Decathlon or nnU-Net tree with dataset.json; folders images/ and labels/ (or imagesTr/ and labelsTr/) with "
    "equal file names; one folder per case whose files name their modality (…_flair, …_t1, …_t1ce, …_t2, …_seg); "
    "a single case folder; NIfTI files"
)
_READERS: tuple[Callable[[Path], Found | None], ...] = (decathlon, images_and_labels, case_folders)


def recognise(root: Path) -> Found | None:
    """Return what the first reader that knows the layout found in a folder, or None."""
    for reader in _READERS:
        found = reader(root)
        if found is not None and found.cases:
            return found
    return None


def of_tree(folder: Path, images: set[Path]) -> Found | None:
    """Return what the tree around an image folder (``imagesTr``) says about some of its images.

    None if the folder is not named like one, or nothing around it tells about these images.
    """
    if folder.name.lower() not in IMAGE_FOLDERS + TEST_FOLDERS:
        return None
    tree = decathlon(folder.parent) or images_and_labels(folder.parent)
    if tree is None:
        return None
    cases = tuple(case for case in tree.cases if any(file.path in images for file in case.modalities.values()))
    problems = tuple(problem for problem in tree.problems if problem.path in images)
    return replace(tree, cases=cases, problems=problems) if cases else None


def single_file(path: Path) -> Found:
    """Return one image file as a dataset of one unlabelled case.

    Raises
    ------
    FileError, GeometryError
        If its header cannot be read.
    """
    name = read_name(strip_suffix(path))
    count = inspect_file(path).channels
    channels = (name.modality,) if count == 1 and name.kind == "image" else channel_names(count)
    case = CaseFiles(strip_suffix(path), in_one_file(path, channels))
    return complete(Found("one file", (case,), channels), path.parent)
