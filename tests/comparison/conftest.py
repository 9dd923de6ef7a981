"""A small label map with a known error, on an oblique and anisotropic grid."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from napari_seg3d.cases.labels import MSD_BRAIN_TUMOUR
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap

SHAPE = (19, 23, 11)


def oblique_geometry() -> Geometry:
    angle = np.deg2rad(17)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    # Left-handed on purpose: the first axis runs to the patient's left.
    affine[:3, :3] = turn @ np.diag([-0.9, 1.2, 2.5])
    affine[:3, 3] = (10, -30, 42)
    return Geometry(SHAPE, affine)


def nested_labels() -> np.ndarray:
    """Oedema 1 around non-enhancing 2 around enhancing 3."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:15, 5:18, 2:9] = 1
    labels[6:13, 7:15, 3:8] = 2
    labels[8:11, 9:13, 4:7] = 3
    return labels


@pytest.fixture
def truth() -> LabelMap:
    return LabelMap(nested_labels(), oblique_geometry(), MSD_BRAIN_TUMOUR.table, "truth")


@pytest.fixture
def predicted() -> LabelMap:
    """The same, one voxel further along X."""
    return LabelMap(np.roll(nested_labels(), 1, axis=0), oblique_geometry(), MSD_BRAIN_TUMOUR.table, "predicted")


def write_labels(path: Path, labels: np.ndarray, geometry: Geometry | None = None) -> Path:
    """Write labels with nibabel, independent of the package."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = (geometry or oblique_geometry()).affine_voxel_to_world
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), affine), path)
    return path
