"""Where prediction windows lie and how they are blended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..model.device import mixed_precision


@dataclass(frozen=True)
class Windows:
    """A volume cut into windows.

    `shape` is the padded volume, `padding` what was added in front and behind along X, Y, Z, `corners` the first voxel
    of each window in the padded volume.
    """

    window: tuple[int, int, int]
    shape: tuple[int, int, int]
    padding: tuple[tuple[int, int], ...]
    corners: tuple[tuple[int, int, int], ...]


def windows_for(shape: tuple[int, int, int], window: tuple[int, int, int], overlap: float) -> Windows:
    """Lay windows evenly over a volume, overlapping by at least `overlap` of their size.

    Axes shorter than the window are padded on both sides. Even spacing needs no window more than a fixed stride and has
    no strip at the border that is blended from almost the same window twice (as in nnU-Net).

    Examples
    --------
    >>> windows_for((10, 4, 6), (4, 4, 8), 0.5).corners
    ((0, 0, 0), (2, 0, 0), (4, 0, 0), (6, 0, 0))
    """
    padding, padded, starts = [], [], []
    for size, edge in zip(shape, window, strict=True):
        missing = max(0, edge - size)
        padding.append((missing // 2, missing - missing // 2))
        whole = size + missing
        padded.append(whole)
        count = ceil((whole - edge) / (edge * (1 - overlap))) + 1
        starts.append([round(i * (whole - edge) / max(1, count - 1)) for i in range(count)])
    return Windows(
        window, (padded[0], padded[1], padded[2]), tuple(padding), tuple((x, y, z) for x, y, z in product(*starts))
    )


@cache
def blending_weights(window: tuple[int, int, int]) -> Tensor:
    """Return (X, Y, Z) float32 weights: a Gaussian of an eighth of the window, 1 in the middle, nowhere below 1e-3."""
    axes = []
    for size in window:
        x = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
        axes.append(torch.exp(-0.5 * (x / (size / 8)) ** 2))
    return torch.einsum("i,j,k->ijk", *axes).clamp_min(1e-3)


def predict_windows(
    network: nn.Module,
    image: Tensor,
    window: tuple[int, int, int],
    overlap: float,
    device: torch.device,
    mirror_axes: tuple[int, ...] = (),
) -> Iterator[tuple[int, int, Tensor | None]]:
    """Predict a volume window by window.

    Parameters
    ----------
    network : Module
        In evaluation mode, on `device`.
    image : (C, X, Y, Z) float32 Tensor
        Any size, on the CPU or the device.
    window : (int, int, int)
        Size the network is run at.
    mirror_axes : tuple of int
        Spatial axes (0, 1, 2) that are mirrored in all combinations and averaged.

    Yields
    ------
    done, total, logits
        After each window; `logits` (K, X, Y, Z) float32 on `device` comes with the last one, None before.
    """
    layout = windows_for((image.shape[1], image.shape[2], image.shape[3]), window, overlap)
    pads = [n for before, after in reversed(layout.padding) for n in (before, after)]
    padded = functional.pad(image, pads)
    weights = blending_weights(window).to(device)
    total: Tensor | None = None
    weight_sum = torch.zeros(layout.shape, device=device)
    flips = _flips(mirror_axes)
    for done, corner in enumerate(layout.corners, start=1):
        place = tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))
        patch = padded[(slice(None), *place)][None].to(device)
        # The setting must not leak to whoever consumes this generator: never yield inside these contexts.
        with torch.inference_mode(), mixed_precision(device):
            mirrored = [_flipped(network(_flipped(patch, axes)), axes).float() for axes in flips]
            outputs = torch.stack(mirrored).mean(0)[0] if len(mirrored) > 1 else mirrored[0][0]
        if len(layout.corners) == 1:
            total = outputs
            weight_sum = torch.ones_like(weight_sum)
        else:
            if total is None:
                total = torch.zeros((len(outputs), *layout.shape), device=device)
            total[(slice(None), *place)] += outputs * weights
            weight_sum[place] += weights
        if done < len(layout.corners):
            yield done, len(layout.corners), None
    assert total is not None  # there always is at least one window
    total = total / weight_sum
    back = tuple(
        slice(before, size - after) for (before, after), size in zip(layout.padding, layout.shape, strict=True)
    )
    yield len(layout.corners), len(layout.corners), total[(slice(None), *back)]


def whole_logits(
    network: nn.Module, image: Tensor, window: tuple[int, int, int], overlap: float, device: torch.device
) -> Tensor:
    """Return the logits (K, X, Y, Z) of a whole volume at once, without progress."""
    *_, (_, _, logits) = predict_windows(network, image, window, overlap, device)
    assert logits is not None  # the last one always has them
    return logits


def _flips(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    chosen: list[tuple[int, ...]] = [()]
    for axis in axes:
        chosen += [(*flip, axis + 2) for flip in chosen]
    return chosen


def _flipped(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.flip(axes) if axes else x
