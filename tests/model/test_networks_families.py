"""Every family has the published size, computes any number of images, and is built as its paper says."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_seg3d.errors import ModelError
from napari_seg3d.model.network_settings import FAMILIES
from napari_seg3d.model.networks import build_network, in_encoder, network_names, parameter_count
from napari_seg3d.model.networks.discriminators import DISCRIMINATORS, build_discriminator
from napari_seg3d.model.plan import Plan, plan_from
from napari_seg3d.training.learner import Learner

STAGES = {"kernels": ((3, 3, 3),) * 6, "strides": ((1, 1, 1), *[(2, 2, 2)] * 5), "widths": (32, 64, 128, 256, 320, 320)}
SMALL_STAGES = {"kernels": ((3, 3, 1), *[(3, 3, 3)] * 3), "widths": (4, 6, 8, 8),
                "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2))}  # fmt: skip
#: Every family so small that a step takes a moment.
TINY = {
    "unet": {"deep_supervision": True, **SMALL_STAGES},
    "resenc-unet": {"deep_supervision": True, "blocks": (1, 2, 1, 1), **SMALL_STAGES},
    "monai-unet": {"widths": (4, 8, 16)},
    "qim3d-unet": {"size": "xxsmall"},
    "cicek-unet": {"base": 2},
    "medicalzoo-unet": {"base": 2},
    "vnet": {},
    "unetr": {"feature_size": 4, "hidden_size": 24, "mlp_size": 24, "heads": 2},
    "article-unetr": {"feature_size": 4, "hidden_size": 24, "mlp_size": 24, "heads": 5},
    "keras-unet": {"base": 2},
    "vox2vox": {"base": 4},
    "segresnet": {"base": 8},
    "swin-unetr": {"feature_size": 12},
    "attention-unet": {"widths": (4, 8, 16)},
    "mednext": {"deep_supervision": True},
}


def plan_for(network: str, images: int, outputs: int, patch=(128, 128, 64), adversarial=None, **settings) -> Plan:
    """A plan with nothing but a network; one output is a region, several are classes."""
    labels = [{"value": i, "name": f"label {i}", "color": "#ff0000"} for i in range(1, max(2, outputs))]
    region = {"targets": "regions", "regions": [{"name": "all", "values": [1], "color": "#ff0000"}]}
    return plan_from(
        {
            "modalities": [f"image {i}" for i in range(images)],
            "labels": labels,
            **(region if outputs == 1 else {}),
            "spacing_mm": (1, 1, 1),
            "network": {"name": network, **settings},
            "patch_voxels": patch,
            "epochs": 1,
            "adversarial": adversarial,
        }
    )


def tiny(network: str, images: int = 2, **more) -> Plan:
    patch = (32, 64, 32) if network == "swin-unetr" else (16, 32, 16)
    return plan_for(network, images, 3, patch, **TINY[network], **more)


def test_every_family_is_here():
    assert set(TINY) == set(FAMILIES) == set(network_names())


@pytest.mark.parametrize(
    ("network", "images", "outputs", "settings", "published"),
    [
        ("unet", 4, 3, STAGES, 31_192_035),
        # dynamic-network-architectures 0.4.4 counts 102,350,575 with nnU-Net's settings; its coarsest head is left out.
        ("resenc-unet", 1, 3, {**STAGES, "blocks": (1, 3, 4, 6, 6, 6), "deep_supervision": True}, 102_350_575 - 963),
        ("monai-unet", 4, 3, {}, 4_810_074),
        ("qim3d-unet", 1, 1, {"size": "xxsmall"}, 3_666),
        ("qim3d-unet", 1, 1, {"size": "xsmall"}, 51_234),
        ("qim3d-unet", 1, 1, {"size": "small"}, 1_118_342),
        ("qim3d-unet", 1, 1, {"size": "medium"}, 4_464_870),
        ("qim3d-unet", 1, 1, {"size": "large"}, 76_846_574),
        ("qim3d-unet", 1, 1, {"size": "xlarge"}, 308_457_970),
        # The paper leaves batch normalisation's 4,672 out.
        ("cicek-unet", 3, 3, {}, 19_069_955 + 4_672),
        ("cicek-unet", 4, 3, {}, 19_070_819 + 4_672),
        ("cicek-unet", 2, 4, {}, 19_069_156 + 4_672),
        ("medicalzoo-unet", 2, 4, {}, 1_781_744),
        ("medicalzoo-unet", 2, 4, {"base": 16}, 7_125_216),
        ("medicalzoo-unet", 2, 4, {"base": 32}, 28_497_344),
        ("vnet", 2, 4, {}, 45_607_916),
        ("unetr", 4, 3, {}, 102_271_539),
        ("article-unetr", 4, 3, {}, 49_667_123),
        ("article-unetr", 4, 3, {"hidden_size": 768, "heads": 12, "mlp_size": 3072}, 101_910_579),
        ("keras-unet", 4, 4, {}, 2_345_924),
        ("vox2vox", 4, 4, {}, 142_131_268),
        ("vox2vox", 4, 4, {"base": 16}, 8_892_436),
        ("segresnet", 4, 3, {}, 4_702_227),
        ("segresnet", 4, 3, {"base": 8}, 1_176_843),
        ("swin-unetr", 4, 3, {}, 15_705_621),
        ("swin-unetr", 4, 3, {"feature_size": 48}, 62_191_941),
        ("attention-unet", 4, 3, {}, 5_910_443),
        ("mednext", 4, 3, {}, 5_551_043),
    ],
)
def test_networks_have_the_published_parameters(network, images, outputs, settings, published):
    assert parameter_count(plan_for(network, images, outputs, **settings)) == published


@pytest.mark.parametrize("images", [1, 2, 3, 4])
@pytest.mark.parametrize("network", TINY)
def test_any_number_of_images_gives_logits_and_every_weight_learns(network, images):
    plan = tiny(network, images)
    built = build_network(plan)
    outputs = built(torch.randn(2, images, *plan.patch_voxels))
    assert isinstance(outputs, list) == plan.network.supervises_deeply
    several = outputs if isinstance(outputs, list) else [outputs]
    sizes = [o.shape for o in several]
    assert sizes[0] == (2, 3, *plan.patch_voxels)
    assert sizes == sorted(sizes, reverse=True)
    sum(o.square().mean() for o in several).backward()
    # MONAI's UNETR carries cross-attention norms that nothing uses.
    idle = [n for n, p in built.named_parameters() if p.grad is None and "norm_cross_attn" not in n]
    assert idle == []
    built.eval()
    with torch.inference_mode():
        logits = built(torch.randn(1, images, *plan.patch_voxels))
    assert logits.shape == (1, 3, *plan.patch_voxels)
    assert (logits.sum(1) - 1).abs().max() > 1e-3  # no softmax


@pytest.mark.parametrize("network", TINY)
def test_what_cannot_be_computed_is_refused_in_words(network):
    plan = tiny(network)
    built = build_network(plan).eval()
    x, y, z = plan.patch_voxels
    with pytest.raises(ModelError, match="images image 0, image 1"):
        built(torch.zeros(1, 3, x, y, z))
    with pytest.raises(ModelError, match="shape"):
        built(torch.zeros(2, x, y, z))
    with pytest.raises(ModelError, match=rf"{network} computes .* voxels"):
        built(torch.zeros(1, 2, x, y + 1, z))
    if not plan.network.fixed_size:
        longer = (x, y + plan.network.divisor[1], z)
        with torch.inference_mode():
            assert built(torch.zeros(1, 2, *longer)).shape == (1, 3, *longer)


@pytest.mark.parametrize("network", TINY)
def test_a_copy_with_the_same_weights_gives_the_same_logits(network):
    plan = tiny(network)
    built = build_network(plan).eval()
    other = build_network(plan).eval()
    other.load_state_dict(built.state_dict())
    images = torch.randn(1, 2, *plan.patch_voxels)
    with torch.inference_mode():
        assert torch.equal(built(images), other(images))
        assert torch.equal(built(images), copy.deepcopy(built)(images))


@pytest.mark.parametrize("network", TINY)
def test_the_encoder_is_what_works_before_the_first_upsampling(network):
    """The names of the encoder's weights against the order in which a pass uses them."""
    plan = tiny(network)
    built = build_network(plan).eval()
    order: list[str] = []
    for name, module in built.named_modules():
        if name and next(module.parameters(recurse=False), None) is not None:
            module.register_forward_hook(lambda *_, name=name: order.append(name))
    with torch.inference_mode():
        built(torch.zeros(1, 2, *plan.patch_voxels))
    names = {n: in_encoder(network, n) for n, _ in built.named_parameters()}
    encoder = {n.rpartition(".")[0] for n, inside in names.items() if inside}
    decoder = {n.rpartition(".")[0] for n, inside in names.items() if not inside}
    assert encoder
    assert decoder
    assert not encoder & decoder
    used = [name in encoder for name in order]
    assert used[0]
    assert not used[-1]
    if network not in ("unetr", "article-unetr", "swin-unetr"):  # whose skips have convolutions of their own
        assert used == sorted(used, reverse=True)


