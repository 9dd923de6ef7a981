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
    os.environ["NAPARI_SEG3D_CACHE"] = str(home / "cache")
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


@pytest.fixture(scope="session")
def tiny_case():
    """Make small labelled cases, anisotropic and oblique: `tiny_case(number)` has two modalities and nested labels."""
    import numpy as np
    from nibabel.affines import from_matvec
    from scipy.ndimage import gaussian_filter
    from scipy.spatial.transform import Rotation

    from napari_seg3d.cases.case import Case
    from napari_seg3d.volumes.geometry import Geometry
    from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume

    def make(number: int = 0, *, shape=(21, 26, 13), spacing=(1.5, 1.2, 2.5), values=(1, 2)) -> Case:
        rng = np.random.default_rng(number)
        turn = Rotation.from_euler("xyz", (4, -7, 11), degrees=True).as_matrix() @ np.diag((-1, 1, 1))  # left-handed
        geometry = Geometry(shape, from_matvec(turn @ np.diag(spacing), (12.5, -30, 7)))
        centre = np.array(shape) / 2 + rng.uniform(-2, 2, 3)
        place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - centre
        radius = np.linalg.norm(place * spacing, axis=-1)
        truth = np.zeros(shape, np.uint8)
        truth[radius < 11] = values[0]
        truth[radius < 6] = values[1]
        noise = [gaussian_filter(rng.standard_normal(shape), 0.7) for _ in range(2)]
        flair = 100 * (truth > 0) + 40 * (truth == values[1]) + 40 * noise[0] + 300
        t1c = 150 * (truth == values[1]) + 40 * noise[1] + 200
        volumes = {
            name: Volume(data.astype(np.float32), geometry, name) for name, data in {"FLAIR": flair, "T1c": t1c}.items()
        }
        table = LabelTable.from_names({values[0]: "oedema", values[1]: "enhancing tumour"})
        return Case(f"case{number:02d}", volumes, LabelMap(truth, geometry, table))

    return make


@pytest.fixture(scope="session")
def tiny_plan(tiny_case):
    """Make plans that train in seconds: `tiny_plan(**changes)` fits the tiny cases."""
    from napari_seg3d.cases.fingerprint import fingerprint
    from napari_seg3d.events import result_of
    from napari_seg3d.model.planner import make_plan

    facts = result_of(fingerprint([tiny_case(0), tiny_case(1)]))

    def make(**changes):
        small = {"network.widths": (4, 8, 16), "epochs": 2, "steps_per_epoch": 3, "targets": "classes"}
        stages = {"network.kernels": ((3, 3, 3),) * 3, "network.strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2))}
        # One setting at a time would contradict the others on the way.
        base = make_plan(facts, device="cpu", epochs=2, changes={**small, **stages, "patch_voxels": (16, 16, 8)})
        return base.changed(changes)

    return make
