"""Training patches varied: first the parameters are drawn, then they are applied, on the device that trains.

The kinds and their usual strength follow nnU-Net (Isensee et al. 2021). Rotation and scale are one resampling;
rotations are in millimetres, so that a thick-sliced head is turned, not sheared.
"""

from __future__ import annotations

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


@dataclass(frozen=True, eq=False)
class Draw:
    """The parameters of one patch; None or nothing means: leave as it is.

    Parameters
    ----------
    matrix : (3, 3) float64 ndarray, optional
        Takes an offset from the patch's centre, in voxels, to the offset in the volume from which it is read.
    mirror : tuple of int
        Spatial axes (0, 1, 2) that are reversed.
    noise, blur, brightness, shift, contrast, gamma : (C,) float64 ndarray, optional
        One number a channel.
    noise_seed : int
        For the noise itself.
    """

    matrix: NDArray[np.float64] | None = None
    mirror: tuple[int, ...] = ()
    noise: NDArray[np.float64] | None = None
    blur: NDArray[np.float64] | None = None
    brightness: NDArray[np.float64] | None = None
    shift: NDArray[np.float64] | None = None
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
    noise, blur, brightness, shift, contrast, gamma = amounts
    return Draw(
        matrix=_matrix(angles if rotate else np.zeros(3), scale if zoom else 1.0, plan) if rotate or zoom else None,
        mirror=tuple(i for i, axis in enumerate(AXES) if axis in settings.mirror and mirrored[i]),
        noise=np.abs(noise) * settings.noise_sigma if chosen[0] else None,
        blur=np.abs(blur) * settings.blur_sigma_voxels if chosen[1] else None,
        brightness=1 + brightness * settings.brightness_range if chosen[2] else None,
        shift=shift * settings.shift_range if chosen[3] else None,
        contrast=1 + contrast * settings.contrast_range if chosen[4] else None,
        gamma=_gamma(gamma, settings) if chosen[5] else None,
        noise_seed=int(rng.integers(2**62)),
    )


def margin_voxels(draw: Draw, patch_voxels: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the size of the box around the centre that a patch with this draw is read from."""
    if draw.matrix is None:
        return patch_voxels
    # Half the patch, turned: the farthest voxel along each axis, and one more for the interpolation.
    reach = np.abs(draw.matrix) @ (np.array(patch_voxels) // 2)
    x, y, z = (2 * np.ceil(reach).astype(int) + 3).tolist()
    return x, y, z


def augmented(image: Tensor, target: Tensor, draw: Draw, patch_voxels: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    r"""Apply a draw.

    Parameters
    ----------
    image : (C, X, Y, Z) float32 Tensor
        The box of `margin_voxels` around the patch's centre.
    target : (X, Y, Z) uint8 Tensor
        The same box.

    Returns
    -------
    image : (C, \*patch_voxels) float32 Tensor
    target : (\*patch_voxels) uint8 Tensor
    """
    if draw.matrix is not None:
        grid = _sampling_grid(draw.matrix, tuple(image.shape[1:]), patch_voxels).to(image.device)
        image = functional.grid_sample(image[None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0]
        target = functional.grid_sample(target[None, None].float(), grid, mode="nearest", align_corners=True)[0, 0].to(
            torch.uint8
        )
    if draw.mirror:
        image, target = image.flip([axis + 1 for axis in draw.mirror]), target.flip(draw.mirror)
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


def _matrix(angles_degrees: NDArray[np.float64], scale: float, plan: Plan) -> NDArray[np.float64]:
    to_mm = np.diag(plan.spacing_mm)
    turn = Rotation.from_euler("xyz", angles_degrees, degrees=True).as_matrix()
    matrix: NDArray[np.float64] = np.linalg.inv(to_mm) @ turn @ to_mm / scale
    return matrix


def _sampling_grid(matrix: NDArray[np.float64], box: tuple[int, ...], patch: tuple[int, int, int]) -> Tensor:
    # The patch's centre voxel is patch // 2, the box's is box // 2: the voxel of the Cut lies on both.
    offsets = [torch.arange(n, dtype=torch.float32) - n // 2 for n in patch]
    points = torch.stack(torch.meshgrid(*offsets, indexing="ij"), -1) @ torch.as_tensor(matrix.T, dtype=torch.float32)
    size = torch.tensor(box, dtype=torch.float32)
    centre = torch.tensor([n // 2 for n in box], dtype=torch.float32)
    normalised = 2 * (points + centre) / (size - 1).clamp_min(1) - 1
    return normalised.flip(-1)[None]  # grid_sample names the last axis first


def _gamma(amounts: NDArray[np.float64], settings: Augmentation) -> NDArray[np.float64]:
    curves: NDArray[np.float64] = np.exp(amounts * log(1 + settings.gamma_range))
    return curves
