"""Files to volumes and label maps, and back.

Reading checks the file to its last byte and answers everything that is wrong with one sentence that names it. Writing
keeps what the source file held: a label map that was read, changed and saved differs from its file in the changed
voxels only.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError, GeometryError, LabelError, Seg3dError
from . import nifti
from .atomic import write_whole
from .geometry import Geometry
from .volume import LabelMap, LabelTable, Source, Volume, distinct_values

#: Endings of the names of files that can be read and written; capitals do not matter.
IMAGE_SUFFIXES: tuple[str, ...] = (".nii", ".nii.gz")
#: More different values than this, and a file is not taken for a label map.
MOST_LABELS = 1000
#: From this many values on, they must also hang together in space as labels do.
_MANY_LABELS = 32
#: Labels stored as floats may be this far from integers, as somebody's arithmetic leaves them (0.99999997).
_LABEL_TOLERANCE = 1e-3
#: Labels are indices; a value beyond this is none. It fits every type from uint32 on.
_LARGEST_LABEL = 2**32 - 1
#: Largest integers that floating-point types store exactly.
_EXACT_TO = {2: 2**11, 4: 2**24, 8: 2**53}

_OTHER_FORMATS = {
    ".nrrd": "NRRD", ".nhdr": "NRRD", ".mha": "MetaImage", ".mhd": "MetaImage", ".hdr": "Analyze or a two-file NIfTI",
    ".img": "Analyze or a two-file NIfTI", ".dcm": "DICOM", ".tif": "TIFF", ".tiff": "TIFF", ".mgz": "FreeSurfer",
    ".mgh": "FreeSurfer", ".mnc": "MINC", ".npy": "NumPy", ".npz": "NumPy", ".h5": "HDF5", ".zarr": "Zarr",
}  # fmt: skip


@dataclass(frozen=True)
class FileInfo:
    """What the header of a file says.

    `channels` is the number of volumes along the fourth axis, 1 for an ordinary file; `dtype` the stored type, for
    example ``"int16"``; `notes` are sentences on what is odd though readable.
    """

    path: Path
    geometry: Geometry
    channels: int
    dtype: str
    notes: tuple[str, ...] = ()


def strip_suffix(path: str | os.PathLike[str]) -> str:
    """Return the name of an image file without folder and ending.

    Examples
    --------
    >>> strip_suffix("images/patient.01_T1.nii.gz")
    'patient.01_T1'
    """
    name = Path(path).name
    ending = _suffix(name)
    return name[: -len(ending)] if ending else name


def inspect_file(path: str | os.PathLike[str]) -> FileInfo:
    """Return what the header of an image file says, without reading its voxels.

    Raises
    ------
    FileError, GeometryError
        As `read_volume` does, as far as the header and the size of the file tell.
    """
    file = _readable(path)
    layout = nifti.read_layout(file, _shown(file))
    return FileInfo(file, layout.geometry, layout.channels, layout.dtype.name, layout.notes)


def read_volume(path: str | os.PathLike[str], *, channel: int | None = None, allow_nonfinite: bool = False) -> Volume:
    """Return the intensities of an image file.

    Parameters
    ----------
    path : path
        A ``.nii`` or ``.nii.gz`` file.
    channel : int, optional
        Which volume of a 4-D file, counted from 0.
    allow_nonfinite : bool
        Whether NaN and infinity may pass.

    Returns
    -------
    Volume
        (X, Y, Z) in the file's voxel order: integers in their stored type if they are not scaled, else float32; in the
        byte order of this computer. Odd but readable things are in ``source.notes``.

    Raises
    ------
    FileError
        If the file is missing, damaged, too large, not what its name says, not a volume of real numbers, or has NaN or
        infinite voxels.
    GeometryError
        If its affine is unusable or sheared.
    """
    file = _readable(path)
    content = nifti.read_content(file, _shown(file), channel)
    data = _intensities(content)
    if not allow_nonfinite:
        _check_finite(data, _shown(file))
    return Volume(data, content.layout.geometry, strip_suffix(file), _source(file, content))


def read_label_map(path: str | os.PathLike[str], table: LabelTable | None = None) -> LabelMap:
    """Return the labels of a file.

    Parameters
    ----------
    path : path
        A ``.nii`` or ``.nii.gz`` file of one volume of integers, 0 or greater. They may be stored as floats.
    table : LabelTable, optional
        Names and colours. Values of the file that it does not list get plain entries.

    Returns
    -------
    LabelMap
        (X, Y, Z) in the file's voxel order and the smallest unsigned integer type. Odd but readable things, such as a
        scaling that was ignored, are in ``source.notes``.

    Raises
    ------
    FileError, GeometryError
        As `read_volume` does.
    LabelError
        If there are values that are no label: fractions, negative ones, or so many that the file looks like an image.
    """
    file = _readable(path)
    shown = _shown(file)
    content = nifti.read_content(file, shown, None)
    _check_finite(content.stored, shown)
    values, notes = _label_values(content, table, shown)
    present = distinct_values(values)
    if looks_like_image(values, present):
        raise LabelError(
            f"{shown} looks like an image, not like labels: it holds {present.size:,} different values. "
            "Choose a label file."
        )
    return LabelMap(
        values,
        content.layout.geometry,
        (table or LabelTable()).covering(present.tolist()),
        strip_suffix(file),
        _source(file, content, labels=True, notes=notes),
    )


def write_label_map(
    path: str | os.PathLike[str], label_map: LabelMap, *, overwrite: bool = False, like: Source | None = None
) -> Path:
    """Write labels whole or not at all, and return the path.

    A map that was read from a label file and still lies on its grid is written into the same bytes: header,
    extensions and padding stay, only voxels change. If its values do not fit the type stored there, or it is new, it
    gets a fresh header in the smallest type that holds them, with the source's codes, units and, on the same grid,
    its very matrices.

    Parameters
    ----------
    path : path
        Ends in ``.nii`` or ``.nii.gz``; its folder exists.
    label_map : LabelMap
        What to write.
    overwrite : bool
        Whether a file of that name may be replaced.
    like : Source, optional
        For a new label map, such as a prediction: the source of an image on its grid. Nothing but the grid is taken.

    Raises
    ------
    FileError
        If the file cannot be written, with the cause in words, or does not read back as it should; an older file of
        that name is then as it was.
    GeometryError
        If the grid is sheared by more than is ever read (see `read_volume`).
    LabelError
        If there are negative values.
    """
    target = _writable(path)
    low, high = (int(label_map.data.min()), int(label_map.data.max()))
    if low < 0:
        raise LabelError(f"Cannot write {target.name}: expected labels of 0 or greater, got {low}.")
    before, dtype, after = _label_frame(label_map, high, like)
    _write(target, before, label_map.data.astype(dtype, copy=False), after, label_map.geometry, overwrite)
    return target


def write_volume(path: str | os.PathLike[str], volume: Volume, *, overwrite: bool = False) -> Path:
    """Write intensities whole or not at all, and return the path.

    Integers keep their type, bool becomes uint8, other floats become float32. The header is a fresh one, with codes and
    units of the volume's source if there is one.

    Raises
    ------
    FileError, GeometryError
        As `write_label_map` does.
    """
    target = _writable(path)
    if volume.data.dtype.kind not in "biuf":
        raise FileError(f"Cannot write {target.name}: expected real numbers, got {volume.data.dtype}.")
    kept = volume.data.dtype.newbyteorder("<")
    dtype = np.dtype({"b": "u1", "f": "<f4"}.get(volume.data.dtype.kind, kept))
    before = nifti.fresh_header(volume.geometry, dtype, labels=False, like=_header(volume.source))
    _write(target, before, volume.data.astype(dtype, copy=False), b"", volume.geometry, overwrite)
    return target


def looks_like_image(values: NDArray[Any], present: NDArray[Any]) -> bool:
    """Whether integers are intensities rather than labels, judged by how many there are and whether they hang together.

    Parameters
    ----------
    values : (X, Y, Z) ndarray
        Integers.
    present : (N,) ndarray
        The different ones among them, as `distinct_values` gives them.
    """
    if present.size > MOST_LABELS:
        return True
    if present.size < _MANY_LABELS:
        return False
    # Neighbours in an atlas of a hundred structures mostly agree; those in a noisy image hardly ever do.
    here, next_to_it = values[:-1], values[1:]
    labelled = (here != 0) | (next_to_it != 0)
    return bool(2 * np.count_nonzero(labelled & (here == next_to_it)) < np.count_nonzero(labelled))


def _suffix(name: str) -> str:
    return next((name[-len(s) :] for s in reversed(IMAGE_SUFFIXES) if name.lower().endswith(s)), "")


def _shown(path: Path) -> str:
    # The folder often is the case; the whole path may hold what should not stand in a log.
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def _readable(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if not _suffix(file.name) and not file.is_dir():
        raise FileError(f"{_shown(file)} {_not_ours(file)}")
    return file


def _writable(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if not _suffix(file.name):
        raise FileError(f"Cannot write {file.name}: it {_not_ours(file)}")
    return file


def _not_ours(file: Path) -> str:
    kind = _OTHER_FORMATS.get(file.suffix.lower())
    found = f"is a {kind} file by its name" if kind else "does not have the name of an image"
    return f"{found}; expected NIfTI (.nii or .nii.gz). Convert it, or choose another file."


def _source(file: Path, content: nifti.Content, *, labels: bool = False, notes: tuple[str, ...] = ()) -> Source:
    return Source(
        path=str(file),
        format=content.layout.format,
        header=content.before,
        trailer=content.after,
        stored_dtype=content.layout.dtype.str,
        size=content.size,
        mtime_ns=content.mtime_ns,
        holds_labels=labels,
        notes=(*content.layout.notes, *notes),
    )


def _check_finite(data: NDArray[Any], shown: str) -> None:
    if data.dtype.kind == "f" and (count := data.size - np.count_nonzero(np.isfinite(data))):
        raise FileError(
            f"{shown} has {count:,} of {data.size:,} voxels that are no finite number (NaN or infinity). "
            "Replace them, for example by 0, and save it again."
        )


def _intensities(content: nifti.Content) -> NDArray[Any]:
    stored, layout = content.stored, content.layout
    # Beyond float32 lies infinity, which is counted afterwards.
    with np.errstate(over="ignore", invalid="ignore"):
        if not layout.is_scaled:
            return stored.astype(np.float32) if stored.dtype == np.float64 else stored
        values = np.empty(stored.shape, np.float32, order="F")
        for z in range(stored.shape[2]):
            # In float64, so that large integers keep their last digits; slice by slice, so that this takes no memory.
            values[..., z] = np.multiply(stored[..., z], layout.slope, dtype=np.float64) + layout.intercept
    return values


# Absurd scalings overflow; what is no finite number then is no integer either, and refused.
@np.errstate(over="ignore", invalid="ignore")
def _label_values(content: nifti.Content, table: LabelTable | None, shown: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    stored, layout = content.stored, content.layout
    if not layout.is_scaled:
        return _as_labels(stored, shown)
    present = distinct_values(stored)
    scaled = present.astype(np.float64) * layout.slope + layout.intercept
    if np.abs(scaled - np.rint(scaled)).max() <= _LABEL_TOLERANCE:
        return _as_labels(stored.astype(np.float64) * layout.slope + layout.intercept, shown)
    if not _plausible(present, table):
        raise LabelError(
            f"{shown} holds fractions such as {_a_fraction(scaled):.4g}, because its values are scaled; expected "
            "integers. Save the labels again without scaling."
        )
    values, notes = _as_labels(stored, shown)
    return values, (*notes, "The header scales the labels to fractions; the integers stored in the file are used.")


def _plausible(present: NDArray[Any], table: LabelTable | None) -> bool:
    """Whether stored values are labels that only the header's scaling spoils."""
    values = set(present.tolist()) - {0}
    known = set(table.values) if table else set(range(1, min(len(values), _MANY_LABELS) + 1))
    return values <= known


