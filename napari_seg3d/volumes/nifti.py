"""The NIfTI format, bytes to arrays and back, with a guard before anything is believed or allocated.

Only NIfTI-1 and NIfTI-2 in one file are read, told by their magic bytes, plain (``.nii``) or gzipped (``.nii.gz``). What a
header claims is held against the size of the file and the memory of the computer before the voxels get their place, and a
gzip stream is read to its end, where its checksum stands: a flipped bit cannot pass for a slightly different label map.
"""

from __future__ import annotations

import io
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import psutil
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from ..errors import FileError, GeometryError
from .geometry import Geometry

#: Deflate, the compression of gzip, shrinks at most this much.
MOST_DEFLATED = 1032
#: One file may take this part of the computer's memory.
MEMORY_PART = 0.25
#: Fast, and within some 5 % of the size at the highest level for label maps.
GZIP_LEVEL = 4
#: Above this the voxel axes are too far from perpendicular for distances along them to be distances in the patient.
MOST_SHEAR_DEGREES = 1.0
INTENT_LABEL = 1002

_PIECE = 1 << 17
_HEADER_SIZES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
#: Length of one unit of the header in mm; 0 is "unknown", which all programs take for mm.
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_FORM_FIELDS = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip

Header = nib.Nifti1Header  # Nifti2Header derives from it.


@dataclass(frozen=True)
class Layout:
    """What a checked header says.

    `shape` is that of one channel; `channels` counts the volumes along the fourth and further axes. `dtype` is the stored
    one with byte order, `offset` the first voxel's place in the unpacked file. A `slope` of 1 and `intercept` of 0 means
    that stored values are values. `notes` are sentences on oddities.
    """

    header: Header
    geometry: Geometry
    channels: int
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    notes: tuple[str, ...]

    @property
    def channel_bytes(self) -> int:
        """Bytes of one channel."""
        return math.prod(self.geometry.shape) * self.dtype.itemsize

    @property
    def is_scaled(self) -> bool:
        """Whether stored values must be scaled to become values."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    @property
    def format(self) -> str:
        """``"NIfTI-1"`` or ``"NIfTI-2"``."""
        return "NIfTI-2" if isinstance(self.header, nib.Nifti2Header) else "NIfTI-1"


@dataclass(frozen=True)
class Content:
    """A whole file: its checked header, the bytes before and after the voxels, and one channel as stored.

    `stored` is (X, Y, Z) in the byte order of this computer.
    """

    layout: Layout
    before: bytes
    stored: NDArray[Any]
    after: bytes
    size: int
    mtime_ns: int


def read_layout(path: Path, shown: str) -> Layout:
    """Read and check the header only; `shown` is how messages name the file. Raises as `read_content` does."""
    with _opened(path, shown) as (stream, facts, packed):
        return _checked_layout(_first_bytes(stream, shown), facts.st_size, packed, shown)


def read_content(path: Path, shown: str, channel: int | None) -> Content:
    """Read a whole file, checked to its last byte.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file.
    shown : str
        How messages name it.
    channel : int, optional
        Which one, if there are several.

    Raises
    ------
    FileError
        If the file is missing, damaged, of another kind, of a kind of voxel that is no number, or too large.
    GeometryError
        If its affine is unusable.
    """
    with _opened(path, shown) as (stream, facts, packed):
        first = _first_bytes(stream, shown)
        layout = _checked_layout(first, facts.st_size, packed, shown)
        channel = _chosen(channel, layout.channels, shown)
        try:
            before = first + _take(stream, layout.offset - len(first), shown)
            _skip(stream, channel * layout.channel_bytes, shown)
            stored = np.empty(math.prod(layout.geometry.shape), layout.dtype)
            _fill(stream, memoryview(stored).cast("B"), shown)
            _skip(stream, (layout.channels - 1 - channel) * layout.channel_bytes, shown)
            after = _rest(stream, memory_budget_bytes() - layout.channel_bytes, shown)
        except MemoryError:
            raise FileError(f"{shown} does not fit into the memory that is free. Close other programs.") from None
    if not stored.dtype.isnative:
        stored = stored.byteswap(inplace=True).view(stored.dtype.newbyteorder("="))
    return Content(
        layout, before, stored.reshape(layout.geometry.shape, order="F"), after, facts.st_size, facts.st_mtime_ns
    )


def write_content(path: Path, before: bytes, stored: NDArray[Any], after: bytes, *, packed: bool) -> None:
    """Write a file: `stored` (X, Y, Z) in the byte order of its dtype between two runs of bytes.

    Gzipped files carry no name and no date, so that the same content gives the same bytes.
    """
    voxels = memoryview(stored.reshape(-1, order="F")).cast("B")
    with path.open("wb") as file:
        if not packed:
            for part in (before, voxels, after):
                file.write(part)
            return
        deflater = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, wbits=31)
        for part in (before, voxels, after):
            file.write(deflater.compress(part))
        file.write(deflater.flush())


def parsed_header(before: bytes) -> Header:
    """Return the header in a file's first bytes, unchecked but for its size, which tells version and byte order.

    Raises
    ------
    FileError
        If the first four bytes are not the size of a NIfTI header.
    """
    for size, kind in _HEADER_SIZES.items():
        for order, found in zip("<>", _both_orders(before), strict=True):
            if found == size:
                return kind(before[:size], endianness=order, check=False)
    raise FileError("Expected a NIfTI header, got other bytes.")


def frames(header: Header, geometry: Geometry) -> bool:
    """Whether a checked header is that of one channel on this very grid."""
    shape, channels = _checked_shape(header, "")
    return shape == geometry.shape and channels == 1 and _same_forms(header, geometry)


def is_scaled(header: Header) -> bool:
    """Whether a checked header scales what is stored."""
    return _checked_scaling(header, "") != (1.0, 0.0)


def fresh_header(geometry: Geometry, dtype: np.dtype[Any], *, labels: bool, like: Header | None = None) -> bytes:
    """Return the first bytes of a new file: a header without anything but shape, type, grid and intent, and no extension.

    Parameters
    ----------
    geometry : Geometry
        The grid.
    dtype : dtype
        How voxels are stored.
    labels : bool
        Whether they are labels, which the intent then says.
    like : Header, optional
        Another file's, from which the format's version, codes and units are taken, and on the same grid both forms as
        they are. Nothing else is: an image's header can carry a patient's name.
    """
    version_2 = isinstance(like, nib.Nifti2Header) or max(geometry.shape) > np.iinfo(np.int16).max
    header = (nib.Nifti2Header if version_2 else nib.Nifti1Header)(endianness="<")
    header.set_data_shape(geometry.shape)
    header.set_data_dtype(dtype)
    header.set_slope_inter(1.0, 0.0)
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    if labels:
        header["intent_code"] = INTENT_LABEL
    if like is not None and _same_forms(like, geometry):
        for name in _FORM_FIELDS:
            header[name] = like[name]
        header["pixdim"][:4] = like["pixdim"][:4]
        header["xyzt_units"] = int(like["xyzt_units"]) & 7
    else:
        _set_forms(header, geometry, like)
    return bytes(header.binaryblock) + bytes(4)


def memory_budget_bytes() -> int:
    """Bytes that one file may take: a quarter of the computer's memory."""
    return int(psutil.virtual_memory().total * MEMORY_PART)


