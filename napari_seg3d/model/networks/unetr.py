"""UNETR: transformer encoder, convolutional decoder (Hatamizadeh et al. 2022, doi:10.1109/WACV51458.2022.00181).

MONAI's, with a perceptron as patch embedding. It takes patches of one size only, a multiple of 16 along each axis.
"""

from __future__ import annotations

from monai.networks.nets import unetr
from torch import nn

from ..network_settings import UNETR
from ..plan import Plan


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `UNETR`."""
    settings = plan.network
    assert isinstance(settings, UNETR)  # the registry's promise
    return unetr.UNETR(
        in_channels=len(plan.modalities),
        out_channels=plan.outputs,
        img_size=plan.patch_voxels,
        feature_size=settings.feature_size,
        hidden_size=settings.hidden_size,
        mlp_dim=settings.mlp_size,
        num_heads=settings.heads,
    )
