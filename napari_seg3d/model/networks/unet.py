"""Plain 3D U-Net in nnU-Net's form (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).

(B, images, X, Y, Z) to logits of the same size, for multiples of all strides together. With widths
32-64-128-256-320-320, four images and three outputs it has 31,192,035 parameters.

Each stage is two times convolution, instance normalisation, leaky ReLU. The first convolution of a deeper stage has the
stride; going up, a transposed convolution doubles the same axes. Written out rather than taken from MONAI's DynUNet,
which upsamples every deep-supervision output to full size before the loss; here each output keeps its own size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..network_settings import UNet
from ..plan import Plan

Size = tuple[int, int, int]


def convolutions(
    channels_in: int, channels_out: int, kernel: Size, stride: Size, count: int = 2, bias: bool = False
) -> nn.Sequential:
    """Return `count` times convolution, instance normalisation, leaky ReLU; the first convolution has the stride.

    Instance normalisation right behind a convolution subtracts any bias again, so that there is none by default.
    """
    layers: list[nn.Module] = []
    for i in range(count):
        layers += [
            nn.Conv3d(
                channels_in if i == 0 else channels_out,
                channels_out,
                kernel,
                stride=stride if i == 0 else 1,
                padding=(kernel[0] // 2, kernel[1] // 2, kernel[2] // 2),
                bias=bias,
            ),
            nn.InstanceNorm3d(channels_out, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        ]
    return nn.Sequential(*layers)


class StagedUNet(nn.Module):
    """U-Net around the stages of any encoder: transposed convolutions and convolutions going up, and the logits.

    Parameters
    ----------
    down : iterable of modules
        The encoder's stages, finest first.
    channels_out : int
        Logits out.
    widths, kernels, strides : sequences with one entry a stage
        As in `napari_seg3d.model.network_settings.UNet`.
    deep_supervision : bool
        In training mode return logits of all decoder stages but the coarsest, finest first.
    up_convolutions : int
        Convolutions of a decoder stage.
    bias : bool
        Whether the decoder's convolutions have biases.
    """

    def __init__(
        self,
        down: Iterable[nn.Module],
        channels_out: int,
        widths: Sequence[int],
        kernels: Sequence[Size],
        strides: Sequence[Size],
        deep_supervision: bool,
        up_convolutions: int = 2,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList(down)
        steps = list(reversed(range(len(widths) - 1)))
        self.widen = nn.ModuleList(
            nn.ConvTranspose3d(widths[i + 1], widths[i], strides[i + 1], stride=strides[i + 1], bias=bias)
            for i in steps
        )
        self.up = nn.ModuleList(
            convolutions(2 * widths[i], widths[i], kernels[i], (1, 1, 1), up_convolutions, bias) for i in steps
        )
        supervised = max(1, len(steps) - 1) if deep_supervision else 1
        #: Coarse to fine, like `up`; only the last ones where deep supervision asks for it.
        self.heads = nn.ModuleList(nn.Conv3d(widths[i], channels_out, 1) for i in steps[-supervised:])
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, a=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return logits (B, channels_out, X, Y, Z), or a list of them, finest first, under deep supervision."""
        skips = []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        skips.pop()
        outputs = []
        without_head = len(self.up) - len(self.heads)
        for i, (widen, stage) in enumerate(zip(self.widen, self.up, strict=True)):
            x = stage(torch.cat((widen(x), skips.pop()), dim=1))
            if i >= without_head and (self.training or i == len(self.up) - 1):
                outputs.append(self.heads[i - without_head](x))
        return outputs[::-1] if len(outputs) > 1 else outputs[0]


class PlainUNet(StagedUNet):
    """U-Net of any depth with its own kernel and stride on every axis and stage.

    Parameters
    ----------
    channels_in, channels_out : int
        Images in, logits out.
    widths, kernels, strides : sequences with one entry a stage
        As in `napari_seg3d.model.network_settings.UNet`.
    deep_supervision : bool
        In training mode return logits of all decoder stages but the coarsest, finest first.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        widths: Sequence[int],
        kernels: Sequence[Size],
        strides: Sequence[Size],
        deep_supervision: bool = False,
    ) -> None:
        inputs = [channels_in, *widths[:-1]]
        down = [convolutions(*stage) for stage in zip(inputs, widths, kernels, strides, strict=True)]
        super().__init__(down, channels_out, widths, kernels, strides, deep_supervision)


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `UNet`."""
    settings = plan.network
    assert isinstance(settings, UNet)  # the registry's promise
    return PlainUNet(
        len(plan.modalities),
        plan.outputs,
        settings.widths,
        settings.kernels,
        settings.strides,
        settings.deep_supervision,
    )
