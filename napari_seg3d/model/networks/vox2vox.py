"""The generator of Vox2Vox (Cirillo et al. 2020, doi:10.1007/978-3-030-72084-1_25; Kan 2020).

(B, images, X, Y, Z) to logits of the same size, for multiples of 16. With four images, four outputs and base 64 it has
142,131,268 parameters, with base 16 8,892,436. It can be trained alone or against a discriminator.

It follows the article's words where the two published programs differ from them. A bottleneck block sees the outputs
of the two blocks before it, so that all stay 8 × base wide (the authors join a tensor before and after its activation,
Kan one with itself); its convolutions keep their size by one voxel of zeros before and two behind (Kan's shrink, are
padded on one side, and need patches of 48 voxels). It returns logits for any number of outputs, not one tanh channel.
Convolutions that are normalised have no biases, as these would be subtracted again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..network_settings import Vox2Vox
from ..plan import Plan


def down_block(channels_in: int, channels_out: int, normalise: bool = True) -> nn.Sequential:
    """Halve the size; the encoder's block, of which the discriminator is made as well."""
    layers: list[nn.Module] = [nn.Conv3d(channels_in, channels_out, 4, stride=2, padding=1, bias=not normalise)]
    if normalise:
        layers.append(nn.InstanceNorm3d(channels_out))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))


def _bottleneck(channels_in: int, channels_out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.ConstantPad3d((1, 2, 1, 2, 1, 2), 0.0),
        nn.Conv3d(channels_in, channels_out, 4, bias=False),
        nn.InstanceNorm3d(channels_out),
        nn.LeakyReLU(0.2),
        nn.Dropout(dropout),
    )


def _up_block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose3d(channels_in, channels_out, 4, stride=2, padding=1, bias=False),
        nn.InstanceNorm3d(channels_out),
        nn.ReLU(),
    )


def begin_small(network: nn.Module) -> None:
    """Draw the weights of all convolutions from N(0, 0.02²), as both programs do."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Generator(nn.Module):
    """U-Net of strided convolutions with four densely joined blocks at the bottom."""

    def __init__(self, channels_in: int, channels_out: int, base: int, dropout: float) -> None:
        super().__init__()
        b = base
        self.down = nn.ModuleList(
            (
                down_block(channels_in, b, normalise=False),
                down_block(b, 2 * b),
                down_block(2 * b, 4 * b),
                down_block(4 * b, 8 * b),
            )
        )
        self.bottom = nn.ModuleList(_bottleneck(n * b, 8 * b, dropout) for n in (8, 16, 16, 16))
        self.up = nn.ModuleList((_up_block(8 * b, 4 * b), _up_block(8 * b, 2 * b), _up_block(4 * b, b)))
        self.head = nn.ConvTranspose3d(2 * b, channels_out, 4, stride=2, padding=1)
        begin_small(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, channels_out, X, Y, Z)."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        before = skips.pop()
        for i, block in enumerate(self.bottom):
            x, before = block(torch.cat((x, before), dim=1) if i else x), x
        for block in self.up:
            x = torch.cat((block(x), skips.pop()), dim=1)
        logits: Tensor = self.head(x)
        return logits


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `Vox2Vox`."""
    settings = plan.network
    assert isinstance(settings, Vox2Vox)  # the registry's promise
    return Generator(len(plan.modalities), plan.outputs, settings.base, settings.dropout)
