"""The UNet3D of the library MedicalZoo, after Isensee et al. 2017 (doi:10.1007/978-3-319-75238-9_25).

(B, images, X, Y, Z) to logits of the same size, for multiples of 16. With base 8, two images and four outputs it has
1,781,744 parameters; the library's own figure of 17 million is wrong by ten. Kept as it is there: levels 2 to 5 apply
one convolution twice with the same weights, the skip of level 1 is taken before normalisation and the others after it,
six in ten feature maps are dropped, normalisation has no weights of its own, convolutions no biases, and the outputs
of two coarser levels are added to the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..network_settings import MedicalZooUNet
from ..plan import Plan


def _conv(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False)


def _finer(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


class Context(nn.Module):
    """A deeper level of the encoder: strided, then one convolution applied twice beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, dropout: float) -> None:
        super().__init__()
        self.stride = _conv(channels_in, channels_out, stride=2)
        self.shared = nn.Sequential(nn.InstanceNorm3d(channels_out), nn.LeakyReLU(), _conv(channels_out, channels_out))
        self.dropout = nn.Dropout3d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, not normalised yet."""
        x = self.stride(x)
        out: Tensor = self.shared(self.dropout(self.shared(x))) + x
        return out


class Finer(nn.Module):
    """Upsample to the next finer level and halve the width."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.InstanceNorm3d(channels_in), nn.LeakyReLU())
        self.after = nn.Sequential(_conv(channels_in, channels_out), nn.InstanceNorm3d(channels_out), nn.LeakyReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return twice the size with half the feature maps."""
        finer: Tensor = self.after(_finer(self.before(x)))
        return finer


def _localisation(channels: int) -> nn.Sequential:
    return nn.Sequential(_conv(channels, channels), nn.InstanceNorm3d(channels), nn.LeakyReLU())


class ZooUNet(nn.Module):
    """Residual U-Net of five levels, `base` to 16 times it wide."""

    def __init__(self, channels_in: int, channels_out: int, base: int, dropout: float) -> None:
        super().__init__()
        b = base
        self.first = _conv(channels_in, b)
        self.second = nn.Sequential(nn.LeakyReLU(), _conv(b, b), nn.Dropout3d(dropout), nn.LeakyReLU(), _conv(b, b))
        self.contexts = nn.ModuleList(Context(n, 2 * n, dropout) for n in (b, 2 * b, 4 * b, 8 * b))
        self.norms = nn.ModuleList(
            nn.Sequential(nn.InstanceNorm3d(n), nn.LeakyReLU()) for n in (b, 2 * b, 4 * b, 8 * b)
        )
        self.bottom = nn.Sequential(
            Finer(16 * b, 8 * b), _conv(8 * b, 8 * b, kernel=1), nn.InstanceNorm3d(8 * b), nn.LeakyReLU()
        )
        widths = (16 * b, 8 * b, 4 * b)
        self.localisations = nn.ModuleList(_localisation(n) for n in (*widths, 2 * b))
        self.halves = nn.ModuleList(nn.Sequential(_conv(n, n // 2, kernel=1), Finer(n // 2, n // 4)) for n in widths)
        #: From the second, third and fourth localisation.
        self.heads = nn.ModuleList(_conv(n, channels_out, kernel=1) for n in (8 * b, 4 * b, 2 * b))
        self.activation = nn.LeakyReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, channels_out, X, Y, Z)."""
        x = self.first(x)
        x = self.second(x) + x
        skips = [self.activation(x)]
        for i, context in enumerate(self.contexts):
            normed = self.norms[i](x)
            if i:
                skips.append(normed)
            x = context(normed)
        x = self.bottom(x)
        supervised = []
        for i, localisation in enumerate(self.localisations):
            x = localisation(torch.cat((x, skips.pop()), dim=1))
            if i:
                supervised.append(self.heads[i - 1](x))
            if i < len(self.halves):
                x = self.halves[i](x)
        coarse, middle, logits = supervised
        total: Tensor = logits + _finer(middle + _finer(coarse))
        return total


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `MedicalZooUNet`."""
    settings = plan.network
    assert isinstance(settings, MedicalZooUNet)  # the registry's promise
    return ZooUNet(len(plan.modalities), plan.outputs, settings.base, settings.dropout)
