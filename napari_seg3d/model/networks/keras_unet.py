"""The Keras U-Net of the BraTS 2020 article ("3D UNet for Brain Tumor Segmentation"), after Ronneberger et al. 2015.

doi:10.1007/978-3-319-24574-4_28. (B, images, X, Y, Z) to logits of the same size, for multiples of 8 with 4 levels.
With 4 levels, base 16, four images and four outputs it has 2,345,924 parameters. As in the article there is no
normalisation, values are dropped one by one, upsampling repeats voxels without a convolution, and a second block
follows at the bottom. Weights begin as in Keras (Glorot). It returns logits; the article's softmax is in the loss here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..network_settings import KerasUNet
from ..plan import Plan


def _block(channels_in: int, channels_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv3d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )


class UnnormedUNet(nn.Module):
    """U-Net of any number of levels, each twice as wide as the one above it."""

    def __init__(self, channels_in: int, channels_out: int, base: int, levels: int, dropout: float) -> None:
        super().__init__()
        widths = [base * 2**i for i in range(levels)]
        self.down = nn.ModuleList(
            _block(a, b, dropout) for a, b in zip([channels_in, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.MaxPool3d(2)
        self.bottom = _block(widths[-1], widths[-1], dropout)
        self.up = nn.ModuleList(_block(widths[i + 1] + widths[i], widths[i], dropout) for i in range(levels - 1)[::-1])
        self.head = nn.Conv3d(base, channels_out, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, channels_out, X, Y, Z)."""
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i else x)
            skips.append(x)
        skips.pop()
        x = self.bottom(x)
        for block in self.up:
            x = block(torch.cat((functional.interpolate(x, scale_factor=2, mode="nearest"), skips.pop()), dim=1))
        logits: Tensor = self.head(x)
        return logits


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `KerasUNet`."""
    settings = plan.network
    assert isinstance(settings, KerasUNet)  # the registry's promise
    return UnnormedUNet(len(plan.modalities), plan.outputs, settings.base, settings.levels, settings.dropout)
