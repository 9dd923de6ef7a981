"""Windows cover everything, and blending leaves constants alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from napari_seg3d.prediction.window import blending_weights, predict_windows, whole_logits, windows_for

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(37, 50, 21), (16, 24, 32), (5, 90, 33), (1, 1, 1)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
def test_every_voxel_is_covered_and_neighbours_overlap(shape, overlap):
    window = (16, 24, 32)
    layout = windows_for(shape, window, overlap)
    seen = np.zeros(layout.shape, int)
    for corner in layout.corners:
        place = tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))
        assert seen[place].shape == window  # inside the padded volume
        seen[place] += 1
    assert seen.min() >= 1
    for axis in range(3):
        starts = sorted({corner[axis] for corner in layout.corners})
        assert all(b - a <= np.ceil(window[axis] * (1 - overlap)) for a, b in pairwise(starts))
        assert sum(layout.padding[axis]) == max(0, window[axis] - shape[axis])


@pytest.mark.parametrize("mirrors", [(), (0,), (0, 1, 2)])
def test_ones_stay_ones_and_an_image_stays_itself(mirrors):
    image = torch.rand(2, 37, 50, 21)
    *_, (done, total, ones) = predict_windows(nn.Identity(), torch.ones_like(image), (16, 24, 16), 0.5, CPU, mirrors)
    assert done == total > 1
    torch.testing.assert_close(ones, torch.ones_like(image))
    *_, (_, _, same) = predict_windows(nn.Identity(), image, (16, 24, 16), 0.5, CPU, mirrors)
    torch.testing.assert_close(same, image)


def test_a_pointwise_network_gives_what_it_gives_on_the_whole(tiny_plan):
    network = nn.Conv3d(2, 3, 1)
    image = torch.rand(2, 19, 33, 27)
    with torch.inference_mode():
        expected = network(image[None])[0]
    torch.testing.assert_close(whole_logits(network, image, (16, 16, 16), 0.5, CPU), expected)


def test_weights_are_symmetric_and_never_vanish():
    weights = blending_weights((8, 12, 5))
    assert weights.min() >= 1e-3
    for axis in range(3):
        torch.testing.assert_close(weights, weights.flip(axis))


def test_gradients_are_on_between_windows():
    """A setting that leaked out of the generator would break whoever consumes it."""
    for _ in predict_windows(nn.Conv3d(1, 1, 1), torch.rand(1, 20, 20, 20), (16, 16, 16), 0.5, CPU):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
