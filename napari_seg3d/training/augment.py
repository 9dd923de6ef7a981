"""Training patches varied: first the parameters are drawn, then they are applied, on the device that trains.

The kinds and their usual strength follow nnU-Net (Isensee et al. 2021). Rotation, scale and bending are one resampling;
rotations are in millimetres, so that a thick-sliced head is turned, not sheared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from ..model.plan import AXES, Augmentation, Plan
from .patches import STREAM_AUGMENT

#: Parts of a patch along each axis between the points that bending moves.
_BENDS = 4


@dataclass(frozen=True, eq=False)
class Draw:
    """The parameters of one patch; None or nothing means: leave as it is.

    Parameters
    ----------
    matrix : (3, 3) float64 ndarray, optional
        Takes an offset from the patch's centre, in voxels, to the offset in the volume from which it is read.
    warp : (3, 5, 5, 5) float64 ndarray, optional
        Added to that offset, in voxels, at points that divide the patch into quarters; linear between them.
    mirror : tuple of int
        Spatial axes (0, 1, 2) that are reversed.
    quarter_turns : int
        How often the patch is turned by 90 degrees from its first axis to its second.
    noise, blur, brightness, shift, contrast, gamma : (C,) float64 ndarray, optional
        One number a channel.
    low_resolution : float, optional
        The resolution to go through, as part of the patch's own.
    noise_seed : int
        For the noise itself.
    """

    matrix: NDArray[np.float64] | None = None
    warp: NDArray[np.float64] | None = None
    mirror: tuple[int, ...] = ()
    quarter_turns: int = 0
    noise: NDArray[np.float64] | None = None
    blur: NDArray[np.float64] | None = None
    brightness: NDArray[np.float64] | None = None
    shift: NDArray[np.float64] | None = None
    low_resolution: float | None = None
    contrast: NDArray[np.float64] | None = None
    gamma: NDArray[np.float64] | None = None
    noise_seed: int = field(default=0)


def draw_augmentation(plan: Plan, step: int, place: int) -> Draw:
    """Draw the parameters of one patch: a function of (seed, step, place in the batch) alone."""
    settings = plan.augmentation
    rng = np.random.default_rng((plan.seed, STREAM_AUGMENT, step, place))
    channels = len(plan.modalities)
    # Every number is drawn whether it is used or not, so that switching one kind off leaves the others as they were.
    angles = rng.uniform(-settings.rotation_degrees, settings.rotation_degrees, 3)
    scale = np.exp(rng.uniform(-log(1 + settings.scale_range), log(1 + settings.scale_range)))
    rotate, zoom = rng.random() < settings.rotation_probability, rng.random() < settings.scale_probability
    mirrored = rng.random(3) < 0.5
    amounts = rng.uniform(-1, 1, (6, channels))
    chosen = rng.random(6) < (
        settings.noise_probability,
        settings.blur_probability,
        settings.brightness_probability,
        settings.shift_probability,
        settings.contrast_probability,
        settings.gamma_probability,
    )
    # Drawn last, so that the kinds above come out as they did before this one existed.
    noise_seed = int(rng.integers(2**62))
    coarse, coarseness = rng.random() < settings.low_resolution_probability, rng.random()
    bent = rng.random() < settings.elastic_probability
    bends = rng.uniform(-1, 1, (3, *(_BENDS + 1,) * 3))
    turned_round = rng.random() < settings.quarter_turns_probability
    quarters = int(rng.integers(1, 4))
    angles = angles * [axis in settings.rotation_about for axis in AXES]
    reach = settings.elastic_range * np.array(plan.patch_voxels) / _BENDS
    noise, blur, brightness, shift, contrast, gamma = amounts
    return Draw(
        matrix=_matrix(angles * rotate, scale if zoom else 1.0, plan) if rotate or zoom or bent else None,
        warp=bends * reach[:, None, None, None] if bent else None,
        mirror=tuple(i for i, axis in enumerate(AXES) if axis in settings.mirror and mirrored[i]),
        quarter_turns=quarters if turned_round else 0,
        noise=np.abs(noise) * settings.noise_sigma if chosen[0] else None,
        blur=np.abs(blur) * settings.blur_sigma_voxels if chosen[1] else None,
        brightness=1 + brightness * settings.brightness_range if chosen[2] else None,
        shift=shift * settings.shift_range if chosen[3] else None,
        low_resolution=1 - coarseness * (1 - settings.low_resolution_scale) if coarse else None,
        contrast=1 + contrast * settings.contrast_range if chosen[4] else None,
        gamma=_gamma(gamma, settings) if chosen[5] else None,
        noise_seed=noise_seed,
    )


def margin_voxels(draw: Draw, patch_voxels: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the size of the box around the centre that a patch with this draw is read from."""
    if draw.matrix is None:
        return patch_voxels
    # Half the patch, turned: the farthest voxel along each axis, and one more for the interpolation.
    reach = np.abs(draw.matrix) @ (np.array(patch_voxels) // 2)
    if draw.warp is not None:
        reach += np.abs(draw.warp).max((1, 2, 3))
    x, y, z = (2 * np.ceil(reach).astype(int) + 3).tolist()
    return x, y, z


def turned(
    images: Tensor, targets: Tensor, draws: Sequence[Draw], patch_voxels: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    r"""Rotate, scale and bend patches, all in one resampling.

    Parameters
    ----------
    images : (B, C, X, Y, Z) float32 Tensor
        Boxes around the patches' centres, of at least `margin_voxels` of each draw.
    targets : (B, X, Y, Z) uint8 Tensor
        The same boxes.
    draws : sequence of B Draw
        All with a matrix.

    Returns
    -------
    images : (B, C, \*patch_voxels) float32 Tensor
    targets : (B, \*patch_voxels) uint8 Tensor
    """
    grids = _sampling_grids(draws, tuple(images.shape[2:]), patch_voxels, images.device)
    moved = functional.grid_sample(images, grids, mode="bilinear", padding_mode="zeros", align_corners=True)
    labels = functional.grid_sample(targets[:, None].float(), grids, mode="nearest", align_corners=True)
    return moved, labels[:, 0].to(torch.uint8)


def varied(image: Tensor, target: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Mirror a patch, turn it by right angles, and vary its intensities.

    Parameters
    ----------
    image : (C, X, Y, Z) float32 Tensor
    target : (X, Y, Z) uint8 Tensor

    Returns
    -------
    image, target : Tensor
        New, or the same where nothing was drawn.
    """
    if draw.mirror:
        image, target = image.flip([axis + 1 for axis in draw.mirror]), target.flip(draw.mirror)
    if draw.quarter_turns:
        image, target = torch.rot90(image, draw.quarter_turns, (1, 2)), torch.rot90(target, draw.quarter_turns, (0, 1))
    return _intensities(image, draw), target


def _intensities(image: Tensor, draw: Draw) -> Tensor:
    def by_channel(numbers: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(numbers, dtype=torch.float32, device=image.device).view(-1, 1, 1, 1)

    if draw.noise is not None:
        generator = torch.Generator(image.device).manual_seed(draw.noise_seed)
        image = image + by_channel(draw.noise) * torch.randn(image.shape, generator=generator, device=image.device)
    if draw.blur is not None:
        image = torch.stack([_blurred(channel, sigma) for channel, sigma in zip(image, draw.blur, strict=True)])
    if draw.brightness is not None:
        image = image * by_channel(draw.brightness)
    if draw.shift is not None:
        image = image + by_channel(draw.shift)
    if draw.low_resolution is not None:
        image = _coarsened(image, draw.low_resolution)
    if draw.contrast is not None:
        mean = image.mean((1, 2, 3), keepdim=True)
        low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
        image = ((image - mean) * by_channel(draw.contrast) + mean).clamp(low, high)
    if draw.gamma is not None:
        low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
        width = (high - low).clamp_min(1e-6)
        curved = ((image - low) / width) ** by_channel(draw.gamma) * width + low
        # Mean and deviation stay, so that only the shape of the histogram changes.
        ratio = image.std((1, 2, 3), keepdim=True) / curved.std((1, 2, 3), keepdim=True).clamp_min(1e-6)
        image = (curved - curved.mean((1, 2, 3), keepdim=True)) * ratio + image.mean((1, 2, 3), keepdim=True)
    return image


def _blurred(image: Tensor, sigma: float) -> Tensor:
    radius = max(1, int(3 * sigma + 0.5))
    x = torch.arange(-radius, radius + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-0.5 * (x / max(sigma, 1e-3)) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = len(kernel)
        padding = [0, 0, 0]
        padding[axis] = radius
        pads = [n for p in reversed(padding) for n in (p, p)]
        image = functional.conv3d(functional.pad(image[None, None], pads, mode="replicate"), kernel.view(shape))[0, 0]
    return image


def _coarsened(image: Tensor, scale: float) -> Tensor:
    size = [max(1, round(n * scale)) for n in image.shape[1:]]
    coarse = functional.interpolate(image[None], size, mode="nearest-exact")
    finer: Tensor = functional.interpolate(coarse, image.shape[1:], mode="trilinear")[0]
    return finer


def _matrix(angles_degrees: NDArray[np.float64], scale: float, plan: Plan) -> NDArray[np.float64]:
    to_mm = np.diag(plan.spacing_mm)
    turn = Rotation.from_euler("xyz", angles_degrees, degrees=True).as_matrix()
    matrix: NDArray[np.float64] = np.linalg.inv(to_mm) @ turn @ to_mm / scale
    return matrix


def _sampling_grids(
    draws: Sequence[Draw],
    box: tuple[int, ...],
    patch: tuple[int, int, int],
    device: torch.device,
) -> Tensor:
    """Return (B, X, Y, Z, 3): where each voxel of the patches is read from, in torch's coordinates from -1 to 1."""
    # From offsets in voxels to -1 … 1 is one more scaling, which the small matrices can take over. The patch's centre
    # voxel is patch // 2, the box's is box // 2: the voxel of the Cut lies on both.
    size = torch.tensor(box, dtype=torch.float32)
    scale = 2 / (size - 1).clamp_min(1)
    shift = torch.tensor([n // 2 for n in box], dtype=torch.float32) * scale - 1
    matrices = [np.eye(3) if draw.matrix is None else draw.matrix for draw in draws]
    turns = torch.as_tensor(np.stack(matrices), dtype=torch.float32) * scale[:, None]
    x, y, z = (torch.outer(turns[:, :, i].reshape(-1), torch.arange(n) - n // 2.0) for i, n in enumerate(patch))
    x, y, z = (part.view(len(draws), 3, -1).mT.to(device) for part in (x + shift.repeat(len(draws))[:, None], y, z))
    # A product with a matrix is a sum of one vector for each axis.
    normalised = x[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :]
    for place, draw in enumerate(draws):
        if draw.warp is not None:
            warp = torch.as_tensor(draw.warp, dtype=torch.float32) * scale[:, None, None, None]
            bends = functional.interpolate(warp[None].to(device), patch, mode="trilinear", align_corners=True)[0]
            normalised[place] += bends.movedim(0, -1)
    return normalised.flip(-1)  # grid_sample names the last axis first


def _gamma(amounts: NDArray[np.float64], settings: Augmentation) -> NDArray[np.float64]:
    curves: NDArray[np.float64] = np.exp(amounts * log(1 + settings.gamma_range))
    return curves
