"""From what a dataset is like to a Plan, with a reason for every choice.

The rules for spacing, pooling and widths are those of nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z,
supplementary note 2). Where a laptop's CPU or a short budget asks for something else, the reason says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import numpy as np

from ..cases.fingerprint import Fingerprint
from ..cases.labels import Region, merged_values
from ..errors import PlanError
from ..volumes.volume import LabelTable
from .network_rules import RULES, FamilyRule
from .network_settings import FAMILIES
from .plan import Plan, plan_from

#: Time in seconds that a preset gives a training: on a CPU, on a GPU.
PRESETS: Mapping[str, tuple[float, float]] = {
    "fast": (10 * 60, 5 * 60),
    "balanced": (60 * 60, 30 * 60),
    "thorough": (8 * 3600, 6 * 3600),
}
#: Voxels of a step, two patches of 64³, that take two or three seconds on two CPU cores with 16 feature maps.
CPU_STEP_VOXELS = 2 * 64**3
#: Voxels of a step per gigabyte of GPU memory with 32 feature maps: nnU-Net fits two patches of 128³ into 8 GB.
GPU_STEP_VOXELS_PER_GB = 2 * 128**3 / 8
#: No step shows the network more than this part of all voxels of the dataset: it would learn the cases by heart.
LARGEST_SHARE_OF_DATASET = 0.05
#: A median box longer than this from left to right holds a whole head.
WHOLE_HEAD_MM = 110.0
#: A label of this name marks voxels that nobody annotated (nnU-Net's convention).
_IGNORED_NAMES = ("ignore", "ignored", "not annotated")
#: Images of these names are in Hounsfield units.
_CT_NAMES = ("ct", "cta", "cect", "ncct", "ct scan")
#: Up to so many cases, patches are varied strongly, or very strongly: the network would learn fewer by heart.
FEW_CASES, VERY_FEW_CASES = 100, 10
_ANISOTROPIC = 3.0
_SMALLEST_EDGE = 4

#: Augmentation for few cases: everything more often, and turned and scaled further.
STRONG: Mapping[str, float] = {
    "rotation_probability": 0.7,
    "rotation_degrees": 25.0,
    "scale_probability": 0.7,
    "scale_range": 0.25,
    "elastic_probability": 0.5,
    "noise_probability": 0.2,
    "blur_probability": 0.2,
    "brightness_probability": 0.25,
    "low_resolution_probability": 0.15,
    "contrast_probability": 0.25,
    "gamma_probability": 0.3,
}
#: And for very few: on five hippocampi 0.842 instead of 0.839.
VERY_STRONG: Mapping[str, float] = {
    "rotation_probability": 0.9,
    "rotation_degrees": 30.0,
    "scale_probability": 0.9,
    "scale_range": 0.35,
    "elastic_probability": 0.8,
    "elastic_range": 0.3,
    "noise_probability": 0.3,
    "blur_probability": 0.3,
    "brightness_probability": 0.5,
    "low_resolution_probability": 0.3,
    "contrast_probability": 0.5,
    "contrast_range": 0.4,
    "gamma_probability": 0.5,
    "gamma_range": 0.5,
}

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Hardware:
    """What a plan has to fit: "cpu" or "cuda", and the memory in GB."""

    kind: Literal["cpu", "cuda"]
    memory_gb: float

    @classmethod
    def of(cls, device: str = "auto") -> Hardware:
        """Return that of a device of this computer; imports torch."""
        from .device import choose_device, memory_budget_gb

        chosen = choose_device(device)
        return cls("cuda" if chosen.type == "cuda" else "cpu", memory_budget_gb(chosen))


def make_plan(
    fingerprint: Fingerprint,
    *,
    network: str = "unet",
    preset: str = "balanced",
    budget_s: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    seed: int = 0,
    start: Plan | None = None,
    changes: Mapping[str, object] | None = None,
) -> Plan:
    """Plan a training.

    Parameters
    ----------
    fingerprint : Fingerprint
        What the dataset is like.
    network : str
        A name of `napari_seg3d.model.networks.network_names`.
    preset : str
        "fast", "balanced" or "thorough": how long to train when neither budget nor epochs is given.
    budget_s, epochs : float, int, optional
        Time for everything in seconds, or the number of rounds; at most one of them.
    device : str
        Where it will run; patch and batch follow.
    start : Plan, optional
        Plan of the model that is fine-tuned: network, grid and preprocessing are taken from it.
    changes : mapping, optional
        Settings that replace the planner's; see `Plan.changed`. ``targets`` may be set to "regions" or "classes".

    Raises
    ------
    PlanError
        If a choice is unknown, impossible, or contradicts another.
    """
    if preset not in PRESETS:
        raise PlanError(f"Unknown preset {preset!r}. Possible are: {', '.join(PRESETS)}.")
    if not len(fingerprint.table):
        raise PlanError("The dataset has no labels, so there is nothing to learn. Choose one with label files.")
    hardware = Hardware.of(device)
    wished = dict(changes or {})
    values: dict[str, Any] = {"seed": seed, "modalities": fingerprint.modalities}
    values |= targets(fingerprint, wished.pop("targets", None))
    if start is None:
        _add_grid(values, fingerprint)
        _add_network(values, fingerprint, network, hardware)
        _add_optimiser(values)
        _add_augmentation(values, fingerprint)
    else:
        _take_over(values, start, network)
    _add_ct(values, fingerprint)
    _add_length(values, hardware, preset, budget_s, epochs)
    return plan_from(values).changed(wished)


def targets(fingerprint: Fingerprint, wish: object = None) -> dict[str, Any]:
    """Return what is learned: the classes, or nested regions where these tell all classes apart."""
    table: LabelTable = fingerprint.table
    ignored = next((x.value for x in table if x.name.strip().lower() in _IGNORED_NAMES), None)
    labels = [{"value": x.value, "name": x.name, "color": x.color} for x in table if x.value != ignored]
    regions = fingerprint.regions or ()
    if wish not in (None, "classes", "regions"):
        raise PlanError(f"Expected targets to be 'classes' or 'regions', got {wish!r}.")
    if wish == "regions" and not regions:
        raise PlanError("The labels of this dataset have no known regions. Learn classes instead.")
    merged = merged_values(regions) if regions else ()
    if wish == "regions" or (wish is None and regions and not merged):
        why = "the labels are nested" + (f"; {_and(merged)} cannot be told from their neighbours" if merged else "")
        return {"labels": labels, "targets": "regions", "regions": _regions(regions), "ignore_value": ignored,
                "reasons": {"targets": why}}  # fmt: skip
    why = "regions would merge some labels" if regions and wish is None else "each voxel has one label"
    return {"labels": labels, "targets": "classes", "regions": (), "ignore_value": ignored, "reasons": {"targets": why}}


def _regions(regions: tuple[Region, ...]) -> list[dict[str, object]]:
    return [{"name": r.name, "values": r.values, "color": r.color, "written": r.written} for r in regions]


def _add_grid(values: dict[str, Any], fingerprint: Fingerprint) -> None:
    """Target spacing: the median, and finer than it along an axis that is much coarser than the others."""
    spacings = np.array([case.ras_spacing_mm for case in fingerprint.cases])
    spacing = np.median(spacings, axis=0)
    shape = np.array(fingerprint.median_shape)
    worst = int(spacing.argmax())
    others = np.delete(spacing, worst)
    why = "median of the dataset"
    if spacing[worst] > _ANISOTROPIC * others.max() and shape[worst] * _ANISOTROPIC < np.delete(shape, worst).min():
        spacing[worst] = max(float(np.percentile(spacings[:, worst], 10)), float(others.max()) + 1e-5)
        why = "median of the dataset; along the coarse axis the 10th percentile"
    # Rounded, so that a plan is readable; 0.001 mm is far below what resampling can tell.
    values["spacing_mm"] = tuple(round(float(x), 3) for x in spacing)
    values["reasons"]["spacing_mm"] = why


def median_box(fingerprint: Fingerprint, spacing_mm: tuple[float, float, float]) -> Size:
    """Median size of the foreground's box in voxels of the plan's spacing."""
    boxes = [np.multiply(c.cropped_shape, c.ras_spacing_mm) / spacing_mm for c in fingerprint.cases]
    x, y, z = np.maximum(1, np.round(np.median(boxes, axis=0))).astype(int).tolist()
    return x, y, z


def pooling(patch: Size, spacing_mm: tuple[float, float, float]) -> tuple[list[Size], list[Size]]:
    """Return stride and kernel of each stage for a patch, by nnU-Net's rule.

    An axis is halved while at least 4 voxels remain and it is not twice as coarse as the finest axis that still can be
    halved; its kernel is 1 until its spacing comes within a factor of 2 of the finest.

    Examples
    --------
    >>> strides, kernels = pooling((64, 64, 16), (1.0, 1.0, 4.0))
    >>> strides[:4]
    [(1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2)]
    """
    size, spacing = np.array(patch, float), np.array(spacing_mm, float)
    wide = np.zeros(3, bool)
    strides: list[Size] = [(1, 1, 1)]
    kernels: list[Size] = []
    while True:
        wide |= spacing / spacing.min() < 2
        kernels.append(_size(np.where(wide, 3, 1)))
        can = size >= 2 * _SMALLEST_EDGE
        if can.any():
            can &= spacing / spacing[can].min() < 2
        if can.sum() == 1:
            can &= size >= 3 * _SMALLEST_EDGE
        if not can.any() or len(strides) == 6:
            break
        strides.append(_size(np.where(can, 2, 1)))
        size, spacing = np.where(can, np.ceil(size / 2), size), np.where(can, spacing * 2, spacing)
    return strides, kernels


def _add_network(values: dict[str, Any], fingerprint: Fingerprint, network: str, hardware: Hardware) -> None:
    box = median_box(fingerprint, values["spacing_mm"])
    cpu = hardware.kind == "cpu"
    room = CPU_STEP_VOXELS if cpu else GPU_STEP_VOXELS_PER_GB * hardware.memory_gb
    reasons = values["reasons"]
    limit = "what a CPU computes in two or three seconds" if cpu else f"what {hardware.memory_gb:.0f} GB hold"
    rule = RULES.get(network, FamilyRule())
    room /= rule.cpu_cost if cpu else rule.gpu_cost
    if network in ("unet", "resenc-unet"):
        patch, strides, kernels = _unet_patch(box, values["spacing_mm"], room / 2)
        base = 16 if cpu else 32
        values["network"] = {
            "name": network,
            "widths": [min(320, base * 2**i) for i in range(len(strides))],
            "strides": strides,
            "kernels": kernels,
            "deep_supervision": True,
        }
        if network == "resenc-unet":
            values["network"]["blocks"] = (1, 3, 4, 6, 6, 6)[: len(strides)]
        reasons["network"] = f"{len(strides)} stages bring the patch down to {_SMALLEST_EDGE} to 7 voxels" + (
            "; 16 feature maps, so that a CPU makes enough steps" if cpu else "; 32 feature maps as in nnU-Net"
        )
    elif network in RULES:
        settings: dict[str, Any] = {"name": network, **(rule.cpu if cpu else rule.gpu)}
        kind = FAMILIES[network].model_validate(settings)
        patch = _cube_patch(box, room / 2, kind.divisor[0], at_least_two=kind.normalises_bottom)
        values["network"] = settings
        reasons["network"] = rule.why_cpu if cpu else rule.why_gpu
    else:
        from .networks import network_summary

        network_summary(network)  # raises with the list of names
        raise PlanError(f"There is no planning rule for the network {network!r}.")
    values["patch_voxels"] = patch
    covers = all(p >= b for p, b in zip(patch, box, strict=True))
    reasons["patch_voxels"] = "covers the median case" if covers else f"as much of the median case as {limit}"
    voxels = fingerprint.count * float(np.prod(box))
    share = int(LARGEST_SHARE_OF_DATASET * voxels / np.prod(patch))
    values["batch_size"] = int(np.clip(min(room // np.prod(patch), share), 2, 16))
    reasons["batch_size"] = limit if values["batch_size"] > 2 else "the smallest that gives a steady gradient"
    # On a GPU a round must be long enough that validation does not dominate.
    values["steps_per_epoch"] = 50 if cpu else 250


def _unet_patch(box: Size, spacing_mm: tuple[float, float, float], room: float) -> tuple[Size, list[Size], list[Size]]:
    """Return the largest patch of at most `room` voxels with the box's proportions, and its stages."""
    # There must be something to halve.
    size = box if max(box) >= 2 * _SMALLEST_EDGE else (2 * _SMALLEST_EDGE,) * 3
    while True:
        strides, kernels = pooling(size, spacing_mm)
        divisor = np.prod(np.array(strides), axis=0)
        patch = _size(np.ceil(np.array(size) / divisor) * divisor)
        if np.prod(patch) <= room or max(size) <= 2 * _SMALLEST_EDGE:
            return patch, strides, kernels
        # Shorten the axis that covers the most of the box, by one step that pooling can use.
        longest = int(np.argmax(np.array(patch) / np.array(box) * (np.array(patch) > divisor)))
        shorter = list(patch)
        shorter[longest] = patch[longest] - int(divisor[longest])
        size = _size(np.array(shorter))


