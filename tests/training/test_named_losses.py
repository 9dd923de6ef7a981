"""The losses of the articles, against MONAI and against the articles' own definitions."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from monai.losses.dice import DiceCELoss, DiceLoss, GeneralizedDiceLoss
from monai.losses.focal_loss import FocalLoss
from torch.nn import functional

from napari_seg3d.model.plan import LossName
from napari_seg3d.model.prepare import IGNORED
from napari_seg3d.training.losses import LOSSES, SegmentationLoss

WHOLE = {"name": "whole", "values": (1, 2), "color": "#ffff00"}
INNER = {"name": "inner", "values": (2,), "color": "#00ffff"}
REGIONS = {"targets": "regions", "regions": [WHOLE, INNER]}
ONE = {"targets": "regions", "regions": [WHOLE]}


@pytest.fixture
def batch():
    """Two odd-sized patches of three classes: logits, target, and the target with one channel a class."""
    random = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(2, 3, 7, 5, 6, generator=random)
    target = torch.randint(0, 3, (2, 1, 7, 5, 6), generator=random).to(torch.uint8)
    return logits, target, functional.one_hot(target[:, 0].long(), 3).movedim(-1, 1).float()


def value(tiny_plan, name, logits, target, **changes):
    return SegmentationLoss(tiny_plan(loss=name, **changes))(logits, target)


def test_every_name_has_a_form():
    assert set(LOSSES) == set(get_args(LossName))


def test_medicalzoos_dice_is_its_definition_and_monais_squared_one(tiny_plan, batch):
    logits, target, t = batch
    p, over = logits.sigmoid(), (0, 2, 3, 4)
    defined = 1 - (2 * (p * t).sum(over) / ((p * p).sum(over) + (t * t).sum(over)).clamp_min(1e-6)).mean()
    ours = value(tiny_plan, "dice-squared", logits, target)
    torch.testing.assert_close(ours, defined)
    monai = DiceLoss(to_onehot_y=True, sigmoid=True, squared_pred=True, batch=True, smooth_nr=0, smooth_dr=1e-6)
    torch.testing.assert_close(ours, monai(logits, target))
    usual = DiceLoss(to_onehot_y=True, sigmoid=True)(logits, target)
    assert abs(ours - usual) > 0.01, "MONAI's defaults are another loss"


def test_generalised_dice_is_the_definition_where_all_classes_occur(tiny_plan, batch):
    logits, target, t = batch
    p, over = logits.softmax(1), (0, 2, 3, 4)
    w = 1 / t.sum(over) ** 2
    defined = 1 - 2 * (w * (p * t).sum(over)).sum() / (w * (p.sum(over) + t.sum(over))).sum()
    ours = value(tiny_plan, "generalised-dice", logits, target)
    torch.testing.assert_close(ours, defined, rtol=1e-4, atol=1e-5)
    monai = GeneralizedDiceLoss(to_onehot_y=True, softmax=True, batch=True, smooth_nr=1e-20, smooth_dr=1e-20)
    torch.testing.assert_close(ours, monai(logits, target), rtol=1e-4, atol=1e-5)


def test_generalised_dice_survives_an_absent_class(tiny_plan, batch):
    logits, target, _ = batch
    target = target.clamp_max(1)  # the last class is gone
    ours = value(tiny_plan, "generalised-dice", logits, target)
    monai = GeneralizedDiceLoss(to_onehot_y=True, softmax=True, batch=True, smooth_nr=1e-20, smooth_dr=1e-20)
    torch.testing.assert_close(ours, monai(logits, target), rtol=1e-4, atol=1e-5)
    # MedicalZoo's weight of a million makes it a constant 1, from which nothing is learned.
    assert ours < 0.9
    perfect = 20 * functional.one_hot(target[:, 0].long(), 3).movedim(-1, 1).float()
    assert value(tiny_plan, "generalised-dice", perfect, target) < 0.01


def test_the_sum_of_dice_and_cross_entropy_of_one_region_is_monais(tiny_plan, batch):
    logits, target, _ = batch
    truth = (target > 0).float()
    ours = value(tiny_plan, "dice-ce-patch", logits[:, :1], target, **ONE)
    torch.testing.assert_close(ours, DiceCELoss(sigmoid=True)(logits[:, :1], truth))


def test_the_sum_of_dice_and_cross_entropy_of_classes_is_monais(tiny_plan, batch):
    logits, target, _ = batch
    ours = value(tiny_plan, "dice-ce-patch", logits, target)
    torch.testing.assert_close(ours, DiceCELoss(to_onehot_y=True, softmax=True)(logits, target))


def test_regions_are_learned_with_binary_not_softmax_cross_entropy(tiny_plan):
    """The article's DiceCELoss lets a false alarm everywhere cost nothing and perfect regions cost 3.3."""
    nothing, everything = torch.zeros(1, 1, 4, 4, 4, dtype=torch.uint8), torch.full((1, 1, 4, 4, 4), 2).to(torch.uint8)
    alarm = torch.full((1, 2, 4, 4, 4), 8.0)
    both = torch.ones(1, 2, 4, 4, 4)
    entropy_of_articles = DiceCELoss(sigmoid=True, lambda_dice=0)
    assert entropy_of_articles(alarm, 0 * both) == 0
    assert entropy_of_articles(alarm, both) > 1
    for name in ("dice-ce", "dice-ce-patch", "ce"):
        assert value(tiny_plan, name, alarm, nothing, **REGIONS) > 7.9, name
        assert value(tiny_plan, name, alarm, everything, **REGIONS) < 0.01, name


