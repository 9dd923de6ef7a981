"""How large each network family is planned on a CPU and on a GPU, and what a step of it costs beside the U-Net's.

The published size on a GPU. On a CPU the widest size whose step still takes seconds, at most the published one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_CHOSEN = "chosen by hand"


@dataclass(frozen=True)
class FamilyRule:
    """One family.

    Attributes
    ----------
    cpu, gpu : mapping
        Settings that differ from the family's own defaults.
    cpu_cost : float
        Work of a voxel on a CPU, 1 for a plain U-Net of base 16.
    gpu_cost : float
        Memory of a voxel on a GPU, 1 for a plain U-Net of base 32.
    learning_rate : float
        That AdamW begins with.
    why_cpu, why_gpu, why_rate : str
        Reasons, in words.
    """

    cpu: Mapping[str, object] = field(default_factory=dict)
    gpu: Mapping[str, object] = field(default_factory=dict)
    cpu_cost: float = 1.0
    gpu_cost: float = 1.0
    learning_rate: float = 1e-3
    why_cpu: str = _CHOSEN
    why_gpu: str = _CHOSEN
    why_rate: str = "AdamW reaches in hundreds of steps what SGD needs thousands for"


#: Costs are measured: time of a step of 64 × 64 × 32 voxels on a CPU, bytes kept for the backward pass on a GPU. No
#: family gets more room than the U-Net, even where it would cost less.
RULES: Mapping[str, FamilyRule] = MappingProxyType(
    {
        "resenc-unet": FamilyRule(cpu_cost=1.7, gpu_cost=1.2),
        "monai-unet": FamilyRule(),
        "qim3d-unet": FamilyRule(
            cpu={"size": "small"},
            gpu={"size": "large"},
            why_cpu=f"{_CHOSEN}; size small, three resolutions, for a CPU",
            why_gpu=f"{_CHOSEN}; size large, the first that sees far: five resolutions",
        ),
        "cicek-unet": FamilyRule(
            cpu={"base": 8}, gpu_cost=2.3, why_cpu=f"{_CHOSEN}; a quarter of the published width for a CPU"
        ),
        "medicalzoo-unet": FamilyRule(),
        "vnet": FamilyRule(
            cpu_cost=3.5,
            learning_rate=1e-2,
            why_cpu=f"{_CHOSEN}; small patches, as its kernels of 5³ are slow on a CPU",
            # Its last layer gets batch-normalised features, as many as there are outputs: at 0.001 its weights need
            # thousands of steps to say anything with certainty (Dice 0.235 after 500, where others have 0.87).
            why_rate="ten times the usual one: its last layer is normalised and small, and would grow too slowly",
        ),
        "unetr": FamilyRule(
            cpu={"hidden_size": 384, "mlp_size": 1536, "heads": 6},
            why_cpu=f"{_CHOSEN}; half the published width for a CPU",
        ),
        "article-unetr": FamilyRule(
            cpu={"hidden_size": 256, "mlp_size": 1024, "heads": 5},
            why_cpu=f"{_CHOSEN}; half the article's width for a CPU",
        ),
        "keras-unet": FamilyRule(cpu_cost=1.1),
        "vox2vox": FamilyRule(cpu={"base": 16}, why_cpu=f"{_CHOSEN}; a quarter of the published width for a CPU"),
        "segresnet": FamilyRule(
            cpu={"base": 8}, cpu_cost=1.4, why_cpu=f"{_CHOSEN}; half the published width for a CPU"
        ),
        "swin-unetr": FamilyRule(
            cpu={"feature_size": 12},
            gpu={"feature_size": 48},
            cpu_cost=3.6,
            gpu_cost=3.4,
            why_cpu=f"{_CHOSEN}; a quarter of the published width for a CPU",
            why_gpu=f"{_CHOSEN}; the published width",
        ),
        "attention-unet": FamilyRule(),
        "mednext": FamilyRule(
            cpu={"deep_supervision": True},
            gpu={"deep_supervision": True},
            cpu_cost=7.5,
            gpu_cost=3.7,
            why_cpu=f"{_CHOSEN}; small patches, as its depthwise kernels are slow on a CPU",
        ),
    }
)
