"""UNETR as in the BraTS comparison of 2021 (Adaloglou's self-attention-cv), after Hatamizadeh et al. 2022.

doi:10.1109/WACV51458.2022.00181. (B, images, X, Y, Z) to logits of the same size, for the plan's patch only, a multiple
of 16. With four images of 128 × 128 × 64 and three outputs it has 49,667,123 parameters. MONAI's UNETR is another
network: it takes its skips one block later, normalises the last tokens, and refuses 10 heads in a width of 512. Here
the skips leave blocks 3, 6, 9 and 12 as in paper and article, and ten heads are 51 numbers wide: the article rounds
512 / 10 down and never says so. Attention is torch's own fused one, which gives the same numbers in less memory.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ModelError
from ..network_settings import ArticleUNETR
from ..plan import Plan

#: Edge of a token in voxels.
_TOKEN = 16
#: After so many transformer blocks the decoder takes its inputs.
_SKIPS = (3, 6, 9, 12)


class Attention(nn.Module):
    """Every token looks at every other one, with several heads of any width."""

    def __init__(self, width: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads, self.head_size = heads, head_size
        self.queries_keys_values = nn.Linear(width, 3 * heads * head_size, bias=False)
        self.join = nn.Linear(heads * head_size, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, width) to as many."""
        parts = self.queries_keys_values(x).unflatten(-1, (3, self.heads, self.head_size))
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(queries, keys, values)
        joined: Tensor = self.join(seen.transpose(1, 2).flatten(2))
        return joined


class Block(nn.Module):
    """Attention and a perceptron, each normalised before and added to what came in."""

    def __init__(self, width: int, heads: int, head_size: int, mlp_size: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads, head_size))
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, mlp_size), nn.GELU(), nn.Linear(mlp_size, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, width) to as many."""
        x = x + self.attention(x)
        x = x + self.perceptron(x)
        return x


class Residual(nn.Module):
    """Two convolutions with instance normalisation beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(channels_in, channels_out, 3, padding=1),
            nn.InstanceNorm3d(channels_out),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv3d(channels_out, channels_out, 3, padding=1),
            nn.InstanceNorm3d(channels_out),
        )
        self.shortcut = (
            nn.Identity()
            if channels_in == channels_out
            else nn.Sequential(nn.Conv3d(channels_in, channels_out, 1), nn.InstanceNorm3d(channels_out))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum of both ways."""
        return functional.leaky_relu(self.body(x) + self.shortcut(x), 0.01)


def _widen(*channels: int) -> nn.Sequential:
    """Transposed convolutions that double the size, from each of the widths to the next."""
    return nn.Sequential(*(nn.ConvTranspose3d(a, b, 2, stride=2, bias=False) for a, b in pairwise(channels)))


class EarlySkipUNETR(nn.Module):
    """Twelve transformer blocks over tokens of 16³ voxels, and a convolutional decoder.

    Parameters
    ----------
    channels_in, channels_out : int
        Images in, logits out.
    patch_voxels : (int, int, int)
        The only size that it takes: each place has its own learned code.
    feature_size, hidden_size, mlp_size, heads, head_size : int
        As in `napari_seg3d.model.network_settings.ArticleUNETR`.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        patch_voxels: tuple[int, int, int],
        feature_size: int,
        hidden_size: int,
        mlp_size: int,
        heads: int,
        head_size: int,
    ) -> None:
        super().__init__()
        self.grid = tuple(n // _TOKEN for n in patch_voxels)
        self.embed = nn.Conv3d(channels_in, hidden_size, _TOKEN, stride=_TOKEN, bias=False)
        self.position = nn.Parameter(torch.randn(1, prod(self.grid), hidden_size))
        self.blocks = nn.ModuleList(Block(hidden_size, heads, head_size, mlp_size) for _ in range(_SKIPS[-1]))
        f, h = feature_size, hidden_size
        self.image = Residual(channels_in, f)
        #: From blocks 3, 6, 9 and 12 to half, a quarter and twice an eighth of the patch's size.
        self.skips = nn.ModuleList(
            (_widen(h, 2 * f, 2 * f, 2 * f), _widen(h, 4 * f, 4 * f), _widen(h, 8 * f), _widen(h, 8 * f))
        )
        self.up = nn.ModuleList(Residual(2 * n, n) for n in (8 * f, 4 * f, 2 * f, f))
        self.widen = nn.ModuleList(_widen(2 * n, n) for n in (4 * f, 2 * f, f))
        self.head = nn.Conv3d(f, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, channels_out, X, Y, Z)."""
        skips = [self.image(x)]
        # Tokens in the order of the axes: Z runs fastest.
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.position
        for i, block in enumerate(self.blocks, start=1):
            tokens = block(tokens)
            if i in _SKIPS:
                maps = tokens.transpose(1, 2).unflatten(2, self.grid)
                skips.append(self.skips[_SKIPS.index(i)](maps))
        x = skips.pop()
        for i, up in enumerate(self.up):
            x = up(torch.cat((self.widen[i - 1](x) if i else x, skips.pop()), dim=1))
        logits: Tensor = self.head(x)
        return logits


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is an `ArticleUNETR`.

    Raises
    ------
    ModelError
        If there are more heads than numbers to share out among them.
    """
    settings = plan.network
    assert isinstance(settings, ArticleUNETR)  # the registry's promise
    if not settings.width_of_a_head:
        raise ModelError(
            f"{settings.heads} heads cannot share a hidden size of {settings.hidden_size}. Take fewer heads, or set "
            "network.head_size."
        )
    return EarlySkipUNETR(
        len(plan.modalities),
        plan.outputs,
        plan.patch_voxels,
        settings.feature_size,
        settings.hidden_size,
        settings.mlp_size,
        settings.heads,
        settings.width_of_a_head,
    )