def _same_forms(like: Header, geometry: Geometry) -> bool:
    try:
        return Geometry(geometry.shape, _affine(like)).same_grid(geometry)
    except (GeometryError, HeaderDataError, ValueError):
        return False


def _set_forms(header: Header, geometry: Geometry, like: Header | None) -> None:
    codes = (0, 0) if like is None else (int(like["sform_code"]), int(like["qform_code"]))
    sform_code, qform_code = codes if any(codes) else (1, 1)
    affine = geometry.affine_voxel_to_world
    header.set_xyzt_units("mm")
    # The quaternion cannot hold a shear, so the sform must carry a sheared grid.
    if geometry.shear_degrees > 1e-3:
        sform_code, qform_code = sform_code or qform_code, 0
    # set_qform also writes the spacing; with code 0 it is set all the same and then means nothing.
    header.set_qform(affine, qform_code, strip_shears=True)
    if sform_code:
        header.set_sform(affine, sform_code)
    else:
        header["sform_code"] = 0


def _affine(header: Header) -> NDArray[np.float64]:
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    affine[:3] *= _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    return affine


@contextmanager
def _opened(path: Path, shown: str) -> Iterator[tuple[BinaryIO, os.stat_result, bool]]:
    """Yield the unpacked stream of a file, the file's size and date, and whether it is packed."""
    if path.is_dir():
        raise FileError(f"{shown} is a folder. Choose a NIfTI file in it.")
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise FileError(f"{shown} does not exist.") from None
    except OSError as error:
        raise FileError(f"{shown} cannot be opened: {error.strerror or error}.") from error
    with file:
        facts = os.fstat(file.fileno())
        packed = path.name.lower().endswith(".gz")
        starts_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if facts.st_size == 0:
            raise FileError(f"{shown} is empty (0 bytes). Get a fresh copy.")
        if packed != starts_packed:
            raise FileError(
                f"{shown} is {'not gzipped' if packed else 'gzipped'}, against its name. Rename it or get a fresh copy."
            )
        try:
            yield (_Inflater(file) if packed else file), facts, packed
        except zlib.error:
            raise FileError(f"{shown} is damaged: its compressed data do not pass their check. {_FRESH}") from None
        except EOFError:
            raise FileError(f"{shown} is cut off in the middle of its compressed data. {_FRESH}") from None
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise FileError(f"{shown} cannot be read: {error.strerror or error}.") from error


