"""The original 3D U-Net (Çiçek et al. 2016, doi:10.1007/978-3-319-46723-8_49).

(B, images, X, Y, Z) to logits of the same size, for multiples of 8. Four resolutions with three poolings; the second
convolution of each step doubles the width, so that it grows before each pooling; batch normalisation before each ReLU.
With base 32, three images and three outputs it has the 19,069,955 parameters of the paper, which does not count the
4,672 of batch normalisation. It differs in padding: the paper's convolutions have none and shrink a patch by 88 voxels,
which would leave nothing of a small organ.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ..network_settings import CicekUNet
from ..plan import Plan


def _step(channels_in: int, channels_between: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_between, 3, padding=1),
        nn.BatchNorm3d(channels_between),
        nn.ReLU(inplace=True),
        nn.Conv3d(channels_between, channels_out, 3, padding=1),
        nn.BatchNorm3d(channels_out),
        nn.ReLU(inplace=True),
    )


class OriginalUNet(nn.Module):
    """3D U-Net whose steps double their width in the second convolution, from `base` to 16 times it."""

    def __init__(self, channels_in: int, channels_out: int, base: int) -> None:
        super().__init__()
        widths = [2 * base, 4 * base, 8 * base, 16 * base]
        self.down = nn.ModuleList(_step(a, b // 2, b) for a, b in zip([channels_in, *widths[:-1]], widths, strict=True))
        self.pool = nn.MaxPool3d(2)
        rising = list(reversed(widths))
        self.widen = nn.ModuleList(nn.ConvTranspose3d(n, n, 2, stride=2, bias=False) for n in rising[:-1])
        self.up = nn.ModuleList(_step(a + b, b, b) for a, b in pairwise(rising))
        self.head = nn.Conv3d(widths[0], channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, channels_out, X, Y, Z)."""
        skips: list[Tensor] = []
        for i, step in enumerate(self.down):
            x = step(self.pool(x) if i else x)
            skips.append(x)
        skips.pop()
        for widen, step in zip(self.widen, self.up, strict=True):
            x = step(torch.cat((widen(x), skips.pop()), dim=1))
        logits: Tensor = self.head(x)
        return logits


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `CicekUNet`."""
    settings = plan.network
    assert isinstance(settings, CicekUNet)  # the registry's promise
    return OriginalUNet(len(plan.modalities), plan.outputs, settings.base)
