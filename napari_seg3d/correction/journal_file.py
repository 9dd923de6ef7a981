r"""The file of a journal of edits, byte by byte; `journal` writes it as edits happen.

``seg3d-journal 1\n``, then a header (length and CRC-32 as two uint32, JSON text), then records. All numbers are little
endian. A record is

========  =====================================================================================================
bytes     meaning
========  =====================================================================================================
0-3       ``EDIT``
4, 5      kind (`EDIT`, `UNDO`, `REDO`, `SNAPSHOT`), 0
6-7       bytes of words (uint16)
8-11      bytes of payload (uint32)
12-19     number of the edit (uint64), one more than before; a snapshot has that of the last edit in it
20-27     when, seconds since 1970 in UTC (float64)
28-35     voxels (uint64)
36-39     CRC-32 of bytes 0-35, words and payload
40-       words (UTF-8, what was done), payload
========  =====================================================================================================

The payload is a zlib stream of the changed voxels in C order of the grid: distance of each to the one before (uint32;
uint64 on grids of more than 2³² voxels), then their old labels, then their new ones in the header's ``dtype``. Whatever
follows the last whole record, such as one torn by a crash, does not count.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CorrectionError, FileError, GeometryError
from ..volumes.geometry import Geometry
from ..volumes.volume import LabelMap

#: Kinds of records. A snapshot stands first and for all edits before it.
EDIT, UNDO, REDO, SNAPSHOT = 1, 2, 3, 4
SUFFIX = ".journal"

_MAGIC = b"seg3d-journal 1\n"
_BLOCK = struct.Struct("<II")
_RECORD = struct.Struct("<4sBBHIQdQ")
_CRC = struct.Struct("<I")
_MARKER = b"EDIT"
_LARGEST_FILE, _LARGEST_HEADER = 1 << 30, 1 << 16


@dataclass(frozen=True)
class Base:
    """What a journal's edits begin with.

    Parameters
    ----------
    case_id : str
    version : str
        What was loaded: for example the file name of a prediction or a saved correction.
    source_sha256 : str
        Of the file that was loaded; empty where there is none.
    voxels_sha256 : str
        Of the label values themselves.
    shape : (int, int, int)
    affine : tuple of 16 float
        Voxel to world, row by row.
    dtype : str
        numpy's name of the labels' type, little endian.
    first : int
        Number of the first edit after it.
    """

    case_id: str
    version: str
    source_sha256: str
    voxels_sha256: str
    shape: tuple[int, int, int]
    affine: tuple[float, ...]
    dtype: str
    first: int


@dataclass(frozen=True, eq=False)
class Record:
    """One edit as it stands in the file, its voxels still packed."""

    kind: int
    sequence: int
    when_s: float
    voxels: int
    words: str
    payload: bytes = field(repr=False)


def journal_path(folder: Path, case_id: str) -> Path:
    """Return where the journal of a case lies.

    Raises
    ------
    CorrectionError
        If the case id cannot be a file's name.
    """
    if not case_id or case_id.startswith(".") or Path(case_id).name != case_id or "\\" in case_id:
        raise CorrectionError(f"The case id {case_id!r} cannot be the name of a file. Rename the case.")
    return folder / f"{case_id}{SUFFIX}"


def flat_labels(data: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return a copy of labels as one row in C order."""
    return np.array(data, dtype=dtype, order="C").reshape(-1)


def digest_of(flat: NDArray[Any]) -> str:
    """Return the SHA-256 of `flat_labels`."""
    return hashlib.sha256(flat.tobytes()).hexdigest()


def _stored_type(data: NDArray[Any]) -> str:
    return data.dtype.newbyteorder("<").str if data.dtype.itemsize > 1 else data.dtype.str


def base_of(case_id: str, base: LabelMap, version: str, source_sha256: str, *, first: int) -> Base:
    """Return what a journal begins with; see `Base`."""
    dtype = _stored_type(base.data)
    affine = tuple(float(number) for number in base.geometry.affine_voxel_to_world.ravel())
    digest = digest_of(flat_labels(base.data, dtype))
    return Base(case_id, version, source_sha256, digest, base.geometry.shape, affine, dtype, first)


def check_base(begun: Base, base: LabelMap, path: Path) -> None:
    """Refuse a label map that is not, voxel for voxel, what a journal began with.

    Raises
    ------
    GeometryError, CorrectionError
        If it lies on another grid; if it holds other labels.
    """
    grid = Geometry(begun.shape, np.reshape(begun.affine, (4, 4)))
    if difference := grid.difference(base.geometry):
        raise GeometryError(f"The edits in {path.name} were made on another grid ({difference}).")
    if digest_of(flat_labels(base.data, begun.dtype)) != begun.voxels_sha256:
        raise CorrectionError(
            f"The edits in {path.name} began with other labels than these. Load {begun.version or 'what was edited'}."
        )


def _index_type(voxels: int) -> str:
    return "<u4" if voxels < 1 << 32 else "<u8"


def packed(
    kind: int,
    sequence: int,
    when_s: float,
    words: str,
    flat: NDArray[np.intp],
    old: NDArray[Any],
    new: NDArray[Any],
    grid_voxels: int,
) -> bytes:
    """Return an edit as bytes: what stood at ascending flat places, and what stands there now."""
    distances = np.diff(flat, prepend=0).astype(_index_type(grid_voxels))
    payload = zlib.compress(distances.tobytes() + old.tobytes() + new.tobytes(), 1)
    text = words.encode("utf-8")[:1000].decode("utf-8", "ignore").encode("utf-8")
    head = _RECORD.pack(_MARKER, kind, 0, len(text), len(payload), sequence, when_s, len(flat))
    return b"".join((head, _CRC.pack(zlib.crc32(payload, zlib.crc32(text, zlib.crc32(head)))), text, payload))