_FRESH = "Get a fresh copy."


class _Inflater(io.RawIOBase):
    """The unpacked bytes of a gzip file. zlib checks the length and checksum of each member when it ends.

    Several times faster than the standard library's, which reads in small pieces; nibabel's stops before the checksum.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflater = zlib.decompressobj(wbits=31)
        self._packed = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while True:
            if self._inflater.eof and not self._next_member():
                return 0
            at_end = not self._packed and not (packed := self._file.read(_PIECE))
            self._packed = self._packed or (b"" if at_end else packed)
            piece = self._inflater.decompress(self._packed, min(len(view), _PIECE))
            self._packed = self._inflater.unconsumed_tail
            if piece:
                view[: len(piece)] = piece
                return len(piece)
            if at_end and not self._inflater.eof:
                raise EOFError

    def _next_member(self) -> bool:
        # Members may follow each other, and zeros may pad the end; anything else fails as a member and is told.
        rest = self._inflater.unused_data.lstrip(b"\0")
        while not rest and (rest := self._file.read(_PIECE)):
            rest = rest.lstrip(b"\0")
        if not rest:
            return False
        self._inflater, self._packed = zlib.decompressobj(wbits=31), rest
        return True


def _fill(stream: BinaryIO, view: memoryview, shown: str) -> None:
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise FileError(f"{shown} is cut off: it ends before its voxels do. {_FRESH}")
        filled += count


def _take(stream: BinaryIO, count: int, shown: str) -> bytes:
    taken = bytearray(count)
    _fill(stream, memoryview(taken), shown)
    return bytes(taken)


def _skip(stream: BinaryIO, count: int, shown: str) -> None:
    scratch = memoryview(bytearray(min(count, _PIECE)))
    while count:
        step = min(count, _PIECE)
        _fill(stream, scratch[:step], shown)
        count -= step


def _rest(stream: BinaryIO, most: int, shown: str) -> bytes:
    pieces: list[bytes] = []
    while piece := stream.read(_PIECE):
        pieces.append(piece)
        most -= len(piece)
        if most < 0:
            raise FileError(f"{shown} unfolds to more than its voxels and a quarter of the memory. {_FRESH}")
    return b"".join(pieces)


def _first_bytes(stream: BinaryIO, shown: str) -> bytes:
    """Return the bytes of the header and the four behind it, which announce extensions."""
    try:
        first = _take(stream, 4, shown)
        size = next((size for size in _HEADER_SIZES if size in _both_orders(first)), 348)
        return first + _take(stream, size, shown)
    except FileError:
        raise FileError(f"{shown} is too short to hold a NIfTI header. {_FRESH}") from None


def _both_orders(first: bytes) -> tuple[int, int]:
    return int.from_bytes(first[:4], "little"), int.from_bytes(first[:4], "big")


def _checked_layout(first: bytes, size: int, packed: bool, shown: str) -> Layout:
    header = _checked_header(first, shown)
    offset = _checked_offset(header, shown)
    shape, channels = _checked_shape(header, shown)
    dtype = _checked_dtype(header, shown)
    _check_size(offset, math.prod(shape) * dtype.itemsize, channels, size, packed, shown)
    slope, intercept = _checked_scaling(header, shown)
    geometry, notes = _checked_geometry(header, shape, shown)
    if int(header["bitpix"]) != 8 * dtype.itemsize:
        notes += (f"The header says {int(header['bitpix'])} bits per voxel where {dtype.name} has {8 * dtype.itemsize}.",)
    return Layout(header, geometry, channels, dtype, offset, slope, intercept, notes)


def _checked_header(first: bytes, shown: str) -> Header:
    try:
        header = parsed_header(first)
    except FileError:
        raise FileError(f"{shown} does not hold a NIfTI image, whatever its name says. {_FRESH}") from None
    magic = bytes(header["magic"])
    if magic.rstrip(b"\0") != bytes(header.single_magic).rstrip(b"\0"):
        if magic[:2] in (b"ni", b"\0\0", b""):
            raise FileError(f"{shown} is the header of a two-file image (.hdr and .img). Convert it to one NIfTI file.")
        raise FileError(f"{shown} does not hold a NIfTI image, or its header is damaged. {_FRESH}")
    return header


def _checked_offset(header: Header, shown: str) -> int:
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or offset < header.single_vox_offset or offset != int(offset):
        raise FileError(f"{shown} is damaged: its header puts the voxels at byte {offset:g}. {_FRESH}")
    return int(offset)


def _checked_shape(header: Header, shown: str) -> tuple[tuple[int, int, int], int]:
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise FileError(f"{shown} is damaged: its header claims {axes} axes. {_FRESH}")
    sizes = tuple(int(n) for n in header["dim"][1 : axes + 1])
    if axes < 3:
        raise FileError(f"{shown} is a {axes}-D image ({_times(sizes)}); expected a volume of three axes.")
    if min(sizes) < 1:
        raise FileError(f"{shown} has no voxels: its size is {_times(sizes)}. {_FRESH}")
    return (sizes[0], sizes[1], sizes[2]), math.prod(sizes[3:])


def _checked_dtype(header: Header, shown: str) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in (128, 2304):
        raise FileError(f"{shown} is a colour image (RGB); expected one number per voxel. Convert it to grey values.")
    if code in (32, 1792, 2048):
        raise FileError(f"{shown} holds complex numbers; expected real ones. Save its magnitude as a new file.")
    try:
        dtype = np.dtype(header.get_data_dtype())
    except HeaderDataError:
        raise FileError(f"{shown} is damaged: its header names an unknown voxel type ({code}). {_FRESH}") from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise FileError(f"{shown} stores voxels in a type that is not supported ({dtype}). Save it as float32.")
    return dtype


def _check_size(offset: int, channel_bytes: int, channels: int, size: int, packed: bool, shown: str) -> None:
    claimed = offset + channel_bytes * channels
    if claimed > (size * MOST_DEFLATED if packed else size):
        raise FileError(
            f"{shown} is cut off or damaged: its header claims {_bytes_in_words(claimed)} "
            f"of voxels, the file has {_bytes_in_words(size)}. {_FRESH}"
        )
    if offset + channel_bytes > memory_budget_bytes():
        raise FileError(
            f"{shown} needs {_bytes_in_words(offset + channel_bytes)} of memory, more than a quarter of this computer's. "
            "Crop or resample it first."
        )


def _checked_scaling(header: Header, shown: str) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # Zero and NaN mean "not scaled"; the intercept then means nothing either.
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise FileError(f"{shown} is damaged: its values are scaled by {slope} and {intercept}. {_FRESH}")
    return slope, intercept


def _checked_geometry(header: Header, shape: tuple[int, int, int], shown: str) -> tuple[Geometry, tuple[str, ...]]:
    try:
        geometry = Geometry(shape, _affine(header))
    except (GeometryError, HeaderDataError, ValueError) as error:
        raise GeometryError(f"{shown} does not say where it lies in the patient. {error}") from None
    if geometry.shear_degrees > MOST_SHEAR_DEGREES:
        raise GeometryError(
            f"{shown} is sheared: its voxel axes are {geometry.shear_degrees:.2g} degrees from perpendicular. "
            "Resample it onto a straight grid first."
        )
    return geometry, tuple(_geometry_notes(header, geometry))


def _geometry_notes(header: Header, geometry: Geometry) -> Iterator[str]:
    if geometry.is_sheared:
        yield f"The voxel axes are {geometry.shear_degrees:.1g} degrees from perpendicular; distances are that inexact."
    if (unit := int(header["xyzt_units"]) & 7) in (1, 3):
        yield f"The header counts in {'metres' if unit == 1 else 'micrometres'}; converted to millimetres."
    if not (header["sform_code"] or header["qform_code"]):
        yield "The file does not say which way the patient lies (no sform, no qform); left and right are a guess."
    if header["sform_code"] > 0 and header["qform_code"] > 0:
        yield from _note_on_forms(header, geometry)


def _note_on_forms(header: Header, geometry: Geometry) -> Iterator[str]:
    try:
        affine = np.array(header.get_qform(), dtype=np.float64)
        affine[:3] *= _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
        difference = geometry.difference(Geometry(geometry.shape, affine))
    except (GeometryError, HeaderDataError, ValueError):
        difference = "the qform is unusable"
    if difference:
        yield f"The file gives two places in the patient, sform and qform ({difference}); the sform is used."


def _chosen(channel: int | None, channels: int, shown: str) -> int:
    if channels == 1 and channel is None:
        return 0
    if channel is None:
        raise FileError(
            f"{shown} holds {channels} volumes (4-D); expected one. Choose one of them, 0 to {channels - 1}, "
            "or split the file."
        )
    if not 0 <= channel < channels:
        raise FileError(f"{shown} has no volume {channel}: it holds {channels}, counted from 0.")
    return channel


def _times(numbers: tuple[int, ...]) -> str:
    return "×".join(map(str, numbers))


def _bytes_in_words(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"
