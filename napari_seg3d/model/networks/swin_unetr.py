"""Swin UNETR (Hatamizadeh et al. 2022, doi:10.1007/978-3-031-08999-2_22), MONAI's.

(B, images, X, Y, Z) to logits of the same size, for multiples of 32. With feature size 24, four images and three
outputs it has 15,705,621 parameters, with the paper's 48 62,191,941.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.networks.nets import swin_unetr
from torch import nn
from torch.overrides import TorchFunctionMode

from ..network_settings import SwinUNETR
from ..plan import Plan


class _RatesInMemory(TorchFunctionMode):
    """MONAI reads its drop path rates from a tensor, which a network of shapes only ("meta") could not tell."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        settings = dict(kwargs or {})
        if function is torch.linspace:
            settings["device"] = "cpu"
        return function(*args, **settings)


def build(plan: Plan) -> nn.Module:
    """Build it for a plan whose network is a `SwinUNETR`."""
    settings = plan.network
    assert isinstance(settings, SwinUNETR)  # the registry's promise
    with _RatesInMemory():
        return swin_unetr.SwinUNETR(
            in_channels=len(plan.modalities), out_channels=plan.outputs, feature_size=settings.feature_size
        )
