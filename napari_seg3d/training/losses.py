"""What the network is punished for: the losses that a plan can name, for exclusive classes and overlapping regions.

Exclusive classes use softmax and categorical cross-entropy. Overlapping regions use sigmoid and binary cross-entropy on
every channel: MONAI's ``DiceCELoss(sigmoid=True)`` would apply softmax cross-entropy there, under which a false
positive can cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..model.plan import LossName, Plan
from ..model.prepare import IGNORED

#: Added above and below, so that a class that occurs nowhere, and is predicted nowhere, scores 1 (MONAI's value).
_SMOOTH = 1e-5
#: How much more a voxel on a boundary counts in the cross-entropy of the boundary-aware loss.
BOUNDARY_WEIGHT = 5.0
#: Exponent of the focal loss (Lin 2017).
FOCAL_GAMMA = 2.0


@dataclass(frozen=True)
class Form:
    """What a loss is made of.

    Parameters
    ----------
    about : str
        What it is and where it comes from, in one line.
    dice : optional
        Over all voxels of the batch, as the mean over its patches, or generalised (Sudre 2017).
    background : bool
        Whether the Dice counts the background of exclusive classes as a class.
    squared : bool
        Whether the Dice divides by sums of squares (Milletari 2016).
    sigmoid : bool
        Whether the Dice takes sigmoids even of exclusive classes.
    voxelwise : optional
        What is added for each voxel.
    boundary : bool
        Whether voxels on a boundary between classes count more in that.
    """

    about: str
    dice: Literal["batch", "patch", "generalised"] | None = None
    background: bool = False
    squared: bool = False
    sigmoid: bool = False
    voxelwise: Literal["ce", "focal"] | None = None
    boundary: bool = False


#: What each name in a plan means.
LOSSES: Mapping[LossName, Form] = MappingProxyType(
    {
        "dice-ce": Form("Dice over the batch plus cross-entropy, as nnU-Net.", "batch", voxelwise="ce"),
        "dice-ce-patch": Form(
            "Dice of each patch, with background, plus cross-entropy, as MONAI's DiceCELoss.",
            "patch",
            background=True,
            voxelwise="ce",
        ),
        "dice": Form("Dice over the batch.", "batch"),
        "dice-squared": Form(
            "Dice of sigmoids with squared sums and background, as MedicalZoo.",
            "batch",
            background=True,
            squared=True,
            sigmoid=True,
        ),
        "generalised-dice": Form(
            "Dice with classes weighted by the inverse square of their volume (Sudre 2017); one that is absent counts "
            "as much as the rarest.",
            "generalised",
            background=True,
        ),
        "ce": Form("Cross-entropy.", voxelwise="ce"),
        "focal": Form("Cross-entropy that passes over easy voxels (Lin 2017), gamma 2.", voxelwise="focal"),
        "dice-focal": Form("Dice over the batch plus focal loss.", "batch", voxelwise="focal"),
        "dice-ce-boundary": Form(
            "Dice over the batch plus cross-entropy in which voxels on a boundary count five times.",
            "batch",
            voxelwise="ce",
            boundary=True,
        ),
    }
)


def region_table(plan: Plan) -> Tensor:
    """Return (labels + 1, regions) float32: which regions each target index belongs to."""
    table = np.zeros((len(plan.labels) + 1, len(plan.regions)), np.float32)
    for column, region in enumerate(plan.regions):
        for row, label in enumerate(plan.labels, start=1):
            table[row, column] = label.value in region.values
    return torch.from_numpy(table)


class SegmentationLoss(nn.Module):
    """The loss of a plan; `IGNORED` voxels count nowhere.

    With several outputs (deep supervision, finest first) each coarser one counts half of the one before.

    Parameters
    ----------
    plan : Plan
    sum_over_ranks : callable, optional
        Sums a tensor over all processes that share a batch, with gradient, so that the loss is that of the whole batch.

    Attributes
    ----------
    dice : (len(plan.output_names),) float32 Tensor
        Soft Dice of the newest batch, by foreground class or region, without gradient.
    """

    table: Tensor
    dice: Tensor

    def __init__(self, plan: Plan, sum_over_ranks: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.form = LOSSES[plan.loss]
        self.regions = plan.targets == "regions"
        self.outputs = plan.outputs
        self.sum_over_ranks = sum_over_ranks
        self.register_buffer("table", region_table(plan) if self.regions else torch.zeros(0))
        self.register_buffer("dice", torch.zeros(len(plan.output_names)), persistent=False)

    def forward(self, outputs: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Return the scalar loss.

        Parameters
        ----------
        outputs : (B, K, X, Y, Z) Tensor, or several of them
            Logits; coarser ones have smaller X, Y, Z.
        target : (B, 1, X, Y, Z) uint8 Tensor
            Index of the class, 0 for background, `IGNORED` for not known.
        """
        several = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        weights = [0.5**i for i in range(len(several))]
        losses = [self._one(o.float(), _at(target, o), finest=i == 0) for i, o in enumerate(several)]
        total = torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)])
        return total.sum() / sum(weights)

    def one_hot(self, target: Tensor) -> Tensor:
        """Return (B, outputs, X, Y, Z) float32: which output each voxel of a target belongs to; ignored ones to none.

        Parameters
        ----------
        target : (B, 1, X, Y, Z) uint8 Tensor
        """
        known = target != IGNORED
        index = torch.where(known, target, 0).long()
        if self.regions:
            return self.table[index[:, 0]].movedim(-1, 1) * known
        classes = torch.arange(self.outputs, device=target.device).view(1, -1, 1, 1, 1)
        return ((index == classes) & known).float()

    def _one(self, logits: Tensor, target: Tensor, *, finest: bool) -> Tensor:
        form = self.form
        known = (target != IGNORED).float()
        truth = self.one_hot(target)
        if self.regions:
            chances, logged = logits.sigmoid(), None
        else:
            logged = logits.log_softmax(1)
            chances = logged.exp()
        sums = _sums(chances, truth, known)
        if form.dice is None:
            sums = sums.detach()
        elif form.dice == "patch":
            dices = _dice(*_sums_of_patches(chances, truth, known)).mean(1)
        if form.squared:
            rooted = logits.sigmoid() if form.sigmoid else chances
            squares = _sums(rooted, truth, known, squared=True)
        else:
            squares = sums[:, :0]
        voxels = known.sum()
        counted = torch.stack((voxels, voxels, voxels.new_full((), len(logits)), voxels))
        if form.voxelwise is not None:
            weight = known[:, 0] * (_boundary_weight(target) if form.boundary else 1)
            counted[0], counted[1] = (self._entropy(logits, truth, logged) * weight).sum(), weight.sum()
        if form.dice == "patch":
            counted[3] = dices.sum()
        if self.sum_over_ranks is not None:
            parts = (sums.flatten(), squares.flatten(), counted)
            joined = self.sum_over_ranks(torch.cat(parts))
            flat, flat_squares, counted = torch.split(joined, [part.numel() for part in parts])
            sums, squares = flat.view(3, -1), flat_squares.view(3, -1)
        # Of exclusive classes the first is the background.
        foreground = sums if self.regions else sums[:, 1:]
        if finest:
            self.dice = _dice(*foreground.detach())
        entropy, weights, patches, dice_of_patches = counted
        loss = logits.new_zeros(())
        if form.voxelwise is not None:
            loss = loss + entropy / weights.clamp_min(1)
        if form.dice == "patch":
            loss = loss + 1 - dice_of_patches / patches
        elif form.dice == "generalised":
            loss = loss + 1 - _generalised_dice(*sums)
        elif form.squared:
            both, predicted, true = squares
            loss = loss + 1 - (2 * both / (predicted + true).clamp_min(1e-6)).mean()
        elif form.dice == "batch":
            loss = loss + 1 - _dice(*(sums if form.background else foreground)).mean()
        return loss

    def _entropy(self, logits: Tensor, truth: Tensor, logged: Tensor | None) -> Tensor:
        """Return (B, X, Y, Z): the cross-entropy or focal loss of each voxel."""
        focal = self.form.voxelwise == "focal"
        if logged is not None:
            entropy = -(logged * truth).sum(1)
            return (1 - torch.exp(-entropy)) ** FOCAL_GAMMA * entropy if focal else entropy
        binary = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return ((1 - torch.exp(-binary)) ** FOCAL_GAMMA * binary if focal else binary).mean(1)


