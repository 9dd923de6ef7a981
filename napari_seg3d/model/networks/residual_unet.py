"""U-Net with a residual encoder, nnU-Net's newer form (Isensee et al. 2024, doi:10.1007/978-3-031-72114-4_47).

(B, images, X, Y, Z) to logits of the same size. The encoder is a ResNet-D (He et al. 2019,
doi:10.1109/CVPR.2019.00065): a stem convolution, then blocks of two convolutions whose shortcut is averaged where the
block strides and projected where it widens. Each decoder stage has one convolution only. With the same weights it
computes what ``ResidualEncoderUNet`` of the package dynamic-network-architectures computes with nnU-Net's settings;
with widths 32-64-128-256-320-320, blocks 1-3-4-6-6-6, one image, three outputs and deep supervision it has 102,349,612
parameters. nnU-Net has 963 more, of a coarsest head whose loss has weight 0, which is left out here.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..network_settings import ResidualEncoderUNet
from ..plan import Plan
from .unet import Size, StagedUNet, convolutions

_WHOLE: Size = (1, 1, 1)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; the first of them, and the shortcut, have the stride."""

    def __init__(self, channels_in: int, channels_out: int, kernel: Size, stride: Size) -> None:
        super().__init__()
        first = convolutions(channels_in, channels_out, kernel, stride, 1, bias=True)
        second = convolutions(channels_out, channels_out, kernel, _WHOLE, 1, bias=True)
        # The last activation comes after the sum.
        self.body = nn.Sequential(*first.children(), *second[:-1].children())
        shortcut: list[nn.Module] = []
        if stride != _WHOLE:
            shortcut.append(nn.AvgPool3d(stride, stride))
        if channels_in != channels_out:
            shortcut += convolutions(channels_in, channels_out, _WHOLE, _WHOLE, 1)[:-1].children()
        self.shortcut = nn.Sequential(*shortcut)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum of both ways."""
        out: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return out


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `ResidualEncoderUNet`."""
    settings = plan.network
    assert isinstance(settings, ResidualEncoderUNet)  # the registry's promise
    channels = settings.widths[0]
    layers: list[nn.Module] = [convolutions(len(plan.modalities), channels, settings.kernels[0], _WHOLE, 1, bias=True)]
    down = []
    for width, kernel, stride, blocks in zip(
        settings.widths, settings.kernels, settings.strides, settings.blocks, strict=True
    ):
        layers.append(ResidualBlock(channels, width, kernel, stride))
        layers += [ResidualBlock(width, width, kernel, _WHOLE) for _ in range(blocks - 1)]
        down.append(nn.Sequential(*layers))
        channels, layers = width, []
    network = StagedUNet(
        down,
        plan.outputs,
        settings.widths,
        settings.kernels,
        settings.strides,
        settings.deep_supervision,
        up_convolutions=1,
        bias=True,
    )
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            # Every block begins as its shortcut alone, as in nnU-Net.
            norm = module.body[-1]
            assert isinstance(norm, nn.InstanceNorm3d)
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)
    return network
