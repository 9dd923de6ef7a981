"""V-Net (Milletari et al. 2016, doi:10.1109/3DV.2016.79), MONAI's.

(B, images, X, Y, Z) to logits of the same size, for multiples of 16. With two images and four outputs it has 45,607,916
parameters. The first block adds the images to its 16 feature maps, which works for 1, 2, 4, 8 or 16 images only; any
other number is projected to the next of them by a 1 × 1 × 1 convolution. Activation is ELU, as in MONAI and MedicalZoo
(the paper has PReLU).
"""

from __future__ import annotations

from monai.networks.nets import vnet
from torch import nn

from ..network_settings import VNet
from ..plan import Plan


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `VNet`."""
    settings = plan.network
    assert isinstance(settings, VNet)  # the registry's promise
    images = len(plan.modalities)
    channels = next(n for n in (1, 2, 4, 8, 16) if n >= images)
    network = vnet.VNet(spatial_dims=3, in_channels=channels, out_channels=plan.outputs)
    for module in network.modules():
        # MONAI's arguments do not reach the dropout of the two finest skips.
        if isinstance(module, nn.Dropout3d):
            module.p = settings.dropout
    if channels == images:
        return network
    return nn.Sequential(nn.Conv3d(images, channels, 1), network)
