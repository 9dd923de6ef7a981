"""What the network is punished for: soft Dice plus cross-entropy, for exclusive classes and for overlapping regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.nn import functional

from ..model.plan import Plan


def region_table(plan: Plan) -> Tensor:
    """Return (labels + 1, regions) float32: which regions each target index belongs to."""
    table = np.zeros((len(plan.labels) + 1, len(plan.regions)), np.float32)
    for column, region in enumerate(plan.regions):
        for row, label in enumerate(plan.labels, start=1):
            table[row, column] = label.value in region.values
    return torch.from_numpy(table)


class SegmentationLoss(nn.Module):
    """Soft Dice over the batch, without background, plus cross-entropy, in equal parts.

    Exclusive classes use softmax and categorical cross-entropy. Overlapping regions use sigmoid and binary
    cross-entropy on every channel: MONAI's ``DiceCELoss(sigmoid=True)`` would apply softmax cross-entropy there, under
    which a false positive can cost nothing.

    With several outputs (deep supervision, finest first) each coarser one counts half of the one before.
    """

    table: Tensor

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.regions = plan.targets == "regions"
        classes = not self.regions
        self.dice = DiceLoss(
            batch=True, sigmoid=self.regions, softmax=classes, to_onehot_y=classes, include_background=self.regions
        )
        self.register_buffer("table", region_table(plan) if self.regions else torch.zeros(0))

    def forward(self, outputs: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Return the scalar loss.

        Parameters
        ----------
        outputs : (B, K, X, Y, Z) Tensor, or several of them
            Logits; coarser ones have smaller X, Y, Z.
        target : (B, 1, X, Y, Z) uint8 Tensor
            Index of the class, 0 for background.
        """
        several = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        weights = [0.5**i for i in range(len(several))]
        total = torch.stack([w * self._one(o.float(), _at(target, o)) for w, o in zip(weights, several, strict=True)])
        return total.sum() / sum(weights)

    def _one(self, logits: Tensor, target: Tensor) -> Tensor:
        index = target.long()
        loss: Tensor
        if self.regions:
            truth = self.table[index[:, 0]].movedim(-1, 1)
            loss = self.dice(logits, truth) + functional.binary_cross_entropy_with_logits(logits, truth)
        else:
            loss = self.dice(logits, index) + functional.cross_entropy(logits, index[:, 0])
        return loss


def _at(target: Tensor, output: Tensor) -> Tensor:
    if target.shape[2:] == output.shape[2:]:
        return target
    return functional.interpolate(target, size=output.shape[2:], mode="nearest-exact")