def test_cicek_doubles_in_the_second_convolution_of_a_step():
    built = build_network(plan_for("cicek-unet", 1, 3, base=4))
    widths = [(m.in_channels, m.out_channels) for step in built.down for m in step if isinstance(m, nn.Conv3d)]
    assert widths == [(1, 4), (4, 8), (8, 8), (8, 16), (16, 16), (16, 32), (32, 32), (32, 64)]
    assert [type(m).__name__ for m in built.down[0]] == ["Conv3d", "BatchNorm3d", "ReLU"] * 2


def test_medicalzoo_uses_the_convolution_of_a_level_twice():
    built = build_network(tiny("medicalzoo-unet")).eval()
    calls: dict[str, int] = {}
    for name, module in built.named_modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1}))
    built(torch.zeros(1, 2, 16, 32, 16))
    assert {name for name, n in calls.items() if n == 2} == {f"contexts.{i}.shared.2" for i in range(4)}
    assert set(calls.values()) == {1, 2}
    assert all(m.bias is None for m in built.modules() if isinstance(m, nn.Conv3d))
    assert {m.p for m in built.modules() if isinstance(m, nn.Dropout3d)} == {0.6}


def test_article_unetr_takes_its_skips_after_blocks_3_6_9_and_12():
    built = build_network(tiny("article-unetr")).eval()
    order: list[str] = []
    for name, module in built.named_modules():
        if re.fullmatch(r"(blocks|skips)\.\d+", name):
            module.register_forward_hook(lambda *_, name=name: order.append(name))
    built(torch.zeros(1, 2, 16, 32, 16))
    blocks = [f"blocks.{i}" for i in range(12)]
    assert order == [
        *blocks[:3], "skips.0", *blocks[3:6], "skips.1", *blocks[6:9], "skips.2", *blocks[9:], "skips.3"
    ]  # fmt: skip