def _as_labels(stored: NDArray[Any], shown: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return stored values in the smallest unsigned type, and notes."""
    away = _distance_to_integers(stored)
    rounded = np.rint(stored) if away else stored
    low, high = int(rounded.min()), int(rounded.max())
    if away > _LABEL_TOLERANCE or low < 0 or high > _LARGEST_LABEL:
        raise LabelError(f"{shown} {_why_no_labels(stored, low, high)}")
    notes = (f"Labels were rounded to integers (by at most {away:.1g}).",) if away else ()
    return rounded.astype(np.min_scalar_type(high), copy=False), notes


def _why_no_labels(stored: NDArray[Any], low: int, high: int) -> str:
    present = np.unique(stored)
    if present.size > _MANY_LABELS:
        return f"looks like an image, not like labels: it holds {present.size:,} different values. Choose a label file."
    if low < 0:
        return f"holds the negative value {low}; expected labels of 0 or greater. Give these voxels another number."
    if high > _LARGEST_LABEL:
        return f"holds the value {high}; expected labels of at most {_LARGEST_LABEL}. Give these voxels another number."
    return f"holds fractions such as {_a_fraction(present):.4g}; expected integers. Save the labels as integers."


def _distance_to_integers(stored: NDArray[Any]) -> float:
    return 0.0 if stored.dtype.kind in "iu" else float(np.abs(stored - np.rint(stored)).max())


def _a_fraction(values: NDArray[Any]) -> float:
    return float(values[np.argmax(np.abs(values - np.rint(values)))])


def _label_frame(label_map: LabelMap, high: int, like: Source | None) -> tuple[bytes, np.dtype[Any], bytes]:
    """Return the bytes before the voxels, the type they are stored in, and the bytes after them."""
    source = label_map.source
    own = _header(source)
    if source is not None and own is not None and nifti.frames(own, label_map.geometry):
        stored = np.dtype(source.stored_dtype)
        if source.holds_labels and high <= _largest_exact(stored) and not nifti.is_scaled(own):
            return source.header, stored, source.trailer
    elif like is not None:
        own = _header(like)
    dtype = _smallest_type(high)
    return nifti.fresh_header(label_map.geometry, dtype, labels=True, like=own), dtype, b""


def _header(source: Source | None) -> nifti.Header | None:
    # Volumes can come from elsewhere; then there is no header to take codes from.
    return nifti.parsed_header(source.header) if source is not None and source.format in nifti.FORMATS else None


def _largest_exact(dtype: np.dtype[Any]) -> int:
    return _EXACT_TO[dtype.itemsize] if dtype.kind == "f" else int(np.iinfo(dtype).max)


def _smallest_type(high: int) -> np.dtype[Any]:
    # int32 before uint32: many programs know no unsigned integers of four bytes.
    return next(dtype for dtype in map(np.dtype, ("<u1", "<u2", "<i4", "<u4", "<u8")) if high <= np.iinfo(dtype).max)


def _write(
    target: Path, before: bytes, stored: NDArray[Any], after: bytes, geometry: Geometry, overwrite: bool
) -> None:
    if geometry.shear_degrees > nifti.MOST_SHEAR_DEGREES:
        raise GeometryError(
            f"Cannot write {target.name}: its grid is sheared, its voxel axes are {geometry.shear_degrees:.2g} degrees "
            f"from perpendicular (up to {nifti.MOST_SHEAR_DEGREES:g} is taken). Resample the image to a straight grid "
            "first."
        )
    with write_whole(target, overwrite=overwrite) as temporary:
        nifti.write_content(temporary, before, stored, after, packed=target.name.lower().endswith(".gz"))
        if not _reads_back(temporary, before, stored, after, geometry):
            raise FileError(f"Cannot write {target.name}: it does not read back as it should. Choose another disk.")


def _reads_back(path: Path, before: bytes, stored: NDArray[Any], after: bytes, geometry: Geometry) -> bool:
    try:
        written = nifti.read_content(path, path.name)
    except Seg3dError:
        return False
    return (
        written.before == before
        and written.after == after
        and np.array_equal(written.stored, stored, equal_nan=stored.dtype.kind == "f")
        and written.layout.geometry.same_grid(geometry)
    )
