"""MONAI's UNet with residual units (Kerfoot et al. 2018, doi:10.1007/978-3-030-12029-0_40).

(B, images, X, Y, Z) to logits of the same size, for multiples of 16 with five widths. With widths 16-32-64-128-256,
four images and three outputs it has 4,810,074 parameters: the baseline of the UNETR article.
"""

from __future__ import annotations

from monai.networks.nets.unet import UNet
from torch import nn

from ..network_settings import MonaiUNet
from ..plan import Plan


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `MonaiUNet`."""
    settings = plan.network
    assert isinstance(settings, MonaiUNet)  # the registry's promise
    return UNet(
        spatial_dims=3,
        in_channels=len(plan.modalities),
        out_channels=plan.outputs,
        channels=settings.widths,
        strides=(2,) * (len(settings.widths) - 1),
        num_res_units=settings.residual_units,
    )
