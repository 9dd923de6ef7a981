"""Folders as datasets lie in the wild; images are written with nibabel, not with the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

SHAPE = (6, 9, 5)
Tree = Callable[..., Path]


def oblique_affine() -> np.ndarray:
    """Left-handed, anisotropic and turned: nothing about it is like another axis."""
    turn = np.linalg.qr(np.array([[9.0, 1.0, -0.5], [-1.2, 8.0, 0.7], [0.3, -0.6, 7.0]]))[0]
    turn *= np.sign(np.diag(turn))
    affine = np.eye(4)
    affine[:3, :3] = turn * (-1.0, 1.2, 3.0)
    affine[:3, 3] = (21.0, -13.0, 4.5)
    return affine


def write_nifti(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, oblique_affine() if affine is None else affine), path)
    return path


def image(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def labels(*values: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A slab of two slices for each value."""
    data = np.zeros(shape, np.uint8)
    for i, value in enumerate(values or (1, 2)):
        data[:, 2 * i : 2 * i + 2, 1:4] = value
    return data


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make empty files of these names: whoever opened one of them would fail, as opening a dataset reads no voxel."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "data"

    return make
