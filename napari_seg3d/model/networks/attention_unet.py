"""Attention U-Net (Oktay et al. 2018, doi:10.48550/arXiv.1804.03999), MONAI's.

(B, images, X, Y, Z) to logits of the same size, for multiples of 16 with five widths. With widths 16-32-64-128-256,
four images and three outputs it has 5,910,443 parameters. MONAI's strides where the paper pools, and its gates work at
the skip's own resolution where the paper's work at the coarser one.
"""

from __future__ import annotations

from monai.networks.nets.attentionunet import AttentionUnet
from torch import nn

from ..network_settings import AttentionUNet
from ..plan import Plan


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is an `AttentionUNet`."""
    settings = plan.network
    assert isinstance(settings, AttentionUNet)  # the registry's promise
    return AttentionUnet(
        spatial_dims=3,
        in_channels=len(plan.modalities),
        out_channels=plan.outputs,
        channels=settings.widths,
        strides=(2,) * (len(settings.widths) - 1),
        dropout=settings.dropout,
    )
