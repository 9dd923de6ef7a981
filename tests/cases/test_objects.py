"""Made-up objects are what the tutorial's are, and read back as a dataset."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_seg3d.cases.dataset import open_dataset, read_split
from napari_seg3d.cases.objects import object_phantom, write_object_dataset
from napari_seg3d.errors import DatasetError
from napari_seg3d.events import Failed, Finished, result_of


@pytest.mark.parametrize("seed", [0, 1])
def test_ten_objects_of_their_own_brightness_on_nothing(seed):
    case = object_phantom(seed)
    image, truth = case.modalities["image"].data, case.truth.data
    np.testing.assert_array_equal(truth, image > 0)
    labels, _ = ndimage.label(ndimage.binary_closing(truth, iterations=2))
    sizes = np.bincount(labels.ravel())[1:]
    assert 8 <= np.count_nonzero(sizes > 1000) <= 10
    assert 0.02 < truth.mean() < 0.12
    peaks = ndimage.maximum(image, labels, np.flatnonzero(sizes > 1000) + 1)
    assert all(120 <= peak <= 255 for peak in peaks)
    assert np.ptp(peaks) > 20


def test_the_same_seed_gives_the_same_voxels():
    small = {"shape": (40, 33, 27), "count": 4}
    first, again, other = (object_phantom(seed, **small).modalities["image"].data for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_with_a_background_no_threshold_is_enough():
    case = object_phantom(2, shape=(64, 64, 64), background=200)
    image, truth = case.modalities["image"].data, case.truth.data > 0
    best = 0.0
    for limit in range(0, 256, 5):
        found = image > limit
        best = max(best, 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth)))
    assert best < 0.9


@pytest.mark.parametrize("background", [-5, 256, float("nan"), float("inf")])
def test_an_impossible_background_is_refused(tmp_path, background):
    with pytest.raises(DatasetError, match="from 0 to 255"):
        object_phantom(1, shape=(20, 20, 20), background=background)


def test_a_written_dataset_reads_back(tmp_path):
    folder = result_of(write_object_dataset(tmp_path / "objects", 5, 1, shape=(24, 30, 21)))
    dataset = open_dataset(folder)
    assert (len(dataset.labelled), dataset.problems) == (6, ())
    assert [label.name for label in dataset.table] == ["object"]
    split = read_split(folder / "split.json", dataset)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [4, 1, 1]
    again = list(write_object_dataset(folder, 1, 0, shape=(24, 30, 21)))
    assert isinstance(again[-1], Failed)
    assert not any(isinstance(event, Finished) for event in again)
