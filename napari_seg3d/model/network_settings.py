"""The settings of each network family: a plan holds one of them. What they lead to is built in `networks`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from .settings import Probability, Settings

Kernel = tuple[Literal[1, 3], Literal[1, 3], Literal[1, 3]]
Stride = tuple[Literal[1, 2], Literal[1, 2], Literal[1, 2]]
Size = tuple[int, int, int]
Width = Annotated[int, Field(ge=1, le=4096)]
Widths = tuple[Width, ...]
Count = Annotated[int, Field(ge=1, le=64)]


class _Network(Settings, ABC):
    """What every family tells about itself."""

    #: Whether only patches of the plan's own size can be computed.
    fixed_size: ClassVar[bool] = False
    #: Whether it normalises at its coarsest level, for which a single voxel is too few.
    normalises_bottom: ClassVar[bool] = True

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return 1, 1, 1

    @abstractmethod
    def in_words(self) -> str:
        """The size of the network, for one line of text."""

    @property
    def supervises_deeply(self) -> bool:
        """Whether it returns several outputs in training, finest first."""
        return False


def _cube(n: int) -> Size:
    return n, n, n


class _Staged(_Network):
    """A U-Net that is described stage by stage."""

    widths: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        min_length=2, max_length=8, description="Feature maps of each stage, finest first."
    )
    kernels: tuple[Kernel, ...] = Field(
        description="Convolution kernel of each stage; 1 on an axis that is too coarse."
    )
    strides: tuple[Stride, ...] = Field(description="Downsampling into each stage; the first is 1 1 1.")
    deep_supervision: bool = Field(False, description="Also learn from the coarser decoder stages.")

    @model_validator(mode="after")
    def _stages_agree(self) -> _Staged:
        if not len(self.widths) == len(self.kernels) == len(self.strides):
            raise ValueError(
                f"widths, kernels and strides must have one entry a stage, got {len(self.widths)}, "
                f"{len(self.kernels)} and {len(self.strides)}"
            )
        if self.strides[0] != (1, 1, 1):
            raise ValueError("the first stride must be 1 1 1: the first stage works at full resolution")
        return self

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        x, y, z = np.prod(np.asarray(self.strides), axis=0)
        return int(x), int(y), int(z)

    @property
    def supervises_deeply(self) -> bool:
        """Whether it returns several outputs in training, finest first."""
        return self.deep_supervision and len(self.widths) > 2

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"widths {_dashed(self.widths)}"


class UNet(_Staged):
    """Plain U-Net in nnU-Net's form: two convolutions a stage, strided down, transposed up."""

    name: Literal["unet"] = "unet"


class ResidualEncoderUNet(_Staged):
    """U-Net with residual blocks in its encoder and one convolution a stage in its decoder: nnU-Net's newer plan."""

    name: Literal["resenc-unet"] = "resenc-unet"
    blocks: tuple[Annotated[int, Field(ge=1, le=32)], ...] = Field(description="Residual blocks of each encoder stage.")

    @model_validator(mode="after")
    def _blocks_agree(self) -> ResidualEncoderUNet:
        if len(self.blocks) != len(self.widths):
            raise ValueError(
                f"blocks must have one entry a stage, got {len(self.blocks)} for {len(self.widths)} stages"
            )
        return self


class MonaiUNet(_Network):
    """MONAI's UNet with residual units, as in the BraTS comparison of the UNETR article."""

    name: Literal["monai-unet"] = "monai-unet"
    widths: Widths = Field(
        (16, 32, 64, 128, 256), min_length=2, max_length=8, description="Feature maps of each stage, finest first."
    )
    residual_units: int = Field(2, ge=0, le=4, description="Residual units a stage.")

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(2 ** (len(self.widths) - 1))

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"widths {_dashed(self.widths)}"


#: Feature maps of each size of qim3d's U-Net.
QIM3D_WIDTHS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "xxsmall": (4, 8),
        "xsmall": (16, 32),
        "small": (32, 64, 128),
        "medium": (64, 128, 256),
        "large": (64, 128, 256, 512, 1024),
        "xlarge": (64, 128, 256, 512, 1024, 2048),
        "xxlarge": (64, 128, 256, 512, 1024, 2048, 4096),
    }
)


