"""Fixtures for all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real studies that tests may read; skips where it is absent."""
    folder = Path(os.environ.get("NAPARI_SEG3D_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real studies are not here ({folder}); set NAPARI_SEG3D_DATA to their folder")
    return folder.resolve()
