"""NIfTI files of every kind, made byte by byte without the package; grids that are oblique, flipped and anisotropic."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap

SHAPE = (7, 9, 5)
SPACING_MM = (0.9, 1.1, 2.5)


def affine_of(codes: str = "RAS", degrees: float = 0.0) -> np.ndarray:
    """Affine of an anisotropic grid whose axes run as `codes` says, then turned about an odd axis."""
    world_axis = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
    matrix = np.zeros((3, 3))
    for column, code in enumerate(codes):
        matrix[world_axis[code], column] = SPACING_MM[column] * (1 if code in "RAS" else -1)
    axis = np.array([2.0, -1.0, 3.0]) / np.sqrt(14)
    cross = np.cross(np.eye(3), axis)
    angle = np.deg2rad(degrees)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    affine = np.eye(4)
    affine[:3, :3] = turn @ matrix
    affine[:3, 3] = (-31.25, 17.5, 8.75)
    return affine


def labels_of(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Blocks of 0 to 4, no two voxels of an axis in the same relation."""
    labels = np.zeros(shape, np.uint8)
    labels[1:4, 2:8, 1:4] = 1
    labels[2:5, 3:5, 2:] = 2
    labels[5:, 1:3, :2] = 4
    return labels


def nifti_bytes(
    stored: np.ndarray,
    affine: np.ndarray | None = None,
    *,
    dtype: str = "<u1",
    version: int = 1,
    slope: float = 0.0,
    intercept: float = 0.0,
    codes: tuple[int, int] = (1, 1),
    extension: bytes = b"",
    trailer: bytes = b"",
    **fields: Any,
) -> bytes:
    """A whole NIfTI file; `codes` are those of sform and qform, `fields` overwrite the header's at the end."""
    affine = affine_of("LPS", 20) if affine is None else affine
    kind = {1: nibabel.Nifti1Header, 2: nibabel.Nifti2Header}[version]
    header = kind(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_shape(stored.shape)
    header.set_data_dtype(np.dtype(dtype))
    header.set_sform(affine, codes[0])
    header.set_qform(affine, codes[1], strip_shears=True)
    header.set_xyzt_units("mm", "sec")
    header["scl_slope"], header["scl_inter"] = slope, intercept
    header["magic"] = header.single_magic
    header["descrip"] = b"DOE^JANE"
    header["cal_max"] = 77
    header["vox_offset"] = header.single_vox_offset + len(extension)
    for name, value in fields.items():
        header[name] = value
    announced = bytes([1 if extension else 0, 0, 0, 0])
    voxels = stored.astype(np.dtype(dtype)).tobytes(order="F")
    return header.binaryblock + announced + extension + voxels + trailer


#: A comment of 32 bytes, as an extension is laid out: length, code 6, text.
EXTENSION = (32).to_bytes(4, "little") + (6).to_bytes(4, "little") + b"patient DOE^JANE".ljust(24, b"\0")


@dataclass(frozen=True)
class Maker:
    """Writes files into a test's folder."""

    folder: Path

    def __call__(self, name: str = "scan.nii.gz", stored: np.ndarray | None = None, **choices: Any) -> Path:
        """A NIfTI file, packed if its name says so."""
        return self.raw(name, nifti_bytes(labels_of() if stored is None else stored, **choices))

    def raw(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(gzip.compress(content, 6) if name.lower().endswith(".gz") else content)
        return path

    @staticmethod
    def unpacked(path: Path) -> bytes:
        content = path.read_bytes()
        return gzip.decompress(content) if path.name.lower().endswith(".gz") else content


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


@pytest.fixture
def affine() -> Callable[..., np.ndarray]:
    return affine_of


@pytest.fixture
def labels() -> np.ndarray:
    return labels_of()


@pytest.fixture
def extension() -> bytes:
    return EXTENSION


@pytest.fixture
def label_map() -> LabelMap:
    """On an oblique, left-handed, anisotropic grid; not read from a file."""
    return LabelMap(labels_of(), Geometry(SHAPE, affine_of("LAS", 25)))
