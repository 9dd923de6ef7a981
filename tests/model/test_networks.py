"""Networks have the published sizes and compute what an independent implementation computes."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import DynUNet

from napari_seg3d.errors import ModelError
from napari_seg3d.model.network_settings import FAMILIES
from napari_seg3d.model.networks import build_network, network_names, network_summary, parameter_count


def test_monai_unet_has_the_published_parameter_count(tiny_plan):
    plan = tiny_plan(network={"name": "monai-unet"}, patch_voxels=(32, 32, 32), modalities=("a", "b", "c", "d"))
    # Four images and three outputs, as in the UNETR article.
    assert plan.outputs == 3
    assert parameter_count(plan) == 4_810_074


def test_plain_unet_equals_monais_dynunet(tiny_plan):
    """With the same weights both must give the same logits: DynUNet is nnU-Net's network."""
    plan = tiny_plan()
    settings = plan.network
    ours = build_network(plan).eval()
    theirs = DynUNet(
        3, 2, 3, settings.kernels, settings.strides, settings.strides[1:], filters=settings.widths,
        norm_name=("instance", {"affine": True}), deep_supervision=False,
    ).eval()  # fmt: skip
    stages = [theirs.input_block, *theirs.downsamples, theirs.bottleneck]
    for block, stage in zip(stages, ours.down, strict=True):
        copy_block(stage, block)
    for block, widen, stage in zip(theirs.upsamples, ours.widen, ours.up, strict=True):
        block.transp_conv.conv.weight.data.copy_(widen.weight)
        copy_block(stage, block.conv_block)
    theirs.output_block.conv.conv.weight.data.copy_(ours.heads[0].weight)
    theirs.output_block.conv.conv.bias.data.copy_(ours.heads[0].bias)
    x = torch.randn(1, 2, 20, 28, 10)
    with torch.inference_mode():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def copy_block(stage, block):
    for ours, theirs in ((stage[0], block.conv1.conv), (stage[3], block.conv2.conv)):
        theirs.weight.data.copy_(ours.weight)
    for ours, theirs in ((stage[1], block.norm1), (stage[4], block.norm2)):
        theirs.weight.data.copy_(torch.randn_like(ours.weight))
        theirs.bias.data.copy_(torch.randn_like(ours.bias))
        ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"network.deep_supervision": True},
        {"network": {"name": "monai-unet", "widths": (4, 8, 16)}},
        {"network": {"name": "unetr", "feature_size": 4, "hidden_size": 24, "mlp_size": 24, "heads": 2}},
    ],
    ids=["unet", "deep supervision", "monai-unet", "unetr"],
)
def test_logits_have_the_patchs_size_and_every_weight_learns(tiny_plan, network):
    plan = tiny_plan(patch_voxels=(16, 32, 16), **network)
    built = build_network(plan)
    outputs = built(torch.randn(2, 2, *plan.patch_voxels))
    several = outputs if isinstance(outputs, list) else [outputs]
    assert several[0].shape == (2, plan.outputs, *plan.patch_voxels)
    sum(o.square().mean() for o in several).backward()
    # MONAI's UNETR carries cross-attention norms that nothing uses.
    idle = [n for n, p in built.named_parameters() if p.grad is None and "norm_cross_attn" not in n]
    assert idle == []
    assert parameter_count(plan) == sum(p.numel() for p in built.parameters())


def test_names_and_summaries():
    assert set(network_names()) == set(FAMILIES)
    assert all(network_summary(name).endswith(".") for name in network_names())
    with pytest.raises(ModelError, match="unetr"):
        network_summary("alexnet")
