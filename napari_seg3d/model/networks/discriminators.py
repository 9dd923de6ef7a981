"""The networks that judge masks in adversarial training: image and mask in, a map of scores out.

Both map (B, images + outputs, X, Y, Z) to scores (B, 1, x, y, z) without bounds, one for each part of the patch: near 1
where the mask seems to be a person's, near 0 where it seems to be made.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from monai.networks.nets.patchgan_discriminator import PatchDiscriminator
from torch import Tensor, nn

from ...errors import ModelError
from ..plan import Plan
from .vox2vox import begin_small, down_block

#: Name in a plan -> what it is, in one line.
DISCRIMINATORS: Mapping[str, str] = MappingProxyType(
    {
        "vox2vox": "That of Vox2Vox (Cirillo 2020): four strided convolutions, one score for each 16³ voxels.",
        "patch": "Pix2PixHD's on patches (Wang 2018), MONAI's: overlapping scores, three strided convolutions.",
    }
)
#: Shortest edge of a patch that leaves a score.
_SHORTEST = {"vox2vox": 16, "patch": 24}


class Vox2VoxDiscriminator(nn.Sequential):
    """The discriminator of Vox2Vox (doi:10.1007/978-3-030-72084-1_25): an edge of 128 voxels gives 8 scores.

    With four images, four outputs and base 64 it has 11,075,649 parameters, with base 16 704,529. Kan's program takes
    as many mask channels as images and fails otherwise; here they may differ.
    """

    def __init__(self, channels_in: int, base: int) -> None:
        super().__init__(
            down_block(channels_in, base, normalise=False),
            down_block(base, 2 * base),
            down_block(2 * base, 4 * base),
            down_block(4 * base, 8 * base),
            # A kernel of 4 keeps the size with three voxels of zeros, two of them in front.
            nn.ConstantPad3d((2, 1, 2, 1, 2, 1), 0.0),
            nn.Conv3d(8 * base, 1, 4),
        )
        begin_small(self)


class LastOfPatch(nn.Module):
    """MONAI's PatchDiscriminator returns all its layers; the scores are the last."""

    def __init__(self, channels_in: int, base: int) -> None:
        super().__init__()
        # Batch normalisation would mix true and made masks, which come in batches of their own.
        self.network = PatchDiscriminator(spatial_dims=3, channels=base, in_channels=channels_in, norm="INSTANCE")

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (B, 1, x, y, z)."""
        scores: Tensor = self.network(x)[-1]
        return scores


def build_discriminator(plan: Plan) -> nn.Module:
    """Build the discriminator of a plan with fresh weights from torch's current random state.

    Returns
    -------
    nn.Module
        Maps (B, len(plan.modalities) + plan.outputs, X, Y, Z), images first, to scores (B, 1, x, y, z).

    Raises
    ------
    ModelError
        If the plan has none, names an unknown one, or has patches that are too small for it.
    """
    judge = plan.adversarial
    if judge is None:
        raise ModelError("This plan has no discriminator: set adversarial.discriminator to get one.")
    if judge.discriminator not in DISCRIMINATORS:
        raise ModelError(f"Unknown discriminator {judge.discriminator!r}. Possible are: {', '.join(DISCRIMINATORS)}.")
    shortest = _SHORTEST[judge.discriminator]
    size = " × ".join(str(n) for n in plan.patch_voxels)
    if min(plan.patch_voxels) < shortest:
        raise ModelError(
            f"The discriminator {judge.discriminator} needs patches of at least {shortest} voxels along each axis, got "
            f"{size}."
        )
    if judge.discriminator == "patch":
        return LastOfPatch(len(plan.modalities) + plan.outputs, judge.base)
    if max(plan.patch_voxels) < 2 * shortest:
        raise ModelError(f"Patches of {size} voxels leave a single one for the discriminator vox2vox to normalise.")
    return Vox2VoxDiscriminator(len(plan.modalities) + plan.outputs, judge.base)
