"""What the network is punished for: soft Dice plus cross-entropy, for exclusive classes and for overlapping regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..model.plan import Plan
from ..model.prepare import IGNORED

#: Added above and below, so that a class that occurs nowhere, and is predicted nowhere, scores 1 (MONAI's value).
_SMOOTH = 1e-5


def region_table(plan: Plan) -> Tensor:
    """Return (labels + 1, regions) float32: which regions each target index belongs to."""
    table = np.zeros((len(plan.labels) + 1, len(plan.regions)), np.float32)
    for column, region in enumerate(plan.regions):
        for row, label in enumerate(plan.labels, start=1):
            table[row, column] = label.value in region.values
    return torch.from_numpy(table)


class SegmentationLoss(nn.Module):
    """Soft Dice over the batch, without background, plus cross-entropy, in equal parts; `IGNORED` voxels count nowhere.

    Exclusive classes use softmax and categorical cross-entropy. Overlapping regions use sigmoid and binary
    cross-entropy on every channel: MONAI's ``DiceCELoss(sigmoid=True)`` would apply softmax cross-entropy there, under
    which a false positive can cost nothing.

    With several outputs (deep supervision, finest first) each coarser one counts half of the one before.

    Parameters
    ----------
    plan : Plan
    sum_over_ranks : callable, optional
        Sums a tensor over all processes that share a batch, with gradient, so that the Dice is that of the whole batch.
    """

    table: Tensor

    def __init__(self, plan: Plan, sum_over_ranks: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.regions = plan.targets == "regions"
        self.outputs = plan.outputs
        self.sum_over_ranks = sum_over_ranks
        self.register_buffer("table", region_table(plan) if self.regions else torch.zeros(0))

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
        total = torch.stack([w * self._one(o.float(), _at(target, o)) for w, o in zip(weights, several, strict=True)])
        return total.sum() / sum(weights)

    def _one(self, logits: Tensor, target: Tensor) -> Tensor:
        known = target != IGNORED
        index = torch.where(known, target, 0).long()
        if self.regions:
            truth = self.table[index[:, 0]].movedim(-1, 1)
            chances = logits.sigmoid()
            entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
        else:
            # Background is left out of the Dice, not of the cross-entropy.
            classes = torch.arange(1, self.outputs, device=logits.device).view(1, -1, 1, 1, 1)
            truth = (index == classes).float()
            logged = logits.log_softmax(1)
            chances = logged[:, 1:].exp()
            entropy = -logged.gather(1, index)[:, 0]
        weight = known.float()
        sums = (chances * truth * weight, chances * weight, truth * weight)
        parts = [part.sum((0, 2, 3, 4)) for part in sums]
        counted = torch.stack(((entropy * weight[:, 0]).sum(), weight.sum()))
        both, predicted, true, (entropy_sum, voxels) = *parts, counted
        if self.sum_over_ranks is not None:
            joined = self.sum_over_ranks(torch.cat((both, predicted, true, counted)))
            both, predicted, true = joined[:-2].chunk(3)
            entropy_sum, voxels = joined[-2:]
        dice = (2 * both + _SMOOTH) / (predicted + true + _SMOOTH)
        loss: Tensor = (1 - dice).mean() + entropy_sum / voxels.clamp_min(1)
        return loss


def _at(target: Tensor, output: Tensor) -> Tensor:
    if target.shape[2:] == output.shape[2:]:
        return target
    return functional.interpolate(target, size=output.shape[2:], mode="nearest-exact")