def _sums(chances: Tensor, truth: Tensor, known: Tensor, *, squared: bool = False) -> Tensor:
    """Return (3, K): overlap, predicted and true voxels of each channel in the whole batch."""
    chances = chances * known
    parts = (chances * truth, chances**2 if squared else chances, truth)
    return torch.stack([part.sum((0, 2, 3, 4)) for part in parts])


def _sums_of_patches(chances: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    chances = chances * known
    return torch.stack([part.sum((2, 3, 4)) for part in (chances * truth, chances, truth)])


def _dice(both: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    return (2 * both + _SMOOTH) / (predicted + true + _SMOOTH)


def _generalised_dice(both: Tensor, predicted: Tensor, true: Tensor) -> Tensor:
    """Return the scalar of Sudre 2017, with MONAI's rule for a class that is absent: the weight of the rarest.

    The weights are relative to the largest one. Of themselves they are of the order of 1e-10, which MONAI's smoothing
    of 1e-5 would drown.
    """
    present = true > 0
    rarest = torch.where(present, true, torch.inf).amin()
    weights = torch.where(present, (rarest / true.clamp_min(1)) ** 2, 1.0)
    return (2 * (weights * both).sum() + _SMOOTH) / ((weights * (predicted + true)).sum() + _SMOOTH)


def _boundary_weight(target: Tensor) -> Tensor:
    """Return (B, X, Y, Z): `BOUNDARY_WEIGHT` where a neighbour, also a diagonal one, has another class, 1 elsewhere."""
    # A voxel that is not known is no other class.
    index, unknown = target.float(), target == IGNORED
    highest = functional.max_pool3d(index.masked_fill(unknown, -1), 3, stride=1, padding=1)
    lowest = -functional.max_pool3d(-index, 3, stride=1, padding=1)
    return torch.where(highest != lowest, BOUNDARY_WEIGHT, 1.0)[:, 0]


def _at(target: Tensor, output: Tensor) -> Tensor:
    if target.shape[2:] == output.shape[2:]:
        return target
    return functional.interpolate(target, size=output.shape[2:], mode="nearest-exact")
