"""The U-Net of the library qim3d (https://platform.qim.dk/qim3d): MONAI's with two residual units, in seven sizes.

(B, images, X, Y, Z) to logits of the same size, for multiples of 2 (xxsmall) to 64 (xxlarge). With one image and one
output xxsmall to xlarge have 3,666, 51,234, 1,118,342, 4,464,870, 76,846,574 and 308,457,970 parameters. qim3d itself
asks for multiples of one power of two more than the network needs; here the divisor is what is needed.
"""

from __future__ import annotations

from monai.networks.nets.unet import UNet
from torch import nn

from ..network_settings import Qim3dUNet
from ..plan import Plan


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `Qim3dUNet`."""
    settings = plan.network
    assert isinstance(settings, Qim3dUNet)  # the registry's promise
    return UNet(
        spatial_dims=3,
        in_channels=len(plan.modalities),
        out_channels=plan.outputs,
        channels=settings.widths,
        strides=(2,) * (len(settings.widths) - 1),
        num_res_units=2,
        act="PReLU",
        adn_ordering="NDA",
    )
