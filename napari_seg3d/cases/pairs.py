"""Trees with a folder of images and a folder of label files, paired by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import Seg3dError
from ..volumes.files import inspect_file, strip_suffix
from .case import CaseFiles, ImageFile
from .found import Found, channel_names, complete, in_one_file, told_apart
from .listing import Folder, Problem, list_folder, unreadable_problem, walk
from .names import read_name

IMAGE_FOLDERS = ("images", "imagestr", "image", "imgs", "img")
TEST_FOLDERS = ("imagests", "imagesval")
_MASK_FOLDERS = ("masks", "mask")
_LABEL_FOLDERS = (
    "labels", "labelstr", "label", "segmentations", "segmentation", "annotations", "truth", "groundtruth", "gt",
    *_MASK_FOLDERS,
)  # fmt: skip


def images_and_labels(root: Path) -> Found | None:
    """Return the cases in ``images/`` with their truth in ``labels/``, or in such trees side by side (``train/``)."""
    problems: list[Problem] = []
    top, *below = walk(root, problems, depth=1)
    trees = [folder for folder in ([top] if _holds_images(top) else below) if _holds_images(folder)]
    if not trees:
        return None
    groups = [(folder.path.name, paired_cases(folder, problems, ())) for folder in trees]
    return complete(Found("images and labels", told_apart(groups), problems=tuple(problems)), root)


def paired_cases(tree: Folder, problems: list[Problem], modalities: Sequence[str]) -> list[CaseFiles]:
    """Return the cases of the image folders in a tree, with the label files of the same name.

    Parameters
    ----------
    tree : Folder
        Holds the image folders and perhaps folders of label files and of masks.
    problems : list of Problem
        Unmatched files are added.
    modalities : sequence of str
        What the channels are called if that is known.
    """
    truth_folder, mask_folder = _label_folders(tree, problems)
    truths = _by_stem(truth_folder, problems)
    masks = _by_stem(mask_folder, problems)
    cases: list[CaseFiles] = []
    for name in _named(tree, IMAGE_FOLDERS + TEST_FOLDERS):
        images = _by_stem(tree.path / name, problems)
        expected = bool(truths) and name.lower() in IMAGE_FOLDERS
        for case_id, files in _grouped(images, set(truths), modalities):
            truth = _take(truths, case_id)
            if truth is None and expected:
                problems.append(Problem(next(iter(files.values())).path, f"The case {case_id} has no label file."))
            cases.append(CaseFiles(case_id, files, truth, _take(masks, case_id)))
    for path in (*truths.values(), *masks.values()):
        problems.append(Problem(path, "This label file belongs to no image and is left out."))
    return cases


def _holds_images(folder: Folder) -> bool:
    return bool(_named(folder, IMAGE_FOLDERS + TEST_FOLDERS))


def _named(folder: Folder, wanted: Iterable[str]) -> list[str]:
    """The sub-folders of these names in the order of `wanted`; upper and lower case are one."""
    by_name = {name.lower(): name for name in folder.folders}
    return [by_name[name] for name in wanted if name in by_name]


def _label_folders(tree: Folder, problems: list[Problem]) -> tuple[Path | None, Path | None]:
    """The folder of label files, and that of masks. ``masks`` holds the labels unless another folder does."""
    found = _named(tree, _LABEL_FOLDERS)
    masks = [name for name in found[1:] if name.lower() in _MASK_FOLDERS]
    for name in found[1:]:
        if name not in masks[:1]:
            message = f"A second folder of label files is left out; {found[0]} is taken."
            problems.append(Problem(tree.path / name, message))
    paths = [tree.path / name for name in (found[:1] + masks[:1] if found else [])]
    return (paths[0] if paths else None), (paths[1] if len(paths) > 1 else None)


def _by_stem(path: Path | None, problems: list[Problem]) -> dict[str, Path]:
    """The images of a folder by their names without ending, in natural order."""
    if path is None:
        return {}
    folder = list_folder(path)
    problems += unreadable_problem(path, folder.unreadable)
    found: dict[str, Path] = {}
    for name in folder.images:
        stem = strip_suffix(name)
        if stem in found:
            problems.append(Problem(path / name, f"This file is left out: {found[stem].name} has the same name."))
        else:
            found[stem] = path / name
    return found


def _take(paths: dict[str, Path], case_id: str) -> Path | None:
    """Take a case's label file out of those that are left: of the same name, or with a word such as ``_seg`` added."""
    if case_id in paths:
        return paths.pop(case_id)
    for stem in [stem for stem in paths if stem.startswith(case_id)]:
        name = read_name(stem)
        if name.kind in ("truth", "either", "mask") and name.rest == case_id:
            return paths.pop(stem)
    return None


def _grouped(
    images: dict[str, Path], truths: set[str], modalities: Sequence[str]
) -> list[tuple[str, dict[str, ImageFile]]]:
    """Group images into cases: one file each, or one per modality (``_0000`` or ``_flair``)."""
    parts = [] if truths & images.keys() else _numbered(images, modalities) or _worded(images)
    if not parts:
        channels = tuple(modalities) or _first_channels(images.values())
        return [(stem, in_one_file(path, channels)) for stem, path in images.items()]
    cases: dict[str, dict[str, ImageFile]] = {}
    for case_id, modality, path in parts:
        cases.setdefault(case_id, {})[modality] = ImageFile(path)
    return list(cases.items())


def _numbered(images: dict[str, Path], modalities: Sequence[str]) -> list[tuple[str, str, Path]]:
    """Case, channel and path of each image if all end in a channel's number and every case has ``_0000``."""
    found = [(re.fullmatch(r"(.+)_(\d{4})", stem), path) for stem, path in images.items()]
    parts = [(match[1], int(match[2]), path) for match, path in found if match]
    firsts = {case_id for case_id, channel, _ in parts if channel == 0}
    if not parts or len(parts) < len(images) or any(case_id not in firsts for case_id, *_ in parts):
        return []
    names = channel_names(max(channel for _, channel, _ in parts) + 1, modalities)
    return [(case_id, names[channel], path) for case_id, channel, path in parts]


def _worded(images: dict[str, Path]) -> list[tuple[str, str, Path]]:
    """Case, modality and path of each image if all names tell a modality, and not all the same."""
    found = [(read_name(stem), path) for stem, path in images.items()]
    if len({name.modality for name, _ in found}) < 2 or any(name.kind != "image" for name, _ in found):
        return []
    return [(name.rest, name.modality, path) for name, path in found]


def _first_channels(paths: Iterable[Path]) -> tuple[str, ...]:
    """Names for as many channels as the first readable file has. Damaged files are for `check_cases` to tell."""
    for path in paths:
        try:
            return channel_names(inspect_file(path).channels)
        except Seg3dError:
            continue
    return channel_names(1)
