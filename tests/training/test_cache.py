"""Prepared cases are found again by content, made anew when anything changes, bounded, and safe to lose."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from napari_seg3d.cases.case import CaseFiles, ImageFile
from napari_seg3d.cases.checked import write_checked
from napari_seg3d.errors import FileError
from napari_seg3d.model.prepare import IGNORED, prepare
from napari_seg3d.training.cache import PreparedCache
from napari_seg3d.volumes.files import write_label_map, write_volume


@pytest.fixture
def cache(tmp_path):
    return PreparedCache(tmp_path / "cache", limit_gb=1)


@pytest.fixture
def files(tmp_path, tiny_case):
    """A case on disk."""
    case = tiny_case(1)
    for name, volume in case.modalities.items():
        write_volume(tmp_path / f"{name}.nii.gz", volume)
    write_label_map(tmp_path / "truth.nii.gz", case.truth)
    images = {name: ImageFile(tmp_path / f"{name}.nii.gz") for name in case.modalities}
    return CaseFiles("disk", images, tmp_path / "truth.nii.gz", table=case.truth.table)


def entries(cache):
    return sorted(path.name for path in cache.folder.iterdir())


def test_what_is_read_back_is_what_was_prepared(cache, tiny_case, tiny_plan):
    case, plan = tiny_case(2), tiny_plan(spacing_mm=(1.5, 1.5, 2.0))
    stored, expected = cache.case(case, plan), prepare(case, plan)
    np.testing.assert_array_equal(stored.image(), expected.image.astype(np.float16))
    np.testing.assert_array_equal(stored.target(), expected.target)
    image, target = stored.cut((2, -1, 3), (5, 9, 4))
    np.testing.assert_array_equal(image[:, :, 1:], expected.image.astype(np.float16)[:, 2:7, 0:8, 3:7])
    assert not target[:, 0].any()
    again = PreparedCache(cache.folder).case(case, plan)
    assert again.grid.case.same_grid(expected.grid.case)
    assert again.grid.network.same_grid(expected.grid.network)
    assert again.grid.box == expected.grid.box
    for index, places in enumerate(again.places, start=1):
        assert all(expected.target[tuple(voxel)] == index for voxel in places)
    assert again.known is None


def test_an_entry_serves_until_content_or_settings_change(cache, files, tiny_plan):
    plan = tiny_plan()
    first = cache.case(files, plan)
    made = (first.folder / "image.npy").stat().st_mtime_ns
    # The same files under another name, and settings that preparing does not depend on, find the same entry.
    same = cache.case(replace(files, id="renamed"), plan.changed({"batch_size": 3, "learning_rate": 0.1}))
    assert same.folder == first.folder
    assert (same.folder / "image.npy").stat().st_mtime_ns == made
    assert cache.case(files, tiny_plan(spacing_mm=(2, 2, 2))).folder != first.folder
    assert cache.case(files, plan.changed({"modalities": ("T1c", "FLAIR")})).folder != first.folder
    path = files.modalities["FLAIR"].path
    raw = bytearray(path.read_bytes())
    stat = path.stat()
    raw[4] ^= 1  # one bit of the gzip header's time: same size, same date, other content
    path.write_bytes(raw)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cache.case(files, plan).folder != first.folder
    write_checked(files.truth, [((0, 5), (0, 26), (0, 13))])
    assert cache.case(files, plan).folder not in (first.folder, same.folder)
    assert cache.size()[0] == 5


def test_a_case_in_memory_is_told_by_its_voxels(cache, tiny_case, tiny_plan):
    case, plan = tiny_case(1), tiny_plan()
    first = cache.case(case, plan).folder
    assert cache.case(tiny_case(1), plan).folder == first
    other = case.truth.data.copy()
    other[10, 10, 6] = 1 + other[10, 10, 6] % 2
    assert cache.case(replace(case, truth=replace(case.truth, data=other)), plan).folder != first


def test_torn_and_lost_entries_are_made_again(cache, tiny_case, tiny_plan):
    case, plan = tiny_case(1), tiny_plan()
    stored = cache.case(case, plan)
    expected = stored.image()
    for name in ("image.npy", "target.npy", "facts.json", "places.npy"):
        (stored.folder / name).write_bytes((stored.folder / name).read_bytes()[:-3])
        np.testing.assert_array_equal(PreparedCache(cache.folder).case(case, plan).image(), expected)
    cache.clear()
    with pytest.raises(FileError, match="gone from the cache"):
        stored.image()
    np.testing.assert_array_equal(cache.case(case, plan).image(), expected)


def test_it_keeps_below_its_limit_but_never_drops_what_is_in_use(tmp_path, tiny_case, tiny_plan):
    plan = tiny_plan()
    old = PreparedCache(tmp_path / "cache")
    folders = [old.case(tiny_case(i), plan).folder for i in range(4)]
    for age, folder in zip((400, 300, 200, 100), folders, strict=True):
        past = (folder / "facts.json").stat().st_mtime - age
        os.utime(folder / "facts.json", (past, past))
    _, size = old.size()
    now = PreparedCache(tmp_path / "cache", limit_gb=0.8 * size / 1e9)
    mine = now.case(tiny_case(0), plan)  # the oldest is wanted again
    now.trim()
    left = entries(now)
    assert mine.folder.name in left
    assert folders[1].name not in left
    assert folders[3].name in left
    assert now.size()[1] <= 0.8 * size
    now.trim(0.0)
    assert entries(now) == [mine.folder.name]


def test_a_folder_that_cannot_be_written_is_told(tmp_path, tiny_case, tiny_plan):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="NAPARI_SEG3D_CACHE"):
        PreparedCache(tmp_path / "file" / "cache").case(tiny_case(0), tiny_plan())


def test_unchecked_voxels_are_ignored_and_patches_centre_on_checked_ones(cache, files, tiny_plan):
    write_checked(files.truth, [((9, 10), (0, 26), (0, 13)), ((0, 21), (12, 14), (0, 13))])
    plan = tiny_plan(crop_to_foreground=False)
    stored = cache.case(files, plan)
    target = stored.target()
    full = prepare(replace(files.load(), checked=None), plan).target
    known = np.zeros(files.load().geometry.shape, bool)
    known[9] = known[:, 12:14] = True
    known = stored.grid.inside(known)
    assert stored.grid.network.shape == known.shape
    np.testing.assert_array_equal(target, np.where(known, full, IGNORED))
    assert all(known[tuple(voxel)] for voxel in stored.known)
    assert all(target[tuple(voxel)] not in (0, IGNORED) for places in stored.places for voxel in places)
