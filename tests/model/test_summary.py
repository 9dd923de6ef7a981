"""A summary names every layer with its true shape and parameters, without computing anything."""

from __future__ import annotations

import time

import pytest
import torch

from napari_seg3d.errors import ModelError
from napari_seg3d.model.networks import build_network, parameter_count
from napari_seg3d.model.summary import summarise

TRANSFORMER = {"name": "article-unetr", "feature_size": 4, "hidden_size": 24, "mlp_size": 24, "heads": 5}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"network.deep_supervision": True},
        {"network": {"name": "medicalzoo-unet", "base": 2}, "patch_voxels": (32, 16, 16)},
        {"network": TRANSFORMER, "patch_voxels": (16, 32, 16)},
        {"network": {"name": "vnet"}, "patch_voxels": (32, 16, 16)},
    ],
    ids=["unet", "deep supervision", "medicalzoo", "article-unetr", "vnet"],
)
def test_rows_are_what_the_hooks_of_a_real_pass_see(tiny_plan, changes):
    plan = tiny_plan(**changes)
    network = build_network(plan).train()
    shapes = {}

    def note(name):
        def hook(module, inputs, output):
            shapes[name] = tuple((output[0] if isinstance(output, list) else output).shape)

        return hook

    for name, module in network.named_modules():
        module.register_forward_hook(note(name))
    network(torch.zeros(plan.batch_size, len(plan.modalities), *plan.patch_voxels))
    summary = summarise(plan)
    assert {row.name: row.output_shape for row in summary.rows if row.output_shape} == shapes
    modules = dict(network.named_modules())
    counted = {row.name: row.parameters for row in reversed(summary.rows)}  # the first row of a name is the last here
    for name, parameters in counted.items():
        assert parameters == sum(p.numel() for p in modules[name].parameters())
        assert next(row.kind for row in summary.rows if row.name == name) == type(modules[name]).__name__
    assert summary.parameters == summary.rows[0].parameters == parameter_count(plan)
    assert summary.input_shape == (plan.batch_size, len(plan.modalities), *plan.patch_voxels)
    assert summary.input_mb == pytest.approx(4 * torch.Size(summary.input_shape).numel() / 2**20)


def test_a_layer_that_is_used_twice_is_counted_once(tiny_plan):
    summary = summarise(tiny_plan(network={"name": "medicalzoo-unet", "base": 2}, patch_voxels=(32, 16, 16)))
    shared = [row for row in summary.rows if row.name == "contexts.0.shared.2"]
    assert [row.parameters for row in shared] == [4 * 4 * 27, 0]


def test_data_is_counted_as_by_hand(tiny_plan):
    """The outputs of all convolutions, twice, in float32."""
    plan = tiny_plan(network={"name": "keras-unet", "base": 2, "levels": 2}, patch_voxels=(16, 16, 8), batch_size=1)
    voxels = 16 * 16 * 8
    fine, coarse, head = 4 * 2 * voxels, 4 * 4 * voxels // 8, plan.outputs * voxels
    assert summarise(plan).forward_backward_mb == pytest.approx(2 * 4 * (fine + coarse + head) / 2**20)


def test_a_plan_that_fits_nowhere_is_summarised_at_once(tiny_plan):
    plan = tiny_plan(network={"name": "vox2vox"}, patch_voxels=(1024, 1024, 1024), batch_size=8)
    summarise(tiny_plan())  # the first takes the time of imports
    began = time.monotonic()
    summary = summarise(plan)
    assert time.monotonic() - began < 5
    assert summary.input_mb > 60_000


def test_the_text_has_a_line_a_layer_and_the_sums(tiny_plan):
    plan = tiny_plan()
    summary = summarise(plan)
    lines = summary.as_text().splitlines()
    assert len(lines) == 1 + len(summary.rows) + 1 + 4
    assert lines[0].split() == ["layer", "kind", "output", "parameters"]
    (first,) = (line for line in lines if line.startswith("down.0.0 "))
    assert "Conv3d" in first
    assert "2 × 4 × 16 × 16 × 8" in first
    assert first.endswith(f"{2 * 4 * 27}")
    assert f"Parameters: {parameter_count(plan):,}, all trainable" in lines
    assert len(summary.as_text(depth=1).splitlines()) < len(lines)


def test_a_network_that_cannot_be_computed_is_told_in_words(tiny_plan):
    plan = tiny_plan(network={**TRANSFORMER, "heads": 64}, patch_voxels=(16, 32, 16))
    with pytest.raises(ModelError, match="64 heads cannot share"):
        summarise(plan)