def unpacked(record: Record, begun: Base, path: Path) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[Any]]:
    """Return places, old and new labels of a record; everything is checked, for the file may come from anywhere."""
    size = int(np.prod(begun.shape, dtype=np.int64))
    index, label = np.dtype(_index_type(size)), np.dtype(begun.dtype)
    expected = record.voxels * (index.itemsize + 2 * label.itemsize)
    problem = FileError(f"Edit {record.sequence} in {path.name} cannot be understood; the file is damaged.")
    if record.voxels > size:
        raise problem
    unpacker = zlib.decompressobj()
    try:
        # One byte more than expected would be too many: no payload can unfold beyond the grid.
        content = unpacker.decompress(record.payload, expected + 1)
    except zlib.error:
        raise problem from None
    if len(content) != expected or unpacker.unconsumed_tail or (expected and not unpacker.eof):
        raise problem
    places = record.voxels * index.itemsize
    distances = np.frombuffer(content[:places], index)
    if np.any(distances >= size) or np.any(distances[1:] == 0):
        raise problem
    flat = np.cumsum(distances.astype(np.int64)).astype(np.intp)
    if len(flat) and flat[-1] >= size:
        raise problem
    old, new = np.frombuffer(content[places:], label).reshape(2, record.voxels)
    return flat, old, new


def header_bytes(base: Base) -> bytes:
    """Return the beginning of a file, up to its records."""
    text = json.dumps(
        {
            "case": base.case_id,
            "version": base.version,
            "source_sha256": base.source_sha256,
            "voxels_sha256": base.voxels_sha256,
            "shape": base.shape,
            "affine": base.affine,
            "dtype": base.dtype,
            "first": base.first,
        }
    ).encode("utf-8")
    return b"".join((_MAGIC, _BLOCK.pack(len(text), zlib.crc32(text)), text))


def content_of(path: Path) -> bytes:
    """Return a whole file.

    Raises
    ------
    FileError
        If it cannot be read, or is larger than any journal.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise FileError(f"{path.name} is too large for a journal of edits.")
        return path.read_bytes()
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"Cannot read {path.name}: {error.strerror or error}.") from error


def header_of(content: bytes, path: Path) -> tuple[Base, int]:
    """Return what a journal begins with, and where its records start.

    Raises
    ------
    FileError
        If it is no journal, or its beginning is damaged.
    """
    start = len(_MAGIC) + _BLOCK.size
    if not content.startswith(_MAGIC) or len(content) < start:
        raise FileError(f"{path.name} is no journal of edits, or one of another version of this program.")
    length, crc = _BLOCK.unpack_from(content, len(_MAGIC))
    text = content[start : start + length]
    damaged = FileError(f"The beginning of {path.name} is damaged, so its edits cannot be restored.")
    if length > _LARGEST_HEADER or len(text) < length or zlib.crc32(text) != crc:
        raise damaged
    try:
        facts: dict[str, Any] = json.loads(text)
        x, y, z = (int(size) for size in facts["shape"])
        affine = tuple(float(number) for number in facts["affine"])
        texts = [facts[name] for name in ("case", "version", "source_sha256", "voxels_sha256")]
        dtype = np.dtype(facts["dtype"])
        base = Base(texts[0], texts[1], texts[2], texts[3], (x, y, z), affine, dtype.str, int(facts["first"]))
        Geometry(base.shape, np.reshape(affine, (4, 4)))
        sound = all(type(value) is str for value in texts) and dtype.kind in "iu" and base.first >= 0
        if not sound or journal_path(path.parent, base.case_id).name != path.name:
            raise damaged
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, AttributeError):
        raise damaged from None
    return base, start + length


def _record_at(content: bytes, start: int) -> tuple[Record, int] | None:
    """Return the record that begins here and where it ends; None if it is not whole."""
    body = start + _RECORD.size + _CRC.size
    if len(content) < body:
        return None
    marker, kind, spare, words, payload, sequence, when_s, voxels = _RECORD.unpack_from(content, start)
    end = body + words + payload
    if marker != _MARKER or spare or kind not in (EDIT, UNDO, REDO, SNAPSHOT) or end > len(content):
        return None
    (crc,) = _CRC.unpack_from(content, start + _RECORD.size)
    if zlib.crc32(content[body:end], zlib.crc32(content[start : start + _RECORD.size])) != crc:
        return None
    text = content[body : body + words].decode("utf-8", "replace")
    return Record(kind, sequence, when_s, voxels, text, content[body + words : end]), end


def records_of(content: bytes, start: int, begun: Base) -> Iterator[tuple[Record, int]]:
    """Yield whole records in their order, each with its end, until there is one that is not whole."""
    expected = begun.first
    while (found := _record_at(content, start)) is not None:
        record, start = found
        # Numbers go up one by one; only a snapshot, which comes first, stands for many.
        snapshot_first = record.kind == SNAPSHOT and expected == begun.first and record.sequence >= begun.first
        if not snapshot_first and (record.kind == SNAPSHOT or record.sequence != expected):
            return
        expected = record.sequence + 1
        yield record, start


def holds_records(content: bytes, start: int, sequence: int) -> bool:
    """Whether there are whole, later records behind what could not be read."""
    place = content.find(_MARKER, start)
    while place >= 0:
        found = _record_at(content, place)
        if found is not None and found[0].sequence > sequence:
            return True
        place = content.find(_MARKER, place + 1)
    return False