def test_article_unetr_has_the_articles_parts():
    built = build_network(plan_for("article-unetr", 4, 3))

    def count(*parts):
        return sum(p.numel() for n, p in built.named_parameters() if n.startswith(parts))

    assert count("embed", "position") == 8_519_680
    assert count("blocks") == 37_754_880
    assert count("image") == 8_752
    attention = built.blocks[0].attention[1]
    assert attention.queries_keys_values.out_features == 3 * 510


def test_attention_is_the_textbooks():
    """Against softmax(q kᵀ / √51) v, written out."""
    attention = build_network(plan_for("article-unetr", 4, 3)).blocks[0].attention[1]
    x = torch.randn(2, 7, 512)
    q, k, v = attention.queries_keys_values(x).reshape(2, 7, 3, 10, 51).unbind(2)
    weights = torch.einsum("bihd,bjhd->bhij", q, k).mul(51**-0.5).softmax(-1)
    expected = attention.join(torch.einsum("bhij,bjhd->bihd", weights, v).reshape(2, 7, 510))
    assert torch.allclose(attention(x), expected, atol=1e-5)


def test_tokens_lie_where_their_voxels_are():
    """With identity blocks, a change in one token's voxels changes the deep path there and nowhere else."""
    built = build_network(plan_for("article-unetr", 1, 3, (32, 48, 16), feature_size=4, hidden_size=24, heads=2)).eval()
    built.blocks = nn.ModuleList(nn.Identity() for _ in built.blocks)
    deep: list[torch.Tensor] = []
    built.skips[3].register_forward_hook(lambda module, inputs, output: deep.append(output))
    image = torch.zeros(1, 1, 32, 48, 16)
    built(image)
    image[..., 16:32, 32:48, :] = 1
    built(image)
    changed = (deep[1] - deep[0]).abs().sum(1)[0] > 1e-6  # an eighth of the size: two voxels a token
    expected = torch.zeros_like(changed)
    expected[2:4, 4:6] = True
    assert torch.equal(changed, expected)


def test_vox2voxs_bottleneck_joins_the_two_blocks_before():
    built = build_network(plan_for("vox2vox", 1, 3, (32, 32, 16), base=4)).eval()
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    for block in built.bottom:
        block.register_forward_hook(lambda _, given, got: inputs.append(given[0]))
        block.register_forward_hook(lambda _, given, got: outputs.append(got))
    built(torch.randn(1, 1, 32, 32, 16))
    assert torch.equal(inputs[1], torch.cat((outputs[0], inputs[0]), 1))
    assert torch.equal(inputs[2], torch.cat((outputs[1], outputs[0]), 1))
    assert torch.equal(inputs[3], torch.cat((outputs[2], outputs[1]), 1))
    assert {tuple(o.shape) for o in outputs} == {(1, 32, 2, 2, 1)}