def _cube_patch(box: Size, room: float, step: int, at_least_two: bool) -> Size:
    """Return the largest patch of multiples of `step` that the box needs and the room holds.

    With `at_least_two` one axis keeps two steps, as a network cannot normalise a single voxel at its bottom.
    """
    size = list(_rounded(box, step))
    if at_least_two and max(size) == step:
        size[int(np.argmax(box))] = 2 * step
    while np.prod(size) > room:
        longest = int(np.argmax(size))
        if sum(size) - step < 3 * step + at_least_two * step:
            break
        size[longest] -= step
    return _size(size)


def _rounded(size: Size, step: int) -> Size:
    x, y, z = (max(step, ceil(n / step) * step) for n in size)
    return x, y, z


def _add_optimiser(values: dict[str, Any]) -> None:
    rule = RULES.get(values["network"]["name"], FamilyRule())
    values |= {
        "optimizer": "adamw",
        "learning_rate": rule.learning_rate,
        "weight_decay": 5e-2,
        "schedule": "poly",
        "ema_decay": 0.999,
    }
    values["reasons"]["ema_decay"] = "smoother than any single step; in the beginning over a tenth of the steps made"
    values["reasons"]["learning_rate"] = rule.why_rate


def _add_augmentation(values: dict[str, Any], fingerprint: Fingerprint) -> None:
    width_mm = float(np.median([c.cropped_shape[0] * c.ras_spacing_mm[0] for c in fingerprint.cases]))
    sided = any(
        word in label.name.lower().split() for label in fingerprint.table for word in ("left", "right", "lh", "rh")
    )
    mirror = ("left-right",) if width_mm >= WHOLE_HEAD_MM and not sided else ()
    strengths = ((VERY_FEW_CASES, "very strong", VERY_STRONG), (FEW_CASES, "strong", STRONG))
    word, kinds = next(((w, kinds) for most, w, kinds in strengths if fingerprint.count <= most), ("usual", {}))
    values["augmentation"] = {"mirror": mirror, **kinds}
    strength = f"{word} for {fingerprint.count} case{'s' * (fingerprint.count > 1)}"
    why = "a whole head is nearly symmetric" if mirror else "mirroring would blur what lies in front and behind"
    values["reasons"]["augmentation"] = f"{strength}; {why}"


