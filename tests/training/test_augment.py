"""Augmentation moves what it should by what it should, and nothing else."""

from __future__ import annotations

from math import cos, radians, sin

import numpy as np
import pytest
import torch

from napari_seg3d.errors import PlanError
from napari_seg3d.training.augment import Draw, draw_augmentation, margin_voxels, turned, varied

OFF = {f"augmentation.{kind}_probability": 0.0 for kind in
       ("rotation", "scale", "elastic", "noise", "blur", "brightness", "shift", "low_resolution", "contrast",
        "gamma")}  # fmt: skip


def augmented(image, target, draw, patch):
    """All of a draw, as a batch of one."""
    if draw.matrix is not None:
        image, target = (x[0] for x in turned(image[None], target[None], [draw], patch))
    return varied(image, target, draw)


def box_for(draw, patch, seed=0):
    size = margin_voxels(draw, patch)
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand((2, *size), generator=generator)
    return image, (image[0] > 0.5).to(torch.uint8), size


def test_nothing_drawn_nothing_changed():
    image, target, size = box_for(Draw(), (8, 6, 4))
    assert size == (8, 6, 4)
    out, labels = augmented(image, target, Draw(), (8, 6, 4))
    assert torch.equal(out, image)
    assert torch.equal(labels, target)


def test_the_same_step_draws_the_same_and_kinds_are_independent(tiny_plan):
    plan = tiny_plan()
    everything = dict.fromkeys(OFF, 1.0)
    full = draw_augmentation(tiny_plan(**everything), 5, 1)
    again = draw_augmentation(tiny_plan(**everything), 5, 1)
    assert np.array_equal(full.matrix, again.matrix)
    assert np.array_equal(full.gamma, again.gamma)
    without = draw_augmentation(tiny_plan(**{**everything, "augmentation.noise_probability": 0.0}), 5, 1)
    assert without.noise is None
    assert np.array_equal(without.gamma, full.gamma)
    assert not np.array_equal(draw_augmentation(tiny_plan(**everything), 6, 1).gamma, full.gamma)
    quiet = draw_augmentation(plan.changed(OFF), 3, 0)
    assert all(getattr(quiet, n) is None for n in ("matrix", "noise", "blur", "brightness", "contrast", "gamma"))


def test_draws_stay_in_their_ranges(tiny_plan):
    ranges = {"rotation_degrees": 10.0, "scale_range": 0.25, "gamma_range": 0.4}
    always = dict.fromkeys(OFF, 1.0)
    plan = tiny_plan(**always, **{f"augmentation.{name}": value for name, value in ranges.items()})
    for step in range(200):
        draw = draw_augmentation(plan, step, 0)
        to_mm = np.diag(plan.spacing_mm)
        turn = to_mm @ draw.matrix @ np.linalg.inv(to_mm)
        scale = np.cbrt(np.linalg.det(turn))
        assert 1 / 1.2501 <= scale <= 1.2501
        np.testing.assert_allclose(turn @ turn.T / scale**2, np.eye(3), atol=1e-9)  # a pure rotation in millimetres
        assert np.abs(draw.brightness - 1).max() <= 0.25
        assert 1 / 1.4001 <= draw.gamma.min() <= draw.gamma.max() <= 1.4001


