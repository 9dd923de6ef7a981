"""Every place that deserves a look, found on an anisotropic grid; one key settles it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_seg3d.comparison.difference import difference_map, disagreements
from napari_seg3d.correction.masks import Where
from napari_seg3d.correction.stops import (
    accept,
    disagreement_stops,
    implausible_stops,
    in_order,
    mend,
    position_in_words,
    uncertain_stops,
)
from napari_seg3d.errors import CorrectionError, GeometryError
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume

SHAPE = (19, 23, 11)
#: 10 mm³ a voxel, so 0.01 ml.
GEOMETRY = Geometry.with_spacing(SHAPE, (1.0, 2.0, 5.0))
TABLE = LabelTable.from_names({1: "oedema", 2: "core"})


def a_map(data: np.ndarray) -> LabelMap:
    return LabelMap(data, GEOMETRY, TABLE)


@pytest.fixture
def truth() -> np.ndarray:
    data = np.zeros(SHAPE, np.uint8)
    data[4:12, 5:15, 2:8] = 1
    data[6:9, 8:12, 4:6] = 2
    return data


@pytest.fixture
def predicted(truth: np.ndarray) -> np.ndarray:
    data = truth.copy()
    data[4:6, 5:15, 2:8] = 0  # 1.2 ml of oedema missed
    data[6:9, 8:12, 4:6] = 1  # 0.24 ml of core called oedema
    data[15:17, 20, 9] = 2  # 0.02 ml of core added
    return data


def test_disagreements_become_stops(truth: np.ndarray, predicted: np.ndarray) -> None:
    places = disagreements(difference_map(predicted, truth), GEOMETRY)
    stops = disagreement_stops(places, a_map(predicted), a_map(truth))
    assert [(stop.kind, stop.label, stop.words) for stop in stops] == [
        ("missed", 1, "missed oedema, 1.2 ml"),
        ("wrong class", 2, "wrong class core, 0.24 ml"),
        ("added", 2, "added core, 0.02 ml"),
    ]
    assert [position_in_words(stops, number) for number in (0, 2)] == ["1 of 3, 1.5 ml left", "3 of 3, 0.02 ml left"]
    assert position_in_words((), 0) == "nothing left"
    assert [stop.centre_voxel[2] for stop in in_order(stops, "slices", axis=2)] == sorted(
        stop.centre_voxel[2] for stop in stops
    )
    assert in_order(reversed(stops), "largest") == stops


def test_accepting_all_of_the_truth_gives_the_truth(truth: np.ndarray, predicted: np.ndarray) -> None:
    stops = disagreement_stops(
        disagreements(difference_map(predicted, truth), GEOMETRY), a_map(predicted), a_map(truth)
    )
    labels = predicted
    for stop in stops:
        change = accept(stop, labels, truth)
        assert len(change) == len(stop.indices[0])
        assert stop.words in change.what
        labels = change.applied_to(labels)
    np.testing.assert_array_equal(labels, truth)
    # And back again: the prediction's version.
    for stop in stops:
        labels = accept(stop, labels, predicted).applied_to(labels)
    np.testing.assert_array_equal(labels, predicted)
    assert len(accept(stops[0], predicted, truth, where=Where(locked=(1,)))) == 0


def test_uncertain_regions_are_connected_parts_above_the_threshold(truth: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    unsure = ndimage.gaussian_filter(rng.random(SHAPE), 1.5)
    unsure = ((unsure - unsure.min()) / np.ptp(unsure)).astype(np.float32)
    stops = uncertain_stops(Volume(unsure, GEOMETRY), a_map(truth), threshold=0.6)
    parts, count = ndimage.label(unsure >= 0.6)
    assert len(stops) == count > 3
    assert [stop.volume_ml for stop in stops] == sorted((stop.volume_ml for stop in stops), reverse=True)
    for stop in stops:
        number = parts[stop.centre_voxel]
        np.testing.assert_array_equal(np.argwhere(parts == number), np.stack(stop.indices, axis=1))
        under = truth[stop.indices]
        assert stop.label == (np.bincount(under[under > 0]).argmax() if under.any() else 0)
        assert stop.words.startswith("uncertain")
    fewer = uncertain_stops(Volume(unsure, GEOMETRY), a_map(truth), threshold=0.6, smallest_ml=stops[1].volume_ml)
    assert len(fewer) < len(stops)
    assert uncertain_stops(Volume(unsure, GEOMETRY), a_map(truth), threshold=1.1) == ()
    with pytest.raises(GeometryError, match="uncertainty"):
        uncertain_stops(Volume(unsure, Geometry.with_spacing(SHAPE)), a_map(truth))


def test_implausible_parts_are_found_and_mended(truth: np.ndarray) -> None:
    data = truth.copy()
    data[5, 6, 3] = 2  # an island of core inside the oedema
    data[15:17, 20, 9] = 1  # an island of oedema in the background
    data[10, 13, 6] = 0  # a hole in the oedema
    data[17:19, 1:3, 5] = 2  # at the border, 0.04 ml: an island all the same
    stops = implausible_stops(a_map(data))
    assert [(stop.kind, stop.label, stop.words) for stop in stops] == [
        ("island", 2, "island of core, 0.04 ml"),
        ("island", 1, "island of oedema, 0.02 ml"),
        ("island", 2, "island of core, 0.01 ml"),
        ("hole", 1, "hole in oedema, 0.01 ml"),
    ]
    mended = data
    for stop in stops:
        mended = mend(stop, mended).applied_to(mended)
    np.testing.assert_array_equal(mended, truth)
    assert implausible_stops(a_map(mended)) == ()
    # Twice is as good as once, and what was painted there meanwhile stays.
    assert sum(len(mend(stop, mended)) for stop in stops) == 0


def test_what_the_image_cuts_off_is_told_but_not_mended(truth: np.ndarray) -> None:
    data = np.roll(truth, -2, axis=2)
    (stop,) = implausible_stops(a_map(data))
    assert (stop.kind, stop.label) == ("border", 1)
    assert stop.words == "oedema at the border of the image, 4.6 ml"
    with pytest.raises(CorrectionError, match="Only islands and holes"):
        mend(stop, data)


def test_large_parts_and_corners_are_no_islands() -> None:
    data = np.zeros(SHAPE, np.uint8)
    data[2:6, 2:6, 2:6] = 1
    data[6, 6, 6] = 1  # hangs on a corner
    data[10:14, 10:14, 2:5] = 1  # 0.48 ml apart
    assert [stop.kind for stop in implausible_stops(a_map(data))] == ["island"]
    assert implausible_stops(a_map(data), island_ml=0.4) == ()
    assert implausible_stops(a_map(np.zeros(SHAPE, np.uint8))) == ()
