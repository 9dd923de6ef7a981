"""Voxel counts, Dice and IoU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, MeanIoU

from napari_seg3d.cases.labels import Region
from napari_seg3d.comparison.overlap import joint_histogram, overlap
from napari_seg3d.errors import GeometryError
from napari_seg3d.volumes.volume import Label


def _labels(seed: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).choice(4, size=(13, 7, 22), p=(0.7, 0.1, 0.1, 0.1)).astype(dtype)


def test_equals_a_plain_count() -> None:
    predicted, truth = _labels(1), _labels(2)
    for score in overlap(predicted, truth, (1, 2, 3)):
        (value,) = score.values
        ours, theirs = predicted == value, truth == value
        assert score.true_positives == np.sum(ours & theirs)
        assert score.false_positives == np.sum(ours & ~theirs)
        assert score.false_negatives == np.sum(~ours & theirs)
        assert (score.predicted_voxels, score.truth_voxels) == (ours.sum(), theirs.sum())


def test_dice_and_iou_equal_monai() -> None:
    predicted, truth = _labels(3), _labels(4)
    hot = [torch.from_numpy(np.eye(4)[labels]).movedim(-1, 0)[None] for labels in (predicted, truth)]
    dices = DiceMetric(include_background=False, reduction="none")(*hot)[0]
    ious = MeanIoU(include_background=False, reduction="none")(*hot)[0]
    scores = overlap(predicted, truth, (1, 2, 3))
    assert [s.dice for s in scores] == pytest.approx(dices.tolist(), abs=1e-6)
    assert [s.iou for s in scores] == pytest.approx(ious.tolist(), abs=1e-6)


def test_empty_structures_follow_the_rule() -> None:
    nothing, something = np.zeros((3, 4, 5), np.uint8), np.ones((3, 4, 5), np.uint8)
    (both_empty,) = overlap(nothing, nothing, (1,))
    (invented,) = overlap(something, nothing, (1,))
    (overlooked,) = overlap(nothing, something, (1,))
    assert (both_empty.dice, both_empty.iou) == (1.0, 1.0)
    assert (invented.dice, invented.iou) == (0.0, 0.0)
    assert (overlooked.dice, overlooked.iou) == (0.0, 0.0)


def test_a_region_unites_its_values() -> None:
    predicted, truth = _labels(5), _labels(6)
    core = Region("core", (1, 3), "#ff0000")
    (score,) = overlap(predicted, truth, (core,))
    ours, theirs = np.isin(predicted, (1, 3)), np.isin(truth, (1, 3))
    assert score.name == "core"
    assert score.true_positives == np.sum(ours & theirs)
    # Exchanging the members inside a region is no error of the region.
    exchanged = np.where(truth == 1, 3, np.where(truth == 3, 1, truth))
    assert overlap(exchanged, truth, (core,))[0].dice == 1.0


def test_any_integers_and_mixed_types() -> None:
    truth = np.array([[[0, 300, 7, 7]]], np.uint16)
    predicted = np.array([[[-2, 300, 7, 0]]], np.int32)
    scores = overlap(predicted, truth, (Label(7, "seven", "#123456"), Label(300, "many", "#123456")))
    assert [(s.name, s.dice) for s in scores] == [("seven", pytest.approx(2 / 3)), ("many", 1.0)]
    values, counts = joint_histogram(predicted, truth)
    assert values.tolist() == [-2, 0, 7, 300]
    assert counts.sum() == 4


def test_background_in_both_is_counted() -> None:
    predicted, truth = _labels(7), _labels(8)
    values, counts = joint_histogram(predicted, truth)
    assert values.tolist() == [0, 1, 2, 3]
    assert counts[0, 0] == np.sum((predicted == 0) & (truth == 0))
    assert counts.sum() == truth.size


def test_other_shapes_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"\(2, 3, 4\).*\(2, 3, 5\)"):
        overlap(np.zeros((2, 3, 5), int), np.zeros((2, 3, 4), int), (1,))