def test_a_quarter_turn_equals_numpys():
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    patch = (9, 9, 5)
    draw = Draw(matrix=turn)
    image, target, size = box_for(draw, patch)
    out, labels = augmented(image, target, draw, patch)
    c = [n // 2 for n in size]
    inner = (slice(c[0] - 4, c[0] + 5), slice(c[1] - 4, c[1] + 5), slice(c[2] - 2, c[2] + 3))
    expected = np.rot90(image[(slice(None), *inner)].numpy(), k=-1, axes=(1, 2))
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(labels.numpy(), np.rot90(target[inner].numpy(), k=-1, axes=(0, 1)))


def test_quarter_turns_take_image_and_labels_along_and_leave_slices_in_their_plane(tiny_plan):
    image, target, _ = box_for(Draw(), (6, 6, 5))
    out, labels = augmented(image, target, Draw(quarter_turns=3), (6, 6, 5))
    np.testing.assert_array_equal(out.numpy(), np.rot90(image.numpy(), 3, axes=(1, 2)))
    np.testing.assert_array_equal(labels.numpy(), np.rot90(target.numpy(), 3, axes=(0, 1)))
    plan = tiny_plan(**OFF, **{"augmentation.quarter_turns_probability": 0.75})
    turns = [draw_augmentation(plan, step, 0).quarter_turns for step in range(400)]
    # With three quarters each of the four positions comes up equally often, unturned among them.
    assert all(70 < turns.count(number) < 130 for number in range(4))
    with pytest.raises(PlanError, match="as long as wide"):
        plan.changed({"patch_voxels": (16, 32, 8)})


def test_rotation_can_be_held_to_one_axis(tiny_plan):
    settings = {"augmentation.rotation_probability": 1.0, "augmentation.rotation_about": ("up-down",)}
    matrix = draw_augmentation(tiny_plan(**{**OFF, **settings}), 3, 0).matrix
    np.testing.assert_allclose(matrix[2], (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(matrix[:, 2], (0, 0, 1), atol=1e-12)
    assert abs(matrix[0, 1]) > 0.01


def test_the_box_is_large_enough_that_no_border_shows():
    angle = radians(30)
    turn = np.array([[cos(angle), -sin(angle), 0], [sin(angle), cos(angle), 0], [0, 0, 1]]) * 1.3
    for patch in ((16, 16, 8), (15, 9, 7)):
        draw = Draw(matrix=turn)
        size = margin_voxels(draw, patch)
        out, labels = augmented(torch.ones(1, *size), torch.ones(size, dtype=torch.uint8), draw, patch)
        torch.testing.assert_close(out, torch.ones(1, *patch))
        assert labels.all()


def test_mirrors_keep_image_and_labels_together():
    image, target, _ = box_for(Draw(), (8, 6, 4))
    out, labels = augmented(image, target, Draw(mirror=(0, 2)), (8, 6, 4))
    assert torch.equal(out, image.flip(1, 3))
    assert torch.equal(labels, target.flip(0, 2))


@pytest.mark.parametrize("kind", ["noise", "blur", "brightness", "shift", "contrast", "gamma"])
def test_intensities_change_and_labels_do_not(kind):
    image, target, _ = box_for(Draw(), (12, 10, 8))
    draw = Draw(**{kind: np.array([0.7, 0.0 if kind in ("noise", "shift") else 1.0])}, noise_seed=4)
    out, labels = augmented(image, target, draw, (12, 10, 8))
    assert torch.equal(labels, target)
    assert not torch.allclose(out[0], image[0])
    assert torch.isfinite(out).all()
    if kind not in ("blur",):
        torch.testing.assert_close(out[1], image[1], atol=1e-4, rtol=1e-4)  # the other channel's number was neutral
    if kind == "gamma":
        torch.testing.assert_close(out[0].mean(), image[0].mean())
        torch.testing.assert_close(out[0].std(), image[0].std())
    if kind == "blur":
        assert out[0].std() < image[0].std()


def test_constant_patches_survive_every_kind():
    draw = Draw(noise=np.zeros(1), blur=np.ones(1), contrast=np.ones(1), gamma=np.ones(1) * 1.3)
    out, _ = augmented(torch.full((1, 6, 6, 6), 2.0), torch.zeros(6, 6, 6, dtype=torch.uint8), draw, (6, 6, 6))
    torch.testing.assert_close(out, torch.full((1, 6, 6, 6), 2.0))


def test_low_resolution_takes_detail_and_leaves_what_is_coarse():
    checks = (np.indices((12, 10, 8)).sum(0) % 2).astype(np.float32)
    flat = np.indices((12, 10, 8))[0].astype(np.float32)
    image = torch.from_numpy(np.stack((checks, flat)))
    out, _ = augmented(image, torch.zeros(12, 10, 8, dtype=torch.uint8), Draw(low_resolution=0.5), (12, 10, 8))
    assert out.shape == image.shape
    assert out[0].std() < 0.8 * image[0].std()
    assert (out[1] - image[1]).abs().max() <= 1.0


def test_patches_are_turned_together_as_alone(tiny_plan):
    patch = (9, 8, 6)
    draws = [draw_augmentation(tiny_plan(**dict.fromkeys(OFF, 1.0)), step, 0) for step in range(3)]
    size = tuple(max(n) for n in zip(*(margin_voxels(draw, patch) for draw in draws), strict=True))
    generator = torch.Generator().manual_seed(1)
    images = torch.rand((3, 2, *size), generator=generator)
    targets = (images[:, 0] > 0.5).to(torch.uint8)
    together, labels = turned(images, targets, draws, patch)
    for i, draw in enumerate(draws):
        alone, its_labels = turned(images[i : i + 1], targets[i : i + 1], [draw], patch)
        torch.testing.assert_close(together[i], alone[0])
        assert torch.equal(labels[i], its_labels[0])


def test_bending_moves_by_what_was_drawn_and_never_folds(tiny_plan):
    patch = (13, 9, 17)
    steady = np.ones((3, 5, 5, 5)) * np.array([1.0, -2.0, 3.0])[:, None, None, None]
    draw = Draw(matrix=np.eye(3), warp=steady)
    image, target, size = box_for(draw, patch)
    out, labels = augmented(image, target, draw, patch)
    first = [n // 2 - p // 2 + int(way) for n, p, way in zip(size, patch, (1, -2, 3), strict=True)]
    there = tuple(slice(f, f + p) for f, p in zip(first, patch, strict=True))
    torch.testing.assert_close(out, image[(slice(None), *there)], atol=1e-5, rtol=0)
    assert torch.equal(labels, target[there])
    only_bent = {**OFF, "augmentation.elastic_probability": 1.0, "augmentation.elastic_range": 0.35}
    plan = tiny_plan(**only_bent)
    drawn = draw_augmentation(plan, 3, 0)
    assert (np.abs(drawn.warp).max((1, 2, 3)) <= 0.35 * np.array(plan.patch_voxels) / 4).all()
    # Voxel numbers along an axis, read through the bend, still rise along that axis.
    for axis in range(3):
        numbers = np.indices(margin_voxels(drawn, plan.patch_voxels), dtype=np.float32)[axis]
        image = torch.from_numpy(numbers)[None]
        read, _ = augmented(image, torch.zeros(image.shape[1:], dtype=torch.uint8), drawn, plan.patch_voxels)
        assert (read[0].diff(dim=axis) > 0).all()