class Qim3dUNet(_Network):
    """The U-Net of qim3d: MONAI's with two residual units, in seven sizes."""

    name: Literal["qim3d-unet"] = "qim3d-unet"
    size: Literal["xxsmall", "xsmall", "small", "medium", "large", "xlarge", "xxlarge"] = Field(
        "xxsmall", description="From 3,666 (xxsmall) to 1.2 thousand million parameters."
    )

    @property
    def widths(self) -> tuple[int, ...]:
        """Feature maps of each stage, finest first."""
        return QIM3D_WIDTHS[self.size]

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(2 ** (len(self.widths) - 1))

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"{self.size}, widths {_dashed(self.widths)}"


class CicekUNet(_Network):
    """The original 3D U-Net (Çiçek 2016): three poolings, widths doubled before each, batch normalisation."""

    name: Literal["cicek-unet"] = "cicek-unet"
    base: int = Field(32, ge=2, le=128, description="Feature maps of the first convolution.")

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(8)

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"base {self.base}"


class MedicalZooUNet(_Network):
    """The UNet3D of the MedicalZoo library: residual, shared context blocks, strong dropout, summed outputs."""

    name: Literal["medicalzoo-unet"] = "medicalzoo-unet"
    base: int = Field(8, ge=2, le=64, description="Feature maps of the first level; each deeper one has twice as many.")
    dropout: Probability = Field(0.6, description="Share of the feature maps that is left out in each training step.")

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(16)

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"base {self.base}, dropout {self.dropout:g}"


class VNet(_Network):
    """V-Net (Milletari 2016), MONAI's; images that do not divide its 16 feature maps are projected first."""

    name: Literal["vnet"] = "vnet"
    dropout: Probability = Field(0.5, description="Share of the feature maps that is left out in each training step.")

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(16)

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"widths 16-32-64-128-256, dropout {self.dropout:g}"


class UNETR(_Network):
    """UNETR (Hatamizadeh 2022): a vision transformer as encoder, convolutions as decoder."""

    fixed_size: ClassVar[bool] = True
    normalises_bottom: ClassVar[bool] = False

    name: Literal["unetr"] = "unetr"
    feature_size: int = Field(16, ge=4, le=128, description="Feature maps of the finest decoder stage.")
    hidden_size: int = Field(768, ge=12, le=4096, description="Width of the transformer.")
    mlp_size: int = Field(3072, ge=12, le=16384, description="Width inside the transformer's perceptrons.")
    heads: int = Field(12, ge=1, le=64, description="Attention heads; the hidden size must be a multiple of them.")

    @model_validator(mode="after")
    def _heads_divide(self) -> UNETR:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of heads {self.heads}")
        return self

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(16)

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"hidden size {self.hidden_size}, {self.heads} heads"


class ArticleUNETR(_Network):
    """UNETR as in the BraTS comparison of 2021: skips after blocks 3, 6, 9 and 12, and heads of any width."""

    fixed_size: ClassVar[bool] = True
    normalises_bottom: ClassVar[bool] = False

    name: Literal["article-unetr"] = "article-unetr"
    feature_size: int = Field(16, ge=4, le=128, description="Feature maps of the finest decoder stage.")
    hidden_size: int = Field(512, ge=12, le=4096, description="Width of the transformer.")
    mlp_size: int = Field(2048, ge=12, le=16384, description="Width inside the transformer's perceptrons.")
    heads: int = Field(10, ge=1, le=64, description="Attention heads.")
    head_size: int | None = Field(
        None, ge=1, le=512, description="Width of a head; empty: the hidden size divided by the heads, rounded down."
    )

    @property
    def width_of_a_head(self) -> int:
        """Numbers that one attention head compares."""
        return self.head_size or self.hidden_size // self.heads

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(16)

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"hidden size {self.hidden_size}, {self.heads} heads of {self.width_of_a_head}"


class KerasUNet(_Network):
    """The Keras U-Net of the BraTS 2020 article: no normalisation, element-wise dropout, nearest upsampling."""

    normalises_bottom: ClassVar[bool] = False

    name: Literal["keras-unet"] = "keras-unet"
    base: int = Field(
        16, ge=2, le=128, description="Feature maps of the first level; each deeper one has twice as many."
    )
    levels: int = Field(4, ge=2, le=6, description="Resolutions.")
    dropout: Probability = Field(0.25, description="Share of the values that is left out in each training step.")

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(2 ** (self.levels - 1))

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"{self.levels} levels, base {self.base}, dropout {self.dropout:g}"


