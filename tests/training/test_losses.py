"""The loss against the formulas written out."""

from __future__ import annotations

import pytest
import torch
from monai.losses.dice import DiceLoss

from napari_seg3d.model.prepare import IGNORED
from napari_seg3d.training.losses import SegmentationLoss, region_table

REGIONS = {
    "targets": "regions",
    "regions": [
        {"name": "whole", "values": (1, 2), "color": "#ffff00"},
        {"name": "inner", "values": (2,), "color": "#00ffff"},
    ],
}


def test_classes_follow_the_formula(tiny_plan):
    logits = torch.randn(2, 3, 5, 4, 6)
    target = torch.randint(0, 3, (2, 1, 5, 4, 6), dtype=torch.uint8)
    p = logits.softmax(1)
    t = torch.nn.functional.one_hot(target[:, 0].long(), 3).movedim(-1, 1)
    over = (0, 2, 3, 4)  # over the batch and all voxels
    dice = (2 * (p * t).sum(over) + 1e-5) / (p.sum(over) + t.sum(over) + 1e-5)
    entropy = -(t * logits.log_softmax(1)).sum(1).mean()
    expected = (1 - dice[1:]).mean() + entropy
    torch.testing.assert_close(SegmentationLoss(tiny_plan())(logits, target), expected)


def test_regions_follow_the_formula(tiny_plan):
    plan = tiny_plan(**REGIONS)
    assert region_table(plan).tolist() == [[0, 0], [1, 0], [1, 1]]
    logits = torch.randn(1, 2, 5, 4, 6)
    target = torch.randint(0, 3, (1, 1, 5, 4, 6), dtype=torch.uint8)
    t = torch.cat([target > 0, target == 2], 1).float()
    p = logits.sigmoid()
    dice = (2 * (p * t).sum((0, 2, 3, 4)) + 1e-5) / (p.sum((0, 2, 3, 4)) + t.sum((0, 2, 3, 4)) + 1e-5)
    entropy = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    torch.testing.assert_close(SegmentationLoss(plan)(logits, target), (1 - dice).mean() + entropy)


def test_false_alarms_on_regions_cost_and_perfect_regions_do_not(tiny_plan):
    """Softmax cross-entropy over overlapping regions would make the first free and the second expensive."""
    loss = SegmentationLoss(tiny_plan(**REGIONS))
    nothing, everything = torch.zeros(1, 1, 4, 4, 4, dtype=torch.uint8), torch.full((1, 1, 4, 4, 4), 2)
    alarm = torch.full((1, 2, 4, 4, 4), 8.0)
    assert loss(alarm, nothing) > 8
    assert loss(alarm, everything.to(torch.uint8)) < 0.01


def test_deep_supervision_halves_each_coarser_output(tiny_plan):
    loss = SegmentationLoss(tiny_plan())
    target = torch.zeros(1, 1, 8, 8, 8, dtype=torch.uint8)
    target[..., 4:] = 1
    fine, coarse = torch.randn(1, 3, 8, 8, 8), torch.randn(1, 3, 4, 4, 4)
    expected = (loss(fine, target) + 0.5 * loss(coarse, target[..., ::2, ::2, ::2])) / 1.5
    torch.testing.assert_close(loss([fine, coarse], target), expected)


@pytest.mark.parametrize("targets", [{}, REGIONS])
def test_an_empty_batch_has_a_finite_loss_and_gradient(tiny_plan, targets):
    plan = tiny_plan(**targets)
    logits = torch.randn(1, plan.outputs, 4, 4, 4, requires_grad=True)
    SegmentationLoss(plan)(logits, torch.zeros(1, 1, 4, 4, 4, dtype=torch.uint8)).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("targets", [{}, REGIONS])
def test_ignored_voxels_count_nowhere(tiny_plan, targets):
    plan = tiny_plan(**targets)
    loss = SegmentationLoss(plan)
    logits = torch.randn(1, plan.outputs, 6, 4, 4, requires_grad=True)
    target = torch.randint(0, 3, (1, 1, 6, 4, 4), dtype=torch.uint8)
    partly = target.clone()
    partly[:, :, 4:] = IGNORED
    value = loss(logits, partly)
    torch.testing.assert_close(value, loss(logits[:, :, :4], target[:, :, :4]))
    value.backward()
    assert not logits.grad[:, :, 4:].any()
    nothing_known = loss(logits, torch.full_like(target, IGNORED))
    assert torch.isfinite(nothing_known)


@pytest.mark.parametrize("targets", [{}, REGIONS])
def test_it_agrees_with_monai(tiny_plan, targets):
    plan = tiny_plan(**targets)
    logits = torch.randn(2, plan.outputs, 6, 5, 4)
    target = torch.randint(0, 3, (2, 1, 6, 5, 4), dtype=torch.uint8)
    if targets:
        truth = region_table(plan)[target[:, 0].long()].movedim(-1, 1)
        expected = DiceLoss(batch=True, sigmoid=True)(logits, truth)
        expected += torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    else:
        expected = DiceLoss(batch=True, softmax=True, to_onehot_y=True, include_background=False)(logits, target.long())
        expected += torch.nn.functional.cross_entropy(logits, target[:, 0].long())
    torch.testing.assert_close(SegmentationLoss(plan)(logits, target), expected)
