"""Corrected label maps with their history.

They lie in ``<folder>/<case>/v001.nii.gz``, ``v002.nii.gz`` …, each beside a JSON sidecar. A version is never written
over. The sidecar tells who saved it when, on what it is based and what changed; it holds no path outside the folder and
nothing from an image's header, so that it can be passed on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError, FileError, GeometryError
from ..volumes.atomic import write_text_whole
from ..volumes.files import write_label_map
from ..volumes.volume import LabelMap
from .listing import read_json
from .names import natural_key

_VERSION = re.compile(r"v(\d{3,})\.nii\.gz")
#: Two windows may save at once; whoever loses takes the next number, this often.
_TRIES = 100


@dataclass(frozen=True)
class Correction:
    """One saved version of a case's label map.

    Parameters
    ----------
    version : int
        From 1.
    path : Path
    date : str
        ISO 8601, UTC; empty where the sidecar is missing, like all that follows.
    author : str
    parent : str
        What it is based on: a file name, with the folder below the corrections where it lies there.
    seconds : float
        Time spent.
    changed : mapping of int to (int, int)
        Label value -> voxels added and removed against the parent.
    sha256 : str
        Of the file.
    voxels : int, optional
        How many voxels have another label than in the parent.
    parents : tuple of str
        All that it was made of, if it is more than one: a consensus of two raters.
    """

    version: int
    path: Path
    date: str = ""
    author: str = ""
    parent: str = ""
    seconds: float = 0.0
    changed: Mapping[int, tuple[int, int]] | None = None
    sha256: str = ""
    voxels: int | None = None
    parents: tuple[str, ...] = ()


def save_correction(
    folder: Path,
    case_id: str,
    label_map: LabelMap,
    *,
    based_on: LabelMap | None = None,
    author: str = "",
    seconds: float = 0.0,
    parents: Sequence[str | Path] = (),
) -> Path:
    """Save a label map as the next version of a case, and return its path.

    Parameters
    ----------
    folder : Path
        The folder of all corrections of a dataset; made if it is missing.
    case_id : str
    label_map : LabelMap
        Written with its source's geometry (see `napari_seg3d.volumes.files.write_label_map`).
    based_on : LabelMap, optional
        What was corrected, on the same grid; None for a map begun from nothing.
    author : str
    seconds : float
        Time spent on it.
    parents : sequence of str or Path
        Of a consensus, the files that it was made of (or what they are called).

    Raises
    ------
    DatasetError
        If the case id cannot be a folder's name.
    GeometryError
        If `based_on` lies on another grid.
    FileError
        If the folder cannot be written to.
    """
    target = _case_folder(folder, case_id)
    if based_on is not None and (difference := label_map.geometry.difference(based_on.geometry)):
        raise GeometryError(
            f"The correction of {case_id} does not lie on the grid of what it is based on ({difference})."
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"The folder {target} cannot be made: {error.strerror}.") from error
    path = _write_next(target, label_map)
    facts: dict[str, Any] = {
        "case": case_id,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "author": author,
        "parent": "" if based_on is None or based_on.source is None else _shown(Path(based_on.source.path), folder),
        "seconds": round(float(seconds), 1),
        "changed": {str(value): counts for value, counts in _changes(label_map, based_on).items()},
        "voxels": int(np.count_nonzero(label_map.data if based_on is None else label_map.data != based_on.data)),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    if parents:
        facts["parents"] = [_shown(one, folder) if isinstance(one, Path) else one for one in parents]
    write_text_whole(_sidecar(path), json.dumps(facts, indent=1) + "\n")
    return path


def versions(folder: Path, case_id: str) -> list[Correction]:
    """Return the saved versions of a case, oldest first; an empty list if there are none.

    Raises
    ------
    DatasetError
        If a sidecar is damaged.
    """
    target = _case_folder(folder, case_id)
    if not target.is_dir():
        return []
    found = [(int(match[1]), path) for path in target.iterdir() if (match := _VERSION.fullmatch(path.name))]
    return [_correction(version, path) for version, path in sorted(found)]


def author_of(path: Path) -> str:
    """Return who saved a version; empty if that is not known, or the file is no version."""
    if not _VERSION.fullmatch(path.name):
        return ""
    try:
        return _correction(0, path).author
    except DatasetError:
        return ""


def latest_corrections(folder: Path) -> dict[str, Path]:
    """Return the newest version of every corrected case; an empty dict if the folder is not there (yet)."""
    if not folder.is_dir():
        return {}
    newest: dict[str, Path] = {}
    for target in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)):
        if not target.name.startswith(".") and target.is_dir():
            found = [(int(match[1]), path) for path in target.iterdir() if (match := _VERSION.fullmatch(path.name))]
            if found:
                newest[target.name] = max(found)[1]
    return newest


def _case_folder(folder: Path, case_id: str) -> Path:
    if not case_id or case_id.startswith(".") or Path(case_id).name != case_id or "\\" in case_id:
        raise DatasetError(f"The case id {case_id!r} cannot be the name of a folder. Rename the case.")
    return folder / case_id


def _write_next(target: Path, label_map: LabelMap) -> Path:
    taken = [int(match[1]) for path in target.iterdir() if (match := _VERSION.fullmatch(path.name))]
    first = max(taken, default=0) + 1
    for version in range(first, first + _TRIES):
        path = target / f"v{version:03d}.nii.gz"
        if not path.exists():
            try:
                return write_label_map(path, label_map)
            except FileError:
                if not path.exists():
                    raise
    raise FileError(f"No free version number was found in {target}: somebody else is saving there all the time.")


def _changes(label_map: LabelMap, based_on: LabelMap | None) -> dict[int, tuple[int, int]]:
    """Voxels added and removed per label; all are added where there was nothing before."""
    new = label_map.data
    old = np.zeros_like(new) if based_on is None else based_on.data
    changed = new != old
    added, added_counts = np.unique(new[changed], return_counts=True)
    removed, removed_counts = np.unique(old[changed], return_counts=True)
    plus = dict(zip(added.tolist(), added_counts.tolist(), strict=True))
    minus = dict(zip(removed.tolist(), removed_counts.tolist(), strict=True))
    return {value: (plus.get(value, 0), minus.get(value, 0)) for value in sorted((plus.keys() | minus.keys()) - {0})}


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".nii.gz") + ".json")


def _shown(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _correction(version: int, path: Path) -> Correction:
    sidecar = _sidecar(path)
    if not sidecar.is_file():
        return Correction(version, path)
    facts: dict[str, Any] = read_json(sidecar)
    try:
        changed = {int(value): (int(plus), int(minus)) for value, (plus, minus) in facts["changed"].items()}
        texts = {name: str(facts[name]) for name in ("date", "author", "parent", "sha256")}
        voxels = int(facts["voxels"]) if "voxels" in facts else None
        parents = tuple(str(parent) for parent in facts.get("parents", ()))
        return Correction(
            version, path, seconds=float(facts["seconds"]), changed=changed, voxels=voxels, parents=parents, **texts
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"The history in {sidecar} is damaged ({error!r}); the label map beside it is untouched."
        ) from error