def test_cross_entropy_is_torchs(tiny_plan, batch):
    logits, target, _ = batch
    torch.testing.assert_close(
        value(tiny_plan, "ce", logits, target), functional.cross_entropy(logits, target[:, 0].long())
    )
    truth = torch.cat([target > 0, target == 2], 1).float()
    torch.testing.assert_close(
        value(tiny_plan, "ce", logits[:, :2], target, **REGIONS),
        functional.binary_cross_entropy_with_logits(logits[:, :2], truth),
    )


def test_focal_is_monais(tiny_plan, batch):
    logits, target, _ = batch
    truth = torch.cat([target > 0, target == 2], 1).float()
    ours = value(tiny_plan, "focal", logits[:, :2], target, **REGIONS)
    torch.testing.assert_close(ours, FocalLoss(gamma=2)(logits[:, :2], truth))
    # Over exclusive classes MONAI divides by their number besides; Lin's definition does not.
    classes = FocalLoss(gamma=2, use_softmax=True, to_onehot_y=True)(logits, target) * 3
    torch.testing.assert_close(value(tiny_plan, "focal", logits, target), classes)


def test_sums_of_losses_are_sums(tiny_plan, batch):
    logits, target, _ = batch
    for joined, parts in (("dice-ce", ("dice", "ce")), ("dice-focal", ("dice", "focal"))):
        expected = sum(value(tiny_plan, part, logits, target) for part in parts)
        torch.testing.assert_close(value(tiny_plan, joined, logits, target), expected)


def test_boundaries_count_more(tiny_plan):
    target = torch.zeros(1, 1, 9, 9, 9, dtype=torch.uint8)
    target[:, :, 5:] = 1
    right = 8 * functional.one_hot(target[:, 0].long(), 3).movedim(-1, 1).float()
    at_boundary, inside = right.clone(), right.clone()
    at_boundary[:, :, 5] = right[:, :, 4]
    inside[:, :, 7] = right[:, :, 2]
    plain = value(tiny_plan, "dice-ce", at_boundary, target), value(tiny_plan, "dice-ce", inside, target)
    torch.testing.assert_close(*plain)
    aware = [value(tiny_plan, "dice-ce-boundary", wrong, target) for wrong in (at_boundary, inside)]
    assert aware[0] > 2 * aware[1]


@pytest.mark.parametrize("changes", [{}, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("name", get_args(LossName))
def test_all_ignore_what_is_not_known_and_bear_emptiness(tiny_plan, batch, name, changes):
    loss = SegmentationLoss(tiny_plan(loss=name, **changes))
    logits, target, _ = batch
    logits = logits[:, : loss.outputs].clone().requires_grad_()
    partly = target.clone()
    partly[:, :, 4:] = IGNORED
    value = loss(logits, partly)
    value.backward()
    assert (logits.grad[:, :, 4:] == 0).all()
    assert logits.grad[:, :, :4].abs().sum() > 0
    torch.testing.assert_close(value, loss(logits[:, :, :4], target[:, :, :4]))
    for empty in (torch.zeros_like(target), torch.full_like(target, IGNORED)):
        logits.grad = None
        value = loss(logits, empty)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("changes", [{}, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("name", get_args(LossName))
def test_all_leave_the_soft_dice_of_the_foreground(tiny_plan, batch, name, changes):
    plan = tiny_plan(loss=name, **changes)
    loss = SegmentationLoss(plan)
    logits, target, t = batch
    logits = logits[:, : plan.outputs]
    loss([logits, logits[..., ::2]], target)
    p, over = (logits.sigmoid(), (0, 2, 3, 4)) if changes else (logits.softmax(1)[:, 1:], (0, 2, 3, 4))
    t = torch.cat([target > 0, target == 2], 1).float() if changes else t[:, 1:]
    torch.testing.assert_close(loss.dice, 2 * (p * t).sum(over) / (p.sum(over) + t.sum(over)), rtol=1e-4, atol=1e-5)
    assert not loss.dice.requires_grad
