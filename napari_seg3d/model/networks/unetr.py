"""UNETR: transformer encoder, convolutional decoder (Hatamizadeh et al. 2022, doi:10.1109/WACV51458.2022.00181).

(B, images, X, Y, Z) to logits of the same size, for the plan's patch only, a multiple of 16 along each axis. With four
images of 128 × 128 × 64 and three outputs it has 102,271,539 parameters, of which 12,288 are never used (norms for a
cross-attention). MONAI's: its skips leave transformer blocks 4, 7 and 10 and its last tokens are normalised, where the
paper has blocks 3, 6, 9 and no norm; see `article-unetr`.
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
