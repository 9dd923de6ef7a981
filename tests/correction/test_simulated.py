"""The simulated corrector does what a person would: the worst slice first, and no more than is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from napari_seg3d.cases.checked import checked_mask
from napari_seg3d.comparison.overlap import overlap
from napari_seg3d.correction.simulated import correct_until
from napari_seg3d.errors import CorrectionError, GeometryError


@pytest.fixture
def maps():
    """A truth with two labels and a prediction that is wrong in every third voxel of its box; odd sizes."""
    rng = np.random.default_rng(5)
    truth = np.zeros((17, 12, 9), np.uint8)
    truth[3:12, 2:9, 1:8] = 1
    truth[5:9, 4:8, 3:7] = 2
    noise = rng.random(truth.shape) < np.linspace(0.05, 0.5, 9)
    return np.where(noise, rng.integers(0, 3, truth.shape), truth).astype(np.uint8), truth


def mean_dice(one, other):
    return np.mean([score.dice for score in overlap(one, other, (1, 2))])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("goal", [0.7, 0.9, 0.97])
def test_it_stops_as_soon_as_the_goal_is_reached(maps, axis, goal):
    predicted, truth = maps
    before = predicted.copy()
    done = correct_until(predicted, truth, (1, 2), goal=goal, axis=axis)
    assert np.array_equal(predicted, before)
    # An independent walk: slice by slice, with Dice counted afresh each time.
    wrong = (predicted != truth).sum(axis=tuple(a for a in range(3) if a != axis))
    expected, touched = predicted.copy(), []
    while mean_dice(expected, truth) < goal:
        worst = max((n for n in range(len(wrong)) if n not in touched), key=lambda n: (wrong[n], -n))
        touched.append(worst)
        place = [slice(None)] * 3
        place[axis] = worst
        expected[tuple(place)] = truth[tuple(place)]
    assert list(done.slices) == touched
    assert np.array_equal(done.data, expected)
    assert done.voxels == np.count_nonzero(done.data != predicted)
    assert done.dice == pytest.approx(mean_dice(done.data, truth))
    assert done.dice_before == pytest.approx(mean_dice(predicted, truth))
    known = checked_mask(done.boxes, truth.shape)
    assert np.array_equal(done.data[known], truth[known])
    assert set(done.slices) <= set(done.right)


def test_all_slices_for_a_perfect_map_and_none_for_a_good_one(maps):
    predicted, truth = maps
    assert np.array_equal(correct_until(predicted, truth, (1, 2), goal=1).data, truth)
    untouched = correct_until(truth, truth, (1, 2), goal=0.9)
    assert (untouched.slices, untouched.voxels, untouched.dice_before) == ((), 0, 1.0)
    assert len(untouched.right) == truth.shape[2]


def test_labels_that_are_absent_count_as_found(maps):
    _, truth = maps
    empty = np.zeros_like(truth)
    assert correct_until(empty, empty, (1, 2)).dice_before == 1.0
    assert correct_until(empty, truth, (1, 2, 7), goal=0).dice_before == pytest.approx(1 / 3)


def test_what_makes_no_sense_is_refused(maps):
    predicted, truth = maps
    with pytest.raises(GeometryError, match="shape"):
        correct_until(predicted[1:], truth, (1,))
    with pytest.raises(CorrectionError, match="goal"):
        correct_until(predicted, truth, (1,), goal=90)
    with pytest.raises(CorrectionError, match="label"):
        correct_until(predicted, truth, ())
