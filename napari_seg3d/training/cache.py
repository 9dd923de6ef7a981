"""Prepared cases on disk: each is made once, found again by its content, and read in parts.

An entry is a folder named by a SHA-256 over the files' bytes and over the settings of the plan that preparing depends
on. So a changed image, truth or setting never meets an old entry, and all runs of all datasets share the cache. Entries
are written beside their place and renamed, so that a killed program leaves none in halves. It may be deleted at any
time: what is missing is made again. Memory does not grow with the number of cases: a patch is copied out of its file
and nothing stays mapped.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from ..cases.case import Case, CaseFiles
from ..cases.checked import checked_file
from ..errors import FileError
from ..model.plan import Plan
from ..model.prepare import IGNORED, Grid, Prepared, prepare
from ..volumes.geometry import Geometry

Scalar = TypeVar("Scalar", bound=np.generic)
Source = Case | CaseFiles
Size = Sequence[int]

#: Raised when entries change, so that older ones are not found any more.
_VERSION = 1
#: Voxels remembered for each class of a case, from which patch centres are drawn.
PLACES_PER_CLASS = 5000
#: float16 holds up to 65504; a z-score beyond this is a broken voxel.
_LARGEST = 6e4
#: The cache is kept below this many gigabytes, apart from what the running training needs.
LIMIT_GB = 50.0
#: Folders of programs that were killed while writing are removed when they are older than this.
_ABANDONED_S = 86_400.0
_FACTS, _IMAGE, _TARGET, _PLACES = "facts.json", "image.npy", "target.npy", "places.npy"
#: Class of the places that stand for any known voxel, in cases whose truth is known in parts.
_KNOWN = 0


@dataclass(frozen=True, eq=False)
class StoredCase:
    """A prepared case on disk.

    Parameters
    ----------
    shape : (int, int, int)
        Voxels of the network's grid.
    places : one (n, 3) int16 ndarray for each class that occurs
        Voxels from which foreground patches are drawn.
    known : (n, 3) int16 ndarray, optional
        Where the truth is known in parts: voxels from which the other patches are drawn.
    grid : Grid
        The way back to the case's own grid.
    """

    id: str
    folder: Path
    shape: tuple[int, int, int]
    channels: int
    places: tuple[NDArray[np.int16], ...]
    known: NDArray[np.int16] | None
    grid: Grid
    source: Source

    @property
    def nbytes(self) -> int:
        """Size of image and target."""
        return (2 * self.channels + 1) * int(np.prod(self.shape))

    def image(self) -> NDArray[np.float16]:
        """Return the whole image (C, X, Y, Z)."""
        return self._part(_IMAGE, np.dtype(np.float16), (0, 0, 0), self.shape)

    def target(self) -> NDArray[np.uint8]:
        """Return the whole target (X, Y, Z): index of the class, 0 for background, 255 for not known."""
        return self._part(_TARGET, np.dtype(np.uint8), (0, 0, 0), self.shape)

    def cut(self, corner: Size, size: Size) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """Copy a box out of image (C, X, Y, Z) and target (X, Y, Z); what lies outside the volume is 0."""
        return (
            self._part(_IMAGE, np.dtype(np.float16), corner, size),
            self._part(_TARGET, np.dtype(np.uint8), corner, size),
        )

    def _part(self, name: str, dtype: np.dtype[Scalar], corner: Size, size: Size) -> NDArray[Scalar]:
        shape = (self.channels, *self.shape) if name == _IMAGE else self.shape
        try:
            # Mapped anew each time: pages that stay mapped count as this process's memory.
            whole = np.memmap(self.folder / name, dtype, "r", shape=shape)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOMEM:
                raise MemoryError from None  # which whoever trains can do something about
            raise FileError(
                f"The prepared case {self.id} is gone from the cache ({error}). Start again; it is then made anew."
            ) from None
        return cut_out(whole, corner, size)


class PreparedCache:
    """A folder of prepared cases.

    Parameters
    ----------
    folder : Path, optional
        By default what NAPARI_SEG3D_CACHE says, or else the user's cache folder.
    limit_gb : float, optional
        By default what NAPARI_SEG3D_CACHE_GB says, or else `LIMIT_GB`.
    """

    def __init__(self, folder: Path | None = None, limit_gb: float | None = None) -> None:
        self.folder = folder or Path(os.environ.get("NAPARI_SEG3D_CACHE") or user_cache_path("napari-seg3d", False))
        self.limit_gb = _limit_gb() if limit_gb is None else limit_gb
        self._in_use: set[str] = set()

    def case(self, source: Source, plan: Plan) -> StoredCase:
        """Return a case as this plan prepares it, from the cache or made now.

        Raises
        ------
        FileError
            If the cache cannot be written.
        Seg3dError
            As `napari_seg3d.model.prepare.prepare`.
        """
        key = _key(source, plan)
        self._in_use.add(key)
        folder = self.folder / key
        stored = _opened(folder, source)
        if stored is None:
            shutil.rmtree(folder, ignore_errors=True)
            prepared = prepare(source.load(), plan)
            try:
                self._write(folder, prepared, int(key[:8], 16))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise self._unwritable(error) from None
                self.trim(0.0)
                try:
                    self._write(folder, prepared, int(key[:8], 16))
                except OSError as second:
                    raise self._unwritable(second) from None
            stored = _opened(folder, source)
        if stored is None:
            raise FileError(f"The prepared case {source.id} cannot be read back from {self.folder}. Check that disk.")
        os.utime(folder / _FACTS)
        return stored

    def trim(self, limit_gb: float | None = None) -> None:
        """Remove what was not used for the longest time until the rest fits; never what this object has handed out."""
        limit = (self.limit_gb if limit_gb is None else limit_gb) * 1e9
        entries = sorted(self._entries(), key=lambda entry: entry[2], reverse=True)
        kept = sum(size for folder, size, _ in entries if folder.name in self._in_use)
        for folder, size, _ in entries:
            if folder.name in self._in_use:
                continue
            kept += size
            if kept > limit:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self.folder.glob("*.writing-*"):
            if time.time() - folder.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove all entries. Trainings that run need theirs: they fail in words and can be resumed."""
        for folder, _, _ in self._entries():
            shutil.rmtree(folder, ignore_errors=True)

    def size(self) -> tuple[int, int]:
        """Return the number of cases and their bytes."""
        sizes = [size for _, size, _ in self._entries()]
        return len(sizes), sum(sizes)

    def _entries(self) -> Iterator[tuple[Path, int, float]]:
        """Yield folder, bytes, and the time of the last use of each entry."""
        for facts in self.folder.glob(f"*/{_FACTS}"):
            try:
                size = sum(file.stat().st_size for file in facts.parent.iterdir())
                yield facts.parent, size, facts.stat().st_mtime
            except OSError:
                continue  # another program has just removed it

    def _write(self, folder: Path, prepared: Prepared, seed: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        writing = folder.with_name(f"{folder.name}.writing-{secrets.token_hex(4)}")
        writing.mkdir()
        try:
            _dump(writing / _IMAGE, np.clip(prepared.image, -_LARGEST, _LARGEST).astype(np.float16))
            if prepared.target is not None:
                _dump(writing / _TARGET, prepared.target)
                _dump(writing / _PLACES, _places(prepared.target, np.random.default_rng(seed)))
            facts = {"version": _VERSION, "shape": prepared.image.shape, "grid": _plain(prepared.grid)}
            (writing / _FACTS).write_text(json.dumps(facts), "utf-8")
            try:
                writing.rename(folder)
            except OSError:
                if not (folder / _FACTS).is_file():
                    raise
        finally:
            # Another program may have been faster; its entry is the same.
            shutil.rmtree(writing, ignore_errors=True)

    def _unwritable(self, error: OSError) -> FileError:
        return FileError(
            f"Prepared cases cannot be written to {self.folder}: {error.strerror or error}. Make room there, or set "
            "NAPARI_SEG3D_CACHE to another folder."
        )


def cut_out(array: NDArray[Scalar], corner: Size, size: Size) -> NDArray[Scalar]:
    """Copy a box out of the last three axes of an array; what lies outside is 0."""
    here, there = overlap(corner, size, array.shape[-3:])
    out = np.zeros((*array.shape[:-3], *size), array.dtype)
    out[..., there[0], there[1], there[2]] = array[..., here[0], here[1], here[2]]
    return out


def overlap(corner: Size, size: Size, whole: Size) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where a box meets a volume: slices into the volume, and the same voxels as slices into the box."""
    here: list[slice] = []
    there: list[slice] = []
    for first, length, end in zip(corner, size, whole, strict=True):
        start, stop = max(0, first), min(end, first + length)
        here.append(slice(start, max(start, stop)))
        there.append(slice(start - first, max(start, stop) - first))
    return tuple(here), tuple(there)


def _key(source: Source, plan: Plan) -> str:
    settings = {
        "version": _VERSION,
        "modalities": plan.modalities,
        "labels": [label.value for label in plan.labels],
        "ignore": plan.ignore_value,
        "spacing": plan.spacing_mm,
        "crop": plan.crop_to_foreground,
        "normalisation": plan.normalisation,
        "clip": plan.clip_percentiles,
        "smooth": plan.smooth_sigma_voxels,
        "sharpen": plan.sharpening,
        "ct": {name: window.model_dump() for name, window in plan.ct_windows.items()},
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for part in _content(source, plan):
        digest.update(part)
    return digest.hexdigest()


def _content(source: Source, plan: Plan) -> Iterator[bytes]:
    """Yield what a case consists of, as bytes that differ when the case does."""
    if isinstance(source, CaseFiles):
        digests: dict[Path, bytes] = {}
        for name in plan.modalities:
            if (image := source.modalities.get(name)) is not None:
                if image.path not in digests:
                    digests[image.path] = _file_digest(image.path)
                yield f"|{name}|{image.channel}|".encode() + digests[image.path]
        truth = source.best_truth
        for label, path in (("truth", truth), ("mask", source.mask), ("checked", truth and checked_file(truth))):
            if path is not None and path.is_file():
                yield f"|{label}|".encode() + _file_digest(path)
        # What crops the foreground is every modality, not only those of the plan.
        for name in sorted(set(source.modalities) - set(plan.modalities)):
            yield f"|also {name}|".encode() + _file_digest(source.modalities[name].path)
        return
    yield source.geometry.affine_voxel_to_world.tobytes()
    arrays = {name: volume.data for name, volume in source.modalities.items()}
    arrays |= {} if source.truth is None else {"truth": source.truth.data}
    arrays |= {} if source.mask is None else {"mask": source.mask}
    for name, array in arrays.items():
        yield f"|{name}|{array.dtype}|{array.shape}|".encode()
        yield hashlib.sha256(np.ascontiguousarray(array).data).digest()
    yield json.dumps(source.checked).encode()


def _file_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise FileError(f"{path.name} cannot be read: {error.strerror or error}.") from None


def _opened(folder: Path, source: Source) -> StoredCase | None:
    """Open an entry; None if it is not there, or not whole."""
    try:
        facts = json.loads((folder / _FACTS).read_text("utf-8"))
        channels, x, y, z = (int(n) for n in facts["shape"])
        grid = _grid(facts["grid"])
        voxels = x * y * z
        if facts["version"] != _VERSION or (folder / _IMAGE).stat().st_size != 2 * channels * voxels:
            return None
        places: NDArray[np.int16] = np.zeros((0, 4), np.int16)
        if (folder / _TARGET).is_file():
            places = np.fromfile(folder / _PLACES, np.int16).reshape(-1, 4)
            if (folder / _TARGET).stat().st_size != voxels:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    by_class = {int(c): places[places[:, 0] == c, 1:] for c in np.unique(places[:, 0])}
    known = by_class.pop(_KNOWN, None)
    return StoredCase(source.id, folder, (x, y, z), channels, tuple(by_class.values()), known, grid, source)


def _places(target: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.int16]:
    """Draw voxels of each class: (n, 4), the class and the voxel."""
    found = [np.zeros((0, 4), np.int16)]
    classes: Collection[int] = [int(value) for value in np.unique(target) if value not in (0, IGNORED)]
    for index in classes:
        found.append(_sample(index, np.flatnonzero(target == index), target.shape, rng))
    if (target == IGNORED).any():
        found.append(_sample(_KNOWN, np.flatnonzero(target != IGNORED), target.shape, rng))
    return np.concatenate(found)


def _sample(index: int, flat: NDArray[np.intp], shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int16]:
    chosen = flat if flat.size <= PLACES_PER_CLASS else rng.choice(flat, PLACES_PER_CLASS, replace=False)
    voxels = np.stack(np.unravel_index(chosen, shape), axis=1)
    return np.insert(voxels, 0, index, axis=1).astype(np.int16)


def _dump(path: Path, array: NDArray[Any]) -> None:
    with path.open("wb") as file:
        # Not np.save: reading a part must not parse a header each time.
        np.ascontiguousarray(array).tofile(file)


def _plain(grid: Grid) -> dict[str, Any]:
    geometries = {"case": grid.case, "network": grid.network}
    plain = {name: [list(g.shape), g.affine_voxel_to_world.tolist()] for name, g in geometries.items()}
    return {**plain, "box": grid.box}


def _grid(values: dict[str, Any]) -> Grid:
    def geometry(shape: Sequence[int], affine: Sequence[Sequence[float]]) -> Geometry:
        x, y, z = (int(n) for n in shape)
        return Geometry((x, y, z), np.array(affine, float))

    x, y, z = ((int(start), int(stop)) for start, stop in values["box"])
    return Grid(geometry(*values["case"]), (x, y, z), geometry(*values["network"]))


def _limit_gb() -> float:
    try:
        return float(os.environ.get("NAPARI_SEG3D_CACHE_GB", LIMIT_GB))
    except ValueError:
        return LIMIT_GB