def _add_ct(values: dict[str, Any], fingerprint: Fingerprint) -> None:
    """Clip CT to the window of what is labelled, and normalise it by the dataset, not by the scan (nnU-Net's rule)."""
    windows = {}
    for name in values["modalities"]:
        seen = fingerprint.label_intensities.get(name) or fingerprint.intensities.get(name)
        if name.strip().lower() in _CT_NAMES and seen is not None and seen.low < seen.high and seen.std > 0:
            windows[name] = {"low": seen.low, "high": seen.high, "mean": seen.mean, "std": seen.std}
    kept = values.get("ct_windows", {})
    values["ct_windows"] = {**windows, **{name: kept[name] for name in kept if name in values["modalities"]}}
    if windows:
        values["reasons"]["normalisation"] = "Hounsfield units mean the same in every scan"


def smaller(plan: Plan) -> Plan | None:
    """Return a plan that needs less memory: half the batch, or a shorter patch; None if there is none.

    The weights fit both plans. A network that takes patches of one size only keeps it.
    """
    if plan.batch_size > 1:
        return plan.changed({"batch_size": plan.batch_size // 2})
    patch, divisor = list(plan.patch_voxels), plan.network.divisor
    if plan.network.fixed_size:
        return None
    can = [axis for axis in range(3) if patch[axis] >= 2 * divisor[axis]]
    # A network that normalises at its bottom needs more than one voxel there.
    if not can or (plan.network.normalises_bottom and sum(p // d for p, d in zip(patch, divisor, strict=True)) == 4):
        return None
    longest = max(can, key=lambda axis: patch[axis])
    patch[longest] -= divisor[longest] * max(1, patch[longest] // divisor[longest] // 4)
    return plan.changed({"patch_voxels": tuple(patch)})


def _take_over(values: dict[str, Any], start: Plan, network: str) -> None:
    """Fine-tuning: everything that the weights depend on stays as it was."""
    if network not in ("unet", start.network.name):
        raise PlanError(f"The start model is a {start.network.name}; it cannot become a {network}.")
    kept = start.model_dump()
    for name in (
        "spacing_mm", "crop_to_foreground", "normalisation", "network", "patch_voxels", "batch_size", "steps_per_epoch",
        "augmentation", "optimizer", "weight_decay", "momentum", "schedule", "clip_norm", "window_overlap",
        "ct_windows", "ema_decay", "clip_percentiles", "smooth_sigma_voxels", "sharpening", "loss", "adversarial",
        "nesterov", "least_label_share",
    ):  # fmt: skip
        values[name] = kept[name]
    known = [name for name in start.modalities if name in values["modalities"]]
    values["modalities"] = (*known, *(name for name in values["modalities"] if name not in known))
    if start.targets != values["targets"] and start.targets == "classes":
        values |= {"targets": "classes", "regions": ()}
    values["learning_rate"] = start.learning_rate / 3
    reasons = dict.fromkeys(("spacing_mm", "network", "patch_voxels", "batch_size"), "as the start model")
    reasons["learning_rate"] = "a third of the start model's, to keep what it knows"
    values["reasons"] |= reasons


def _add_length(
    values: dict[str, Any], hardware: Hardware, preset: str, budget_s: float | None, epochs: int | None
) -> None:
    if budget_s is not None and epochs is not None:
        raise PlanError("Give a time budget or a number of epochs, not both.")
    name = "budget_s" if epochs is None else "epochs"
    if budget_s is None and epochs is None:
        budget_s = PRESETS[preset][0 if hardware.kind == "cpu" else 1]
        values["reasons"][name] = f"preset {preset} on a {'CPU' if hardware.kind == 'cpu' else 'GPU'}"
    else:
        values["reasons"][name] = "chosen by hand"
    values |= {"budget_s": budget_s, "epochs": epochs}


def _size(numbers: Any) -> Size:
    x, y, z = (int(n) for n in numbers)
    return x, y, z


def _and(values: tuple[int, ...]) -> str:
    return f"label{'s' if len(values) > 1 else ''} {' and '.join(map(str, values))}"
