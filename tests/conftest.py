"""Fixtures for all rooms, and the surroundings in which every test runs."""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import pytest


def _settle_environment() -> None:
    """Set what must stand before napari, Qt, numpy or torch are first imported.

    pytest reads this file before any test module and before pytest-qt chooses a binding.
    """
    # The developer's own preferences are neither read nor overwritten (napari's viewer fixture resets the settings).
    home = Path(tempfile.mkdtemp(prefix="seg3d-tests-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["NAPARI_CONFIG"] = str(home / "napari.yaml")
    os.environ["XDG_CONFIG_HOME"] = str(home / "config")
    # Touching a viewer from a worker thread raises instead of crashing later.
    os.environ["NAPARI_ENSURE_PLUGIN_MAIN_THREAD"] = "1"

    # QtPy and pytest-qt prefer different bindings where several are installed: both get the same answer.
    bindings = [name for name in ("PyQt5", "PyQt6", "PySide6") if importlib.util.find_spec(name)]
    chosen = os.environ.get("QT_API") or os.environ.get("PYTEST_QT_API") or (bindings[0] if bindings else "")
    if chosen:
        os.environ["QT_API"] = os.environ["PYTEST_QT_API"] = chosen.lower()

    # One thread a process: several test processes share the cores, and sums come out the same on every machine.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


_settle_environment()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real studies that tests may read; skips where it is absent."""
    folder = Path(os.environ.get("NAPARI_SEG3D_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real studies are not here ({folder}); set NAPARI_SEG3D_DATA to their folder")
    return folder.resolve()
