"""What lies in a folder: image files, image files we cannot read, folders; and what is odd about it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import DatasetError
from ..volumes.files import IMAGE_SUFFIXES
from .names import natural_key

#: Endings of image formats of the field. Those that `volumes.files` does not read are reported instead of overlooked.
_FORMATS = (
    ".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr", ".hdr", ".img", ".img.gz", ".mgz", ".mgh", ".mnc", ".dcm",
    ".tif", ".tiff", ".h5", ".npy", ".npz",
)  # fmt: skip
_DEEPEST = 4
_MOST_FOLDERS = 20_000


@dataclass(frozen=True)
class Problem:
    """Something odd about a dataset.

    Parameters
    ----------
    path : Path
        The file or folder it is about.
    message : str
        One or two sentences for the user.
    severity : {"error", "warning"}
        An error makes a case unusable as it is; a warning is something to look at.
    """

    path: Path
    message: str
    severity: Literal["error", "warning"] = "warning"


@dataclass(frozen=True)
class Folder:
    """What one folder holds, in natural order: names of readable images, of other images, of sub-folders."""

    path: Path
    images: tuple[str, ...]
    unreadable: tuple[str, ...]
    folders: tuple[str, ...]


def list_folder(path: Path) -> Folder:
    """Return what lies in a folder; hidden files and what other systems leave behind (``._x``, ``_x``) are passed over.

    Raises
    ------
    DatasetError
        If the folder cannot be read.
    """
    images, unreadable, folders = [], [], []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if is_leftover(name):
                    continue
                if entry.is_dir():
                    folders.append(name)
                elif is_image(name):
                    images.append(name)
                elif name.lower().endswith(_FORMATS):
                    unreadable.append(name)
    except OSError as error:
        raise DatasetError(f"The folder {path} cannot be read: {error.strerror}.") from error
    return Folder(path, *(tuple(sorted(names, key=natural_key)) for names in (images, unreadable, folders)))


def walk(root: Path, problems: list[Problem], depth: int = _DEEPEST) -> Iterator[Folder]:
    """Yield the folder and those below it, `depth` levels deep, parents first, in natural order.

    Folders below it that cannot be read are added to `problems`.

    Raises
    ------
    DatasetError
        If the folder itself cannot be read, or there are so many that this is not a dataset but somebody's disk.
    """
    waiting = [(root, 0)]
    seen = 0
    while waiting:
        path, level = waiting.pop()
        seen += 1
        if seen > _MOST_FOLDERS:
            raise DatasetError(
                f"{root} holds more than {_MOST_FOLDERS} folders. Choose the folder of the dataset itself."
            )
        try:
            folder = list_folder(path)
        except DatasetError as error:
            if path == root:
                raise
            problems.append(Problem(path, str(error)))
            continue
        yield folder
        if level < depth:
            waiting += [(path / name, level + 1) for name in reversed(folder.folders)]


def is_image(name: str) -> bool:
    """Whether a file's name has an ending that `volumes.files` reads."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_leftover(name: str) -> bool:
    """Whether a file is hidden, or what an archive from another system left behind (``._x``, ``__MACOSX``)."""
    return name.startswith((".", "_"))


def unreadable_problem(root: Path, names: Sequence[str]) -> list[Problem]:
    """One problem for all files in formats that cannot be read, or none."""
    if not names:
        return []
    endings = ", ".join(f"{n} {ending}" for ending, n in sorted(Counter(Path(name).suffix for name in names).items()))
    return [
        Problem(root, f"Files in formats that are not read ({endings}) are left out. Convert them to NIfTI (.nii.gz).")
    ]


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises
    ------
    DatasetError
        If the file is missing, is no JSON or holds something other than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not valid JSON: {error}. Mend or remove it.") from error
    if not isinstance(content, dict):
        raise DatasetError(f"Expected a JSON object in {path}, got a {type(content).__name__}.")
    return content