def test_keras_unet_upsamples_by_repeating_and_normalises_nothing():
    built = build_network(plan_for("keras-unet", 4, 4)).eval()
    kinds = {type(m).__name__ for m in built.modules()}
    assert kinds == {"UnnormedUNet", "ModuleList", "Sequential", "Conv3d", "ReLU", "Dropout", "MaxPool3d"}
    images = torch.randn(1, 4, 8, 16, 8)
    with torch.inference_mode():
        skips, x = [], images
        for i, block in enumerate(built.down):
            x = block(functional.max_pool3d(x, 2) if i else x)
            skips.append(x)
        x = built.bottom(x)
        for block, skip in zip(built.up, skips[-2::-1], strict=True):
            for axis in (2, 3, 4):
                x = x.repeat_interleave(2, axis)
            x = block(torch.cat((x, skip), 1))
        assert torch.allclose(built(images), built.head(x), atol=1e-6)


def test_vnets_dropout_reaches_every_skip():
    built = build_network(plan_for("vnet", 3, 3, (32, 32, 16), dropout=0.0)).train()
    assert {m.p for m in built.modules() if isinstance(m, nn.Dropout3d)} == {0.0}
    assert build_network(tiny("vnet", 3))[0].out_channels == 4
    assert parameter_count(tiny("vnet", 3)) - parameter_count(tiny("vnet", 4)) == 3 * 4 + 4


def test_residual_unets_blocks_begin_as_their_shortcuts():
    built = build_network(tiny("resenc-unet"))
    block = built.down[1][0]
    x = torch.randn(2, 4, 16, 16, 8)
    # Averaged over 2 × 2 × 1, projected, normalised; the other way adds nothing yet.
    pooled = functional.conv3d(functional.avg_pool3d(x, (2, 2, 1)), block.shortcut[1].weight)
    assert torch.allclose(block(x), functional.leaky_relu(functional.instance_norm(pooled), 0.01), atol=1e-4)


@pytest.mark.parametrize(("base", "published"), [(16, 704_529), (64, 11_075_649)])
def test_vox2voxs_discriminator_has_the_published_size_and_map(base, published):
    plan = plan_for("vox2vox", 4, 4, (128, 128, 128), adversarial={"base": base})
    with torch.device("meta"):
        judge = build_discriminator(plan)
        scores = judge(torch.empty(1, 8, 128, 128, 128))
    assert sum(p.numel() for p in judge.parameters()) == published
    assert scores.shape == (1, 1, 8, 8, 8)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators_score_any_images_and_masks(name):
    plan = plan_for("vox2vox", 3, 4, (32, 48, 32), adversarial={"discriminator": name, "base": 4}, base=4)
    judge = build_discriminator(plan)
    pair = torch.randn(2, 7, 32, 48, 32)
    scores = judge(pair)
    assert scores.shape[:2] == (2, 1)
    assert scores.ndim == 5
    scores.square().mean().backward()
    assert all(p.grad is not None for p in judge.parameters())
    # The scores of one pair do not depend on its neighbour in the batch.
    judge.eval()
    assert torch.allclose(judge(pair)[:1], judge(pair[:1]), atol=1e-5)


def test_discriminators_that_cannot_be_are_refused_in_words():
    with pytest.raises(ModelError, match="no discriminator"):
        build_discriminator(plan_for("vox2vox", 1, 3))
    with pytest.raises(ModelError, match="vox2vox, patch"):
        build_discriminator(plan_for("vox2vox", 1, 3, adversarial={"discriminator": "judge dredd"}))
    with pytest.raises(ModelError, match="at least 24 voxels"):
        build_discriminator(plan_for("vox2vox", 1, 3, (16, 32, 32), adversarial={"discriminator": "patch"}))
    with pytest.raises(ModelError, match="at least 16 voxels"):
        build_discriminator(plan_for("keras-unet", 1, 3, (8, 32, 32), adversarial={"discriminator": "vox2vox"}))
    with pytest.raises(ModelError, match="single one"):
        build_discriminator(plan_for("keras-unet", 1, 3, (16, 24, 24), adversarial={"discriminator": "vox2vox"}))


@pytest.mark.parametrize("network", TINY)
def test_a_frozen_encoder_stays_as_it_is_while_the_rest_learns(network):
    plan = tiny(network).changed({"encoder_rate": 0.0, "batch_size": 1})
    learner = Learner(plan, torch.device("cpu"))
    before = {name: p.detach().clone() for name, p in learner.network.named_parameters()}
    target = torch.randint(0, 3, (1, 1, *plan.patch_voxels), dtype=torch.uint8)
    learner.learn((torch.cat((target, target), 1).float(), target), 0.0)
    moved = {name for name, p in learner.network.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not [name for name in moved if in_encoder(network, name)]
