"""The NIfTI format, bytes to arrays and back, with a guard before anything is believed or allocated.

Only NIfTI-1 and NIfTI-2 in one file are read, told by their magic bytes, plain (``.nii``) or gzipped (``.nii.gz``).
What a header claims is held against the size of the file and the memory of the computer before the voxels get their
place, and a gzip stream is read to its end, where its checksum stands: a flipped bit cannot pass for a slightly
different label map.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
import psutil
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from ..errors import FileError, GeometryError
from .geometry import Geometry
from .streams import FRESH_COPY, Stream, opened

#: One file may take this part of the computer's memory.
MEMORY_PART = 0.25
#: Nifti2Header derives from it.
Header: TypeAlias = nib.Nifti1Header

#: Hardly larger files than at the default level 6, in three quarters of the time.
GZIP_LEVEL = 4
#: Above this the voxel axes are too far from perpendicular for distances along them to be distances in the patient.
MOST_SHEAR_DEGREES = 1.0
INTENT_LABEL = 1002
FORMATS = ("NIfTI-1", "NIfTI-2")

_HEADER_SIZES: dict[int, Callable[..., Header]] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
#: Length of one unit of the header in mm; 0 is "unknown", which all programs take for mm.
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_QUATERNION = ("quatern_b", "quatern_c", "quatern_d")
_FORM_FIELDS = (
    "qform_code", "sform_code", *_QUATERNION, "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What a checked header says.

    `shape` is that of one channel; `channels` counts the volumes along the fourth and further axes. `dtype` is the
    stored one with byte order, `offset` the first voxel's place in the unpacked file. A `slope` of 1 and `intercept`
    of 0 means that stored values are values. `notes` are sentences on oddities.
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
        """One of `FORMATS`."""
        return FORMATS[isinstance(self.header, nib.Nifti2Header)]


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
    """Return what the header says, without reading further; parameters and errors are those of `read_content`."""
    with opened(path, shown) as stream:
        return _checked_layout(_first_bytes(stream), stream)


def read_content(path: Path, shown: str, channel: int | None = None) -> Content:
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
    with opened(path, shown) as stream:
        first = _first_bytes(stream)
        layout = _checked_layout(first, stream)
        channel = _chosen(channel, layout.channels, shown)
        try:
            before = first + stream.take(layout.offset - len(first))
            stream.skip(channel * layout.channel_bytes)
            stored = np.empty(math.prod(layout.geometry.shape), layout.dtype)
            stream.fill(stored.view(np.uint8).data)
            stream.skip((layout.channels - 1 - channel) * layout.channel_bytes)
            after = stream.rest(memory_budget_bytes())
        except MemoryError:
            raise FileError(f"{shown} does not fit into the memory that is free. Close other programs.") from None
    if not stored.dtype.isnative:
        stored = stored.byteswap(inplace=True).view(stored.dtype.newbyteorder("="))
    stored = stored.reshape(layout.geometry.shape, order="F")
    return Content(layout, before, stored, after, stream.size, stream.mtime_ns)


def write_content(path: Path, before: bytes, stored: NDArray[Any], after: bytes, *, packed: bool) -> None:
    """Write a file: `stored` (X, Y, Z) in the byte order of its dtype between two runs of bytes.

    Gzipped files carry no name and no date, so that the same content gives the same bytes.
    """
    parts = (before, stored.reshape(-1, order="F").view(np.uint8).data, after)
    with path.open("wb") as file:
        if not packed:
            file.writelines(parts)
            return
        deflater = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, wbits=31)
        file.writelines(deflater.compress(part) for part in parts)
        file.write(deflater.flush())


def parsed_header(before: bytes) -> Header:
    """Return the header in a file's first bytes, unchecked but for its size, which tells version and byte order.

    Small faults in how it places the voxels are repaired as everybody else repairs them; the bytes stay as they are.

    Raises
    ------
    FileError
        If the first four bytes are not the size of a NIfTI header.
    """
    for size, kind in _HEADER_SIZES.items():
        for order, found in zip("<>", _both_orders(before), strict=True):
            if found == size:
                header = kind(before[:size], endianness=order, check=False)
                _repair_forms(header)
                return header
    raise FileError("Expected a NIfTI header, got other bytes.")


def frames(header: Header, geometry: Geometry) -> bool:
    """Whether a checked header is that of one channel on this very grid."""
    shape, channels = _checked_shape(header, "")
    return shape == geometry.shape and channels == 1 and _same_forms(header, geometry)


def is_scaled(header: Header) -> bool:
    """Whether a checked header scales what is stored."""
    return _checked_scaling(header, "") != (1.0, 0.0)


def fresh_header(geometry: Geometry, dtype: np.dtype[Any], *, labels: bool, like: Header | None = None) -> bytes:
    """Return the first bytes of a new file: a header with shape, type, grid and intent, and no extension.

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
    header = nib.Nifti2Header(endianness="<") if version_2 else nib.Nifti1Header(endianness="<")
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
        header["xyzt_units"] = int(like["xyzt_units"]) & 7
        header["pixdim"][:4] = like["pixdim"][:4]
        # Where only the sform counts, some programs leave the spacings at 1; else they belong to the form.
        spacing = np.array(geometry.spacing_mm) / _unit_mm(like)
        if like["sform_code"] > 0 and like["qform_code"] == 0 and not np.allclose(like["pixdim"][1:4], spacing):
            header["pixdim"][1:4] = spacing
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
    return _in_mm(header.get_best_affine(), header)


def _in_mm(affine: NDArray[Any], header: Header) -> NDArray[np.float64]:
    affine = np.array(affine, dtype=np.float64)
    affine[:3] *= _unit_mm(header)
    return affine


