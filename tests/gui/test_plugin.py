"""What napari sees of the package: manifest, reader, writer, sample data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from npe2 import PluginManager, PluginManifest

import napari_seg3d
from napari_seg3d.errors import FileError
from napari_seg3d.gui.layers import origin_of
from napari_seg3d.gui.plugin import get_reader, read_files, sample_brain, write_labels
from napari_seg3d.volumes.files import read_label_map, write_label_map
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap

from .conftest import oblique_affine

MANIFEST = Path(napari_seg3d.__file__).with_name("napari.yaml")
#: Menus that plugins may add to in napari 0.9; others are dropped in silence.
MENUS = {f"napari/layers/{name}" for name in ("visualize", "annotate", "data", "filter", "segment", "classify")}


def nifti(path: Path, data: np.ndarray) -> str:
    image = nib.Nifti1Image(data, oblique_affine(), dtype=data.dtype)
    nib.save(image, path)
    return str(path)


def test_the_manifest_is_valid_and_everything_it_names_exists() -> None:
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    commands = {command.id for command in manifest.contributions.commands}
    used = {item.command for items in manifest.contributions.menus.values() for item in items}
    used |= {widget.command for widget in manifest.contributions.widgets}
    assert used <= commands
    assert set(manifest.contributions.menus) <= MENUS
    assert [widget.display_name for widget in manifest.contributions.widgets] == [
        "Seg3D", "Data", "Train", "Predict", "Review",
    ]  # fmt: skip


def test_napari_starts_without_waiting_for_us() -> None:
    code = "import sys, napari_seg3d.gui.plugin; print({'torch', 'napari', 'qtpy', 'nibabel'} & set(sys.modules) or [])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_the_reader_takes_nifti_and_nothing_else(name: str) -> None:
    assert get_reader(name) is not None
    assert get_reader([name, "b.nii"]) is not None
    assert get_reader([name, "b.tif"]) is None
    assert get_reader("a.png") is None


RNG = np.random.default_rng(0)
IMAGE = RNG.normal(100, 20, (6, 7, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("t1.nii.gz", IMAGE, "image"),
        ("t1_int.nii", IMAGE.astype(np.int16), "image"),
        ("anything.nii", (IMAGE > 100).astype(np.uint8), "labels"),
        ("case_seg.nii.gz", (IMAGE > 100).astype(np.float32), "labels"),
        ("OTMultiClass.nii", np.round(IMAGE / 40).astype(np.float32), "labels"),
        ("segmented_t1.nii", IMAGE, "image"),
        # The name promises labels, the voxels are intensities.
        ("lesion-seg.nii", IMAGE, "image"),
    ],
)
def test_images_and_labels_are_told_apart(tmp_path: Path, name: str, data: np.ndarray, kind: str) -> None:
    [(shown, arguments, found)] = read_files(nifti(tmp_path / name, data))
    assert found == kind
    assert arguments["axis_labels"] == ("I", "P", "L")
    assert shown.shape == (5, 7, 6)


def test_files_in_a_labels_folder_are_labels(tmp_path: Path) -> None:
    (tmp_path / "labelsTr").mkdir()
    [(_, _, kind)] = read_files(nifti(tmp_path / "labelsTr" / "hippocampus_003.nii", np.zeros((4, 5, 6), np.int16)))
    assert kind == "labels"


def test_each_volume_of_a_4d_file_becomes_a_layer(tmp_path: Path) -> None:
    data = np.stack([IMAGE, IMAGE + 100], axis=-1)
    layers = read_files(nifti(tmp_path / "BRATS_001.nii.gz", data))
    assert [arguments["name"] for _, arguments, _ in layers] == ["BRATS_001 [0]", "BRATS_001 [1]"]
    assert [arguments["visible"] for _, arguments, _ in layers] == [True, False]
    assert layers[1][0].mean() - layers[0][0].mean() == pytest.approx(100, rel=1e-3)


def test_a_damaged_file_is_refused_in_words(tmp_path: Path) -> None:
    path = Path(nifti(tmp_path / "a.nii.gz", IMAGE))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FileError, match=r"a\.nii\.gz"):
        read_files(str(path))


def test_sample_data_are_a_study_with_its_truth() -> None:
    layers = sample_brain()
    assert [arguments["name"] for _, arguments, _ in layers] == ["FLAIR", "T1", "T1c", "T2", "truth"]
    assert [kind for *_, kind in layers] == ["image"] * 4 + ["labels"]


def test_files_go_through_napari_and_back(
    make_napari_viewer: Callable[..., Any], npe2pm_with_us: PluginManager, tmp_path: Path
) -> None:
    data = np.zeros((6, 7, 5), np.uint16)
    data[1:3, 2:4, 1:4] = 300
    original = write_label_map(tmp_path / "seg.nii.gz", LabelMap(data, Geometry(data.shape, oblique_affine("ALS"))))
    viewer = make_napari_viewer()
    [layer] = viewer.open(str(original), plugin="napari-seg3d")
    assert origin_of(layer).path == original
    layer.data[0, 0, 0] = 7
    [saved] = layer.save(str(tmp_path / "new.nii.gz"), plugin="napari-seg3d")
    back = read_label_map(saved)
    assert back.geometry == read_label_map(original).geometry
    changed = np.argwhere(back.data != data)
    assert len(changed) == 1
    assert back.data[tuple(changed[0])] == 7

    viewer.open_sample("napari-seg3d", "brain")
    assert {"FLAIR", "T1", "T1c", "T2", "truth"} <= {layer.name for layer in viewer.layers}

    mine = viewer.add_labels(np.ones((3, 4, 5), np.uint8), name="mine", scale=(2, 1, 1), translate=(10, 20, 30))
    [saved] = mine.save(str(tmp_path / "mine.nii"), plugin="napari-seg3d")
    geometry = read_label_map(saved).geometry
    assert geometry.orientation == "IPL"
    assert geometry.world((0, 0, 0)) == pytest.approx((-30, -20, -10))


@pytest.fixture
def npe2pm_with_us() -> PluginManager:
    """napari's plugin manager, with this package's manifest also where the package is not installed."""
    manager = PluginManager.instance()
    if "napari-seg3d" not in manager:
        manager.register(PluginManifest.from_file(MANIFEST))
    return manager


def test_the_writer_adds_the_ending(tmp_path: Path) -> None:
    meta = {"name": "x", "scale": (1, 1, 1), "translate": (0, 0, 0), "metadata": {}}
    assert write_labels(str(tmp_path / "x"), np.ones((3, 4, 5), np.uint8), meta) == [str(tmp_path / "x.nii.gz")]