class Vox2Vox(_Network):
    """The generator of Vox2Vox: a U-Net with four densely joined bottleneck blocks."""

    name: Literal["vox2vox"] = "vox2vox"
    base: int = Field(64, ge=4, le=128, description="Feature maps of the first level.")
    dropout: Probability = Field(0.2, description="Share of the bottleneck's values left out in each training step.")

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(16)

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"base {self.base}, dropout {self.dropout:g}"


class SegResNet(_Network):
    """SegResNet (Myronenko 2018), MONAI's: residual encoder, small decoder; winner of BraTS 2018."""

    name: Literal["segresnet"] = "segresnet"
    base: int = Field(16, ge=8, le=64, multiple_of=8, description="Feature maps of the first level.")
    blocks_down: tuple[Count, ...] = Field((1, 2, 2, 4), min_length=2, max_length=6, description="Blocks going down.")
    blocks_up: tuple[Count, ...] = Field((1, 1, 1), min_length=1, max_length=5, description="Blocks going up.")

    @model_validator(mode="after")
    def _blocks_agree(self) -> SegResNet:
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError(
                f"blocks_up must have one entry less than blocks_down, got {len(self.blocks_up)} and "
                f"{len(self.blocks_down)}"
            )
        return self

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(2 ** (len(self.blocks_down) - 1))

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"base {self.base}, blocks {_dashed(self.blocks_down)} down, {_dashed(self.blocks_up)} up"


class SwinUNETR(_Network):
    """Swin UNETR (Hatamizadeh 2022), MONAI's: attention in shifted windows."""

    name: Literal["swin-unetr"] = "swin-unetr"
    feature_size: int = Field(24, ge=12, le=96, multiple_of=12, description="Width of the first stage.")

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(32)

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"feature size {self.feature_size}"


class AttentionUNet(_Network):
    """Attention U-Net (Oktay 2018), MONAI's: gates on the skip connections."""

    name: Literal["attention-unet"] = "attention-unet"
    widths: Widths = Field(
        (16, 32, 64, 128, 256), min_length=2, max_length=8, description="Feature maps of each stage, finest first."
    )
    dropout: Probability = Field(0.0, description="Share of the values that is left out in each training step.")

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(2 ** (len(self.widths) - 1))

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"widths {_dashed(self.widths)}"


class MedNeXt(_Network):
    """MedNeXt (Roy 2023), MONAI's: a U-Net of ConvNeXt blocks."""

    name: Literal["mednext"] = "mednext"
    size: Literal["S", "B", "M", "L"] = Field("S", description="Published size, from small to large.")
    kernel: Literal[3, 5] = Field(3, description="Size of the depthwise kernels.")
    deep_supervision: bool = Field(False, description="Also learn from the coarser decoder stages.")

    @property
    def divisor(self) -> Size:
        """A patch must be a multiple of this along X, Y, Z."""
        return _cube(16)

    @property
    def supervises_deeply(self) -> bool:
        """Whether it returns several outputs in training, finest first."""
        return self.deep_supervision

    def in_words(self) -> str:
        """The size of the network, for one line of text."""
        return f"size {self.size}, kernel {self.kernel}"


NetworkPlan = Annotated[
    UNet
    | ResidualEncoderUNet
    | MonaiUNet
    | Qim3dUNet
    | CicekUNet
    | MedicalZooUNet
    | VNet
    | UNETR
    | ArticleUNETR
    | KerasUNet
    | Vox2Vox
    | SegResNet
    | SwinUNETR
    | AttentionUNet
    | MedNeXt,
    Field(discriminator="name"),
]
#: Every family, by its name in a plan.
FAMILIES: Mapping[str, type[_Network]] = MappingProxyType(
    {
        str(kind.model_fields["name"].default): kind
        for kind in (
            UNet, ResidualEncoderUNet, MonaiUNet, Qim3dUNet, CicekUNet, MedicalZooUNet, VNet, UNETR, ArticleUNETR,
            KerasUNet, Vox2Vox, SegResNet, SwinUNETR, AttentionUNet, MedNeXt,
        )
    }
)  # fmt: skip


def _dashed(numbers: tuple[int, ...]) -> str:
    return "-".join(map(str, numbers))