def _unit_mm(header: Header) -> float:
    # nibabel leaves units alone; ITK converts them as is done here.
    return _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)


def _repair_forms(header: Header) -> None:
    """Mend what nibabel and the reference library mend when they load a file."""
    for code in ("sform_code", "qform_code"):
        if not 0 <= header[code] <= 5:
            header[code] = 0
    if abs(header["pixdim"][0]) != 1:
        header["pixdim"][0] = 1
    spacing = np.abs(header["pixdim"][1:4])
    header["pixdim"][1:4] = np.where(spacing == 0, 1, spacing)
    # Rounding can make the quaternion's vector part longer than 1, which leaves no real scalar part.
    length = math.hypot(*(float(header[part]) for part in _QUATERNION))
    if 1 < length < math.inf:
        for part in _QUATERNION:
            header[part] /= length


def _first_bytes(stream: Stream) -> bytes:
    """Return the bytes of the header and the four behind it, which announce extensions."""
    try:
        first = stream.take(4)
        size = next((size for size in _HEADER_SIZES if size in _both_orders(first)), 348)
        return first + stream.take(size)
    except FileError:
        raise FileError(f"{stream.shown} is too short to hold a NIfTI header. {FRESH_COPY}") from None


def _both_orders(first: bytes) -> tuple[int, int]:
    return int.from_bytes(first[:4], "little"), int.from_bytes(first[:4], "big")


def _checked_layout(first: bytes, stream: Stream) -> Layout:
    shown = stream.shown
    header = _checked_header(first, shown)
    offset = _checked_offset(header, shown)
    shape, channels = _checked_shape(header, shown)
    dtype = _checked_dtype(header, shown)
    _check_size(offset, math.prod(shape) * dtype.itemsize, channels, stream)
    slope, intercept = _checked_scaling(header, shown)
    geometry, notes = _checked_geometry(header, shape, shown)
    if (bits := int(header["bitpix"])) != 8 * dtype.itemsize:
        notes += (f"The header says {bits} bits per voxel, but {dtype.name} has {8 * dtype.itemsize}.",)
    return Layout(header, geometry, channels, dtype, offset, slope, intercept, notes)


def _checked_header(first: bytes, shown: str) -> Header:
    try:
        header = parsed_header(first)
    except FileError:
        raise FileError(f"{shown} does not hold a NIfTI image, whatever its name says. {FRESH_COPY}") from None
    magic = bytes(header["magic"])
    if magic.rstrip(b"\0") != bytes(header.single_magic).rstrip(b"\0"):
        if magic[:2] in (b"ni", b"\0\0", b""):
            raise FileError(f"{shown} is the header of a two-file image (.hdr and .img). Convert it to one NIfTI file.")
        raise FileError(f"{shown} does not hold a NIfTI image, or its header is damaged. {FRESH_COPY}")
    return header


def _checked_offset(header: Header, shown: str) -> int:
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or offset < header.single_vox_offset or offset != int(offset):
        raise FileError(f"{shown} is damaged: its header puts the voxels at byte {offset:g}. {FRESH_COPY}")
    return int(offset)


def _checked_shape(header: Header, shown: str) -> tuple[tuple[int, int, int], int]:
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise FileError(f"{shown} is damaged: its header claims {axes} axes. {FRESH_COPY}")
    sizes = tuple(int(n) for n in header["dim"][1 : axes + 1])
    if axes < 3:
        raise FileError(f"{shown} is a {axes}-D image ({_times(sizes)}); expected a volume of three axes.")
    if min(sizes) < 1:
        raise FileError(f"{shown} has no voxels: its size is {_times(sizes)}. {FRESH_COPY}")
    return (sizes[0], sizes[1], sizes[2]), math.prod(sizes[3:])


def _checked_dtype(header: Header, shown: str) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in (128, 2304):
        raise FileError(f"{shown} is a colour image (RGB); expected one number per voxel. Convert it to grey values.")
    if code in (32, 1792, 2048):
        raise FileError(f"{shown} holds complex numbers; expected real ones. Save its magnitude as a new file.")
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (KeyError, HeaderDataError):
        raise FileError(f"{shown} is damaged: its header names an unknown voxel type ({code}). {FRESH_COPY}") from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise FileError(f"{shown} stores voxels in a type that is not supported ({dtype}). Save it as float32.")
    return dtype


def _check_size(offset: int, channel_bytes: int, channels: int, stream: Stream) -> None:
    claimed = offset + channel_bytes * channels
    if claimed > stream.most_bytes:
        found = f"{_in_words(stream.size)}{' compressed' if stream.most_bytes > stream.size else ''}"
        raise FileError(
            f"{stream.shown} is cut off or damaged: its header claims {_in_words(claimed)}, the file has {found}. "
            + FRESH_COPY
        )
    if (needed := offset + channel_bytes) > memory_budget_bytes():
        raise FileError(
            f"{stream.shown} needs {_in_words(needed)} of memory, more than a quarter of this computer's. "
            "Crop or resample it first."
        )


def _checked_scaling(header: Header, shown: str) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # Zero and NaN mean "not scaled"; the intercept then means nothing either.
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise FileError(f"{shown} is damaged: its values are scaled by {slope} and {intercept}. {FRESH_COPY}")
    return slope, intercept


# A damaged header can hold anything; what is not finite in the end is refused.
@np.errstate(all="ignore")
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
        difference = geometry.difference(Geometry(geometry.shape, _in_mm(header.get_qform(), header)))
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


def _in_words(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
