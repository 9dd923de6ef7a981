"""The memory of a training step, foretold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from napari_seg3d.model.footprint import step_memory_mb
from napari_seg3d.model.networks import build_network, parameter_count
from napari_seg3d.model.plan import Plan


def test_it_counts_what_the_backward_pass_keeps(tiny_plan: Callable[..., Plan]) -> None:
    plan = tiny_plan()
    network = build_network(plan)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for parameter in network.parameters():
        kept.setdefault(parameter.untyped_storage().data_ptr(), 0)
    weights = set(kept)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(torch.rand(plan.batch_size, len(plan.modalities), *plan.patch_voxels))
    activations = [size for where, size in kept.items() if where not in weights]
    expected = 4 * 4 * parameter_count(plan) + sum(activations) + 2 * max(activations)
    assert output.requires_grad
    assert step_memory_mb(plan) == pytest.approx(expected / 2**20, rel=0.02)


def test_it_grows_with_the_patch_and_the_batch(tiny_plan: Callable[..., Plan]) -> None:
    plan = tiny_plan()
    weights = 4 * 4 * parameter_count(plan) / 2**20
    alone = step_memory_mb(plan) - weights
    doubled = step_memory_mb(plan.changed({"batch_size": 2 * plan.batch_size})) - weights
    longer = step_memory_mb(plan.changed({"patch_voxels": (32, 16, 8)})) - weights
    assert doubled == pytest.approx(2 * alone, rel=0.02)
    assert longer == pytest.approx(2 * alone, rel=0.02)


def test_a_plan_that_fits_nowhere_is_measured_without_memory(tiny_plan: Callable[..., Plan]) -> None:
    huge = tiny_plan().changed({"patch_voxels": (512, 512, 512), "batch_size": 64})
    assert step_memory_mb(huge) > 1e6
