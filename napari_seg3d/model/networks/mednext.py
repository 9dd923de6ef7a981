"""MedNeXt (Roy et al. 2023, doi:10.1007/978-3-031-43901-8_39), MONAI's.

(B, images, X, Y, Z) to logits of the same size, for multiples of 16. Size S with kernel 3, four images and three
outputs has 5,551,043 parameters. With deep supervision it returns in training mode a list of five, down to a 16th of
the size.
"""

from __future__ import annotations

from monai.networks.nets import mednext
from torch import Tensor, nn

from ..network_settings import MedNeXt
from ..plan import Plan


class ListingMedNeXt(nn.Module):
    """MONAI's returns a tuple under deep supervision; every network here returns a list."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Return logits (B, channels_out, X, Y, Z), or a list of them, finest first, under deep supervision."""
        outputs: Tensor | tuple[Tensor, ...] = self.network(x)
        return list(outputs) if isinstance(outputs, tuple) else outputs


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `MedNeXt`."""
    settings = plan.network
    assert isinstance(settings, MedNeXt)  # the registry's promise
    network = mednext.create_mednext(
        settings.size,
        spatial_dims=3,
        in_channels=len(plan.modalities),
        out_channels=plan.outputs,
        kernel_size=settings.kernel,
        deep_supervision=settings.deep_supervision,
    )
    return ListingMedNeXt(network)
