"""The networks that a plan can name: one file a family, each Plan -> torch module.

The list itself needs no torch, so that a window or a help text can show it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from re import Pattern, compile
from types import MappingProxyType
from typing import TYPE_CHECKING

from ...errors import ModelError
from ..plan import Plan

if TYPE_CHECKING:
    from torch import nn

#: Name in a plan -> what it is good for, in one line.
NETWORKS: Mapping[str, str] = MappingProxyType(
    {
        "unet": "Plain 3D U-Net in nnU-Net's form (Isensee 2021): the best start for almost everything.",
        "monai-unet": "Residual 3D U-Net of MONAI (Kerfoot 2018): the baseline of the UNETR article.",
        "unetr": "Vision transformer as encoder (Hatamizadeh 2022): needs a GPU and hundreds of cases to shine.",
    }
)
_MODULES = {"unet": ".unet", "monai-unet": ".monai_unet", "unetr": ".unetr"}
#: Which parameters belong to the encoder, by the start of their names.
_ENCODERS: Mapping[str, Pattern[str]] = MappingProxyType(
    {
        "unet": compile(r"down\."),
        "monai-unet": compile(r"model\.(1\.submodule\.)*(0|conv|residual)\."),
        "unetr": compile(r"(vit|encoder\d)\."),
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


def build_network(plan: Plan) -> nn.Module:
    """Build the network of a plan with fresh weights from torch's current random state.

    The module maps (B, len(plan.modalities), X, Y, Z) to logits (B, plan.outputs, X, Y, Z), for X, Y, Z multiples of
    ``plan.network.divisor`` (UNETR: only for the patch itself). In training mode with deep supervision it returns a
    list, finest first.
    """
    network: nn.Module = import_module(_MODULES[plan.network.name], __package__).build(plan)
    return network


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
