"""The networks that a plan can name: one file a family, each Plan -> torch module.

The list itself needs no torch, so that a window or a help text can show it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from re import Pattern, compile
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

from ...errors import ModelError
from ..plan import Plan

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Name in a plan -> what it is good for, in one line.
NETWORKS: Mapping[str, str] = MappingProxyType(
    {
        "unet": "Plain 3D U-Net in nnU-Net's form (Isensee 2021): the best start for almost everything.",
        "resenc-unet": "U-Net with a residual encoder, nnU-Net's newer form (Isensee 2024): a little better on large "
        "data, for several times the work.",
        "monai-unet": "Residual 3D U-Net of MONAI (Kerfoot 2018): the baseline of the UNETR article; quick.",
        "qim3d-unet": "The U-Net of qim3d in seven sizes: its smallest shows in minutes that everything works.",
        "cicek-unet": "The original 3D U-Net (Çiçek 2016), 19 million parameters: to reproduce the classic.",
        "medicalzoo-unet": "UNet3D of the MedicalZoo library (after Isensee 2017): small, but with its dropout it "
        "learns slowly.",
        "vnet": "V-Net (Milletari 2016) with 5³ kernels, 46 million parameters: a classic, outdone by leaner U-Nets.",
        "unetr": "Vision transformer as encoder (Hatamizadeh 2022): needs a GPU and hundreds of cases to shine; on "
        "small volumes a U-Net wins.",
        "article-unetr": "UNETR as in the BraTS comparison of 2021: to reproduce it; on small volumes a U-Net wins.",
        "keras-unet": "U-Net of the Keras BraTS 2020 article, not normalised: to reproduce it, others learn faster.",
        "vox2vox": "Generator of Vox2Vox (Cirillo 2020): made for adversarial training, large for what it gives.",
        "segresnet": "SegResNet (Myronenko 2018), winner of BraTS 2018: strong on whole brains, modest in size.",
        "swin-unetr": "Transformer with shifted windows (Hatamizadeh 2022): for a GPU and large brains; on small "
        "volumes a U-Net wins.",
        "attention-unet": "U-Net with gates on its skips (Oktay 2018): for small organs in large images.",
        "mednext": "U-Net of ConvNeXt blocks (Roy 2023): among the best on large data with a GPU; slow on a CPU.",
    }
)
_MODULES: Mapping[str, str] = MappingProxyType(
    {
        "unet": ".unet",
        "resenc-unet": ".residual_unet",
        "monai-unet": ".monai_unet",
        "qim3d-unet": ".qim3d_unet",
        "cicek-unet": ".cicek_unet",
        "medicalzoo-unet": ".medicalzoo_unet",
        "vnet": ".vnet",
        "unetr": ".unetr",
        "article-unetr": ".article_unetr",
        "keras-unet": ".keras_unet",
        "vox2vox": ".vox2vox",
        "segresnet": ".segresnet",
        "swin-unetr": ".swin_unetr",
        "attention-unet": ".attention_unet",
        "mednext": ".mednext",
    }
)
_MONAI_UNET = compile(r"model\.(1\.submodule\.)*(0|conv|residual)\.")
#: Which parameters belong to the encoder, by the start of their names.
_ENCODERS: Mapping[str, Pattern[str]] = MappingProxyType(
    {
        "unet": compile(r"down\."),
        "resenc-unet": compile(r"down\."),
        "monai-unet": _MONAI_UNET,
        "qim3d-unet": _MONAI_UNET,
        "cicek-unet": compile(r"down\."),
        "medicalzoo-unet": compile(r"(first|second|contexts|norms)\."),
        # With a projection in front V-Net is the second of two.
        "vnet": compile(r"0\.|(1\.)?(in_tr|down_tr\d+)\."),
        "unetr": compile(r"(vit|encoder\d)\."),
        "article-unetr": compile(r"(embed|blocks|image|skips)\.|position$"),
        "keras-unet": compile(r"(down|bottom)\."),
        "vox2vox": compile(r"(down|bottom)\."),
        "segresnet": compile(r"(convInit|down_layers)\."),
        "swin-unetr": compile(r"(swinViT|encoder\d+)\."),
        "attention-unet": compile(r"model\.(0|1(\.submodule\.1)*\.submodule(\.0)?\.conv)\."),
        "mednext": compile(r"network\.(stem|enc_stages|down_blocks|bottleneck)\."),
    }
)


def network_names() -> tuple[str, ...]:
    """Return the names that a plan or ``--network`` takes."""
    return tuple(NETWORKS)


def network_summary(name: str) -> str:
    """Return what a network is good for, in one line.

    Raises
    ------
    ModelError
        For an unknown name.
    """
    if name not in NETWORKS:
        raise ModelError(f"Unknown network {name!r}. Possible are: {', '.join(NETWORKS)}.")
    return NETWORKS[name]


def network_module(name: str) -> ModuleType:
    """Return the module of a family: its docstring names the paper and what differs from it, its `build` builds it."""
    return import_module(_MODULES[name], __package__)


def build_network(plan: Plan) -> nn.Module:
    """Build the network of a plan with fresh weights from torch's current random state.

    The module maps (B, len(plan.modalities), X, Y, Z) to logits (B, plan.outputs, X, Y, Z), for X, Y, Z multiples of
    ``plan.network.divisor`` (with ``fixed_size`` only for the patch itself). In training mode with deep supervision it
    returns a list, finest first.

    Raises
    ------
    ModelError
        By the module, when it is given another shape.
    """
    network: nn.Module = network_module(plan.network.name).build(plan)
    network.register_forward_pre_hook(partial(_check_shape, plan))
    return network


def _check_shape(plan: Plan, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Say in words what is wrong with an input that the network cannot compute."""
    shape = tuple(inputs[0].shape)
    settings = plan.network
    if len(shape) != 5 or shape[1] != len(plan.modalities):
        raise ModelError(
            f"The network wants (B, {len(plan.modalities)}, X, Y, Z) with the images {', '.join(plan.modalities)}, got "
            f"an array of shape {shape}."
        )
    if settings.fixed_size and shape[2:] != plan.patch_voxels:
        raise ModelError(
            f"A {settings.name} computes patches of {_times(plan.patch_voxels)} voxels only, got {_times(shape[2:])}. "
            "Pad or cut to that size."
        )
    if any(size % d for size, d in zip(shape[2:], settings.divisor, strict=True)):
        raise ModelError(
            f"This {settings.name} computes multiples of {_times(settings.divisor)} voxels, got {_times(shape[2:])}. "
            "Pad to the next multiple."
        )


def _times(numbers: tuple[int, ...]) -> str:
    return " × ".join(map(str, numbers))


def parameter_count(plan: Plan) -> int:
    """Count the trainable numbers of a plan's network, without allocating them."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(plan).parameters())


def in_encoder(network: str, parameter: str) -> bool:
    """Tell whether a parameter, by its name in the module, belongs to the encoder of a network family.

    Examples
    --------
    >>> in_encoder("unet", "down.0.0.weight"), in_encoder("unet", "heads.0.bias")
    (True, False)
    """
    return _ENCODERS[network].match(parameter) is not None
