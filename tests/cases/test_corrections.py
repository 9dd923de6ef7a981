import hashlib
import json
import threading
from dataclasses import replace

import numpy as np
import pytest

from napari_seg3d.cases import corrections as module
from napari_seg3d.cases.corrections import latest_corrections, save_correction, versions
from napari_seg3d.errors import DatasetError, FileError, GeometryError
from napari_seg3d.volumes.files import read_label_map

from .conftest import labels, oblique_affine, write_nifti


@pytest.fixture
def truth(tmp_path):
    return read_label_map(write_nifti(tmp_path / "source" / "p1_seg.nii.gz", labels(1, 2)))


def changed(label_map):
    data = label_map.data.copy()
    data[0, 0, 1] = 2  # was 1
    data[5, 8, 4] = 3  # was 0
    data[0, 2, 1] = 0  # was 2
    return label_map.with_data(data)


def test_versions_grow_and_keep_their_history(truth, tmp_path):
    folder = tmp_path / "corrections"
    first = save_correction(folder, "p1", changed(truth), based_on=truth, author="Ada", seconds=61.26)
    second = save_correction(folder, "p1", truth, based_on=read_label_map(first), author="Bob")
    assert [first.name, second.name] == ["v001.nii.gz", "v002.nii.gz"]
    np.testing.assert_array_equal(read_label_map(first).data, changed(truth).data)
    np.testing.assert_allclose(read_label_map(second).geometry.affine_voxel_to_world, oblique_affine(), atol=1e-5)
    one, two = versions(folder, "p1")
    assert (one.version, one.author, one.parent, one.seconds) == (1, "Ada", "p1_seg.nii.gz", 61.3)
    assert one.changed == {1: (0, 1), 2: (1, 1), 3: (1, 0)}
    assert (one.voxels, two.voxels) == (3, 3)
    assert one.date.endswith("+00:00")
    assert one.sha256 == hashlib.sha256(first.read_bytes()).hexdigest()
    assert (two.version, two.parent) == (2, "p1/v001.nii.gz")
    assert latest_corrections(folder) == {"p1": second}


def test_from_nothing_everything_is_added(truth, tmp_path):
    save_correction(tmp_path, "p1", truth)
    (only,) = versions(tmp_path, "p1")
    counts = np.bincount(truth.data.ravel())
    assert only.changed == {1: (counts[1], 0), 2: (counts[2], 0)}
    assert only.parent == ""


def test_the_sidecar_tells_no_paths(truth, tmp_path):
    path = save_correction(tmp_path / "out", "p1", truth, based_on=truth)
    assert str(tmp_path) not in path.with_name("v001.json").read_text()


def test_the_hundredth_version_is_newer_than_the_ninth(truth, tmp_path):
    first = save_correction(tmp_path, "p1", truth)
    for name in ("v009", "v099", "v1000"):
        (first.parent / f"{name}.nii.gz").write_bytes(first.read_bytes())
    assert latest_corrections(tmp_path)["p1"].name == "v1000.nii.gz"
    assert save_correction(tmp_path, "p1", truth).name == "v1001.nii.gz"
    assert [version.version for version in versions(tmp_path, "p1")] == [1, 9, 99, 1000, 1001]


def test_two_windows_saving_at_once_lose_nothing(truth, tmp_path):
    paths = []

    def save() -> None:
        paths.append(save_correction(tmp_path, "p1", truth))

    threads = [threading.Thread(target=save) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in paths) == [f"v00{i}.nii.gz" for i in range(1, 7)]


def test_nothing_there_yet(tmp_path):
    assert latest_corrections(tmp_path / "none") == {}
    assert versions(tmp_path / "none", "p1") == []


def test_strange_files_are_passed_over(truth, tmp_path):
    path = save_correction(tmp_path, "p1", truth)
    for name in ("v2.nii.gz", "v003.nii.gz.part", ".v004.nii.gz", "notes.txt"):
        (path.parent / name).touch()
    (tmp_path / "file.txt").touch()
    (tmp_path / ".hidden").mkdir()
    assert latest_corrections(tmp_path) == {"p1": path}


@pytest.mark.parametrize("case_id", ["", "..", "a/b", "a\\b", ".hidden"])
def test_ids_that_are_no_folder_are_refused(truth, tmp_path, case_id):
    with pytest.raises(DatasetError, match="cannot be the name of a folder"):
        save_correction(tmp_path, case_id, truth)


def test_another_grid_is_refused(truth, tmp_path):
    other = read_label_map(write_nifti(tmp_path / "other.nii.gz", labels(1), np.diag((1, 1, 1, 1.0))))
    with pytest.raises(GeometryError, match="correction of p1"):
        save_correction(tmp_path / "out", "p1", truth, based_on=other)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_to(truth, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FileError, match="cannot be made"):
        save_correction(tmp_path / "out", "p1", truth)


def test_a_write_that_fails_is_not_tried_for_ever(truth, tmp_path):
    wrong = replace(truth, data=truth.data.astype(np.int16) - 5)
    with pytest.raises(Exception, match="labels of 0 or greater"):
        save_correction(tmp_path, "p1", wrong)
    assert versions(tmp_path, "p1") == []


def test_damaged_history_leaves_the_label_map(truth, tmp_path):
    path = save_correction(tmp_path, "p1", truth)
    path.with_name("v001.json").unlink()
    assert versions(tmp_path, "p1") == [module.Correction(1, path)]
    path.with_name("v001.json").write_text(json.dumps({"date": "today"}))
    with pytest.raises(DatasetError, match=r"history .* is damaged"):
        versions(tmp_path, "p1")
    assert latest_corrections(tmp_path) == {"p1": path}
