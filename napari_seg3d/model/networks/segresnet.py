"""SegResNet (Myronenko 2018, doi:10.1007/978-3-030-11726-9_28), MONAI's.

(B, images, X, Y, Z) to logits of the same size, for multiples of 8 with four levels. With base 16, four images and
three outputs it has 4,702,227 parameters. The paper's variational branch, which helps where cases are few, is left
out, and so is its dropout.
"""

from __future__ import annotations

from monai.networks.nets import segresnet
from torch import nn

from ..network_settings import SegResNet
from ..plan import Plan


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `SegResNet`."""
    settings = plan.network
    assert isinstance(settings, SegResNet)  # the registry's promise
    return segresnet.SegResNet(
        spatial_dims=3,
        init_filters=settings.base,
        in_channels=len(plan.modalities),
        out_channels=plan.outputs,
        blocks_down=settings.blocks_down,
        blocks_up=settings.blocks_up,
    )
