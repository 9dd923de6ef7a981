"""The Plan: every setting of a training and of the model that comes out of it, in one frozen object.

A plan is what the planner proposes, what a person changes, what is saved beside the weights, and what prediction
reads. It is JSON both ways; unknown, impossible or contradicting settings are refused with a `PlanError`. The
description of each field is also the tooltip in the window and the help on the command line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..cases.labels import Region
from ..errors import PlanError
from ..volumes.volume import Label, LabelTable
from .network_settings import FAMILIES, NetworkPlan
from .settings import Millimetres, Probability, Settings, Voxels

FORMAT_VERSION: Literal[1] = 1

Axis = Literal["left-right", "front-back", "up-down"]
AXES: tuple[Axis, ...] = ("left-right", "front-back", "up-down")
Percent = Annotated[float, Field(ge=0, le=100)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Normalisation = Literal["zscore-foreground", "zscore-volume", "minmax", "minmax-symmetric", "max", "brats", "none"]
LossName = Literal[
    "dice-ce", "dice-ce-patch", "dice", "dice-squared", "generalised-dice", "ce", "focal", "dice-focal",
    "dice-ce-boundary",
]  # fmt: skip


class PlanLabel(Settings):
    """One foreground class of the truth."""

    value: int = Field(ge=1, le=65535)
    name: str = Field(min_length=1, max_length=80)
    color: str = Field(pattern=r"^#[0-9a-fA-F]{6}$")


class PlanRegion(Settings):
    """One region: a union of classes that the network learns as one output, for example the whole tumour."""

    name: str = Field(min_length=1, max_length=80)
    values: tuple[int, ...] = Field(min_length=1)
    color: str = Field(pattern=r"^#[0-9a-fA-F]{6}$")
    written: int | None = Field(None, ge=1, le=65535)


class Adversarial(Settings):
    """How a generator is trained against a discriminator, after Vox2Vox (Cirillo 2020, Kan 2020).

    The generator's loss is (D(image, mask) - 1)² plus `weight` times the plan's loss; the discriminator's is half of
    (D(image, truth) - 1)² + D(image, mask)². The discriminator rests while it is right too often.
    """

    discriminator: str = Field(
        "vox2vox", min_length=1, max_length=80, description="Network that judges; see the list of discriminators."
    )
    base: int = Field(64, ge=4, le=128, description="Feature maps of the discriminator's first level.")
    weight: float = Field(5.0, gt=0, le=1000, description="Weight of the segmentation loss beside the judgement.")
    threshold: float = Field(
        0.8, ge=0, le=1, description="The discriminator learns only while at most this share of its answers is right."
    )
    learning_rate: float = Field(2e-4, gt=0, le=1, description="Step size of the discriminator.")
    betas: tuple[Beta, Beta] = Field((0.5, 0.999), description="Adam's two memories, for both networks.")


class CTWindow(Settings):
    """How CT intensities are normalised: clipped to a window, then by the mean and deviation of the whole dataset.

    Hounsfield units mean the same in every scan, so nothing is measured in the single one (nnU-Net's rule).
    """

    low: float
    high: float
    mean: float
    std: float = Field(gt=0)

    @model_validator(mode="after")
    def _is_a_window(self) -> CTWindow:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        return self


class Augmentation(Settings):
    """How training patches are varied; each kind is drawn for each patch with its own probability."""

    rotation_probability: Probability = Field(0.2, description="How often a patch is rotated.")
    rotation_degrees: float = Field(15.0, ge=0, le=180, description="Largest rotation about each axis, in degrees.")
    rotation_about: tuple[Axis, ...] = Field(
        AXES, description="Axes about which a patch is rotated; only up-down leaves axial slices in their plane."
    )
    quarter_turns_probability: Probability = Field(
        0.0, description="How often a patch is turned by 90, 180 or 270 degrees in its axial plane."
    )
    scale_probability: Probability = Field(0.2, description="How often a patch is scaled.")
    scale_range: float = Field(0.2, ge=0, le=0.6, description="Largest change of size: 0.2 is 0.83 to 1.2 times.")
    elastic_probability: Probability = Field(0.0, description="How often a patch is bent like rubber.")
    elastic_range: float = Field(
        0.2,
        ge=0,
        le=0.35,
        description="Largest bend, as part of a quarter of the patch; beyond 0.35 tissue would fold over itself.",
    )
    mirror: tuple[Axis, ...] = Field((), description="Axes that are mirrored in half of the patches.")
    noise_probability: Probability = Field(0.1, description="How often noise is added.")
    noise_sigma: float = Field(
        0.3,
        ge=0,
        le=2,
        title="noise",
        json_schema_extra={"unit": "SD"},
        description="Largest noise, in standard deviations of the image.",
    )
    blur_probability: Probability = Field(0.1, description="How often a patch is blurred.")
    blur_sigma_voxels: float = Field(1.0, ge=0, le=4, description="Largest blur, in voxels.")
    brightness_probability: Probability = Field(0.15, description="How often all intensities are scaled.")
    brightness_range: float = Field(
        0.25, ge=0, le=0.9, description="Largest change of brightness: 0.25 is 0.75 to 1.25."
    )
    shift_probability: Probability = Field(0.0, description="How often all intensities are shifted.")
    shift_range: float = Field(0.1, ge=0, le=2, description="Largest shift, in standard deviations of the image.")
    low_resolution_probability: Probability = Field(
        0.0, description="How often a patch is made coarser and finer again."
    )
    low_resolution_scale: float = Field(
        0.5, ge=0.2, le=1, description="Coarsest resolution, as part of the patch's own: 0.5 is every second voxel."
    )
    contrast_probability: Probability = Field(0.15, description="How often contrast changes.")
    contrast_range: float = Field(0.25, ge=0, le=0.9, description="Largest change of contrast: 0.25 is 0.75 to 1.25.")
    gamma_probability: Probability = Field(0.2, description="How often a gamma curve is applied.")
    gamma_range: float = Field(0.4, ge=0, le=2, description="Largest gamma: 0.4 is 0.71 to 1.4.")

    def in_words(self) -> str:
        """Name the kinds that are switched on."""
        kinds = (
            "rotation",
            "quarter_turns",
            "scale",
            "elastic",
            "noise",
            "blur",
            "brightness",
            "shift",
            "low_resolution",
            "contrast",
            "gamma",
        )
        used = [kind.replace("_", " ") for kind in kinds if getattr(self, f"{kind}_probability") > 0]
        mirrored = f"mirrored {', '.join(self.mirror)}" if self.mirror else "not mirrored"
        return "; ".join(filter(None, (", ".join(used), mirrored)))


class Plan(Settings):
    """What goes in, what comes out, and how the network learns it."""

    format_version: Literal[1] = FORMAT_VERSION
    recipe: str = Field("automatic", description="Where the plan comes from.")
    # What goes in and what comes out.
    modalities: tuple[str, ...] = Field(
        min_length=1, max_length=16, description="Images that the network sees, in order."
    )
    labels: tuple[PlanLabel, ...] = Field(min_length=1, max_length=254, description="Classes that it learns.")
    targets: Literal["classes", "regions"] = Field(
        "classes", description="Exclusive classes (softmax), or overlapping regions such as whole tumour (sigmoid)."
    )
    regions: tuple[PlanRegion, ...] = Field((), description="The regions, from the outermost to the innermost.")
    # The grid on which the network works: axes in RAS order.
    spacing_mm: Millimetres = Field(
        description="Voxel size that every case is resampled to, right, anterior, superior."
    )
    crop_to_foreground: bool = Field(True, description="Leave the empty border around the head or organ out.")
    clip_percentiles: tuple[Percent, Percent] | None = Field(
        None, description="Percentiles of the whole volume to which intensities are cut first, such as 0.1 and 99.8."
    )
    normalisation: Normalisation = Field(
        "zscore-foreground",
        description="Subtract the mean and divide by the standard deviation of the foreground or of the whole volume; "
        "stretch to 0 … 1 or -1 … 1; divide by the largest value; MedicalZoo's BraTS form; or leave as it is.",
    )
    smooth_sigma_voxels: float = Field(
        0.0, ge=0, le=5, title="Smoothing", description="Gaussian that is applied after normalisation, in voxels."
    )
    sharpening: float = Field(
        0.0, ge=0, le=2, description="Part of the Laplacian that is subtracted at last, to sharpen edges."
    )
    ct_windows: dict[str, CTWindow] = Field(
        default_factory=dict,
        description="For images that are CT, by name: the window in Hounsfield units, mean and standard deviation.",
    )
    ignore_value: int | None = Field(
        None, ge=1, le=65535, description="Value in the truth that means: not annotated, learn nothing here."
    )
    # The network.
    network: NetworkPlan
    patch_voxels: Voxels = Field(description="Size of a training patch in voxels.")
    # How it learns.
    batch_size: int = Field(2, ge=1, le=256, description="Patches in one step.")
    epochs: int | None = Field(
        None, ge=1, le=100_000, description="Rounds of training; empty when a time budget decides."
    )
    budget_s: float | None = Field(None, gt=0, le=30 * 86_400, description="Time for the whole training in seconds.")
    steps_per_epoch: int = Field(50, ge=1, le=10_000, description="Steps in one round.")
    validate_every: int = Field(
        1,
        ge=1,
        le=1000,
        json_schema_extra={"unit": "epochs"},
        description="Rounds between two validations on whole cases.",
    )
    loss: LossName = Field("dice-ce", description="What the network is punished for; see the list of losses.")
    adversarial: Adversarial | None = Field(
        None, description="A second network that judges the masks (Vox2Vox); empty: none."
    )
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = Field(
        "adamw", title="Optimiser", description="Rule by which weights change."
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Step size at the start.")
    weight_decay: float = Field(1e-2, ge=0, le=1, description="Pull of the weights towards zero.")
    momentum: float = Field(0.99, ge=0, lt=1, description="Momentum (SGD and RMSprop).")
    nesterov: bool = Field(True, description="Nesterov's form of the momentum (SGD only).")
    schedule: Literal["poly", "cosine", "constant"] = Field("poly", description="How the learning rate falls.")
    warmup_steps: int = Field(0, ge=0, le=10_000, description="Steps over which the learning rate rises at the start.")
    clip_norm: float = Field(
        12.0,
        gt=0,
        le=1e6,
        title="Longest gradient",
        description="Largest norm of the gradient; longer ones are shortened.",
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        title="Averaging",
        description="The model is an average of the weights over the last steps: 0.999 is a thousand, but no more than "
        "a tenth of those made; 0 is off.",
    )
    encoder_rate: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Learning rate of the encoder as a part of the decoder's: 0 leaves it as it is (fine-tuning).",
    )
    rehearsal_fraction: float = Field(
        0.25, ge=0, lt=1, description="Share of the patches from older cases, where some are given (fine-tuning)."
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=10_000,
        json_schema_extra={"unit": "validations"},
        description="Stop early after so many validations without a better Dice; empty: never.",
    )
    foreground_fraction: float = Field(
        0.5, ge=0, le=1, description="Share of the patches that are centred on a labelled voxel, classes in turn."
    )
    least_label_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="A patch is drawn again, up to 20 times, until it holds this share of its case's labelled voxels.",
    )
    augmentation: Augmentation = Field(default_factory=Augmentation, description="How training patches are varied.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Number from which every random draw follows.")
    # How it predicts.
    window_overlap: float = Field(0.5, ge=0, le=0.9, description="Overlap of neighbouring prediction windows.")
    #: Why each setting is what it is, by name of the field.
    reasons: dict[str, str] = Field(default_factory=dict, description="Why the planner chose each setting.")

    @model_validator(mode="after")
    def _settings_agree(self) -> Plan:
        if (self.epochs is None) == (self.budget_s is None):
            raise ValueError("give either epochs or budget_s, one of them")
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"modalities must differ from each other, got {', '.join(self.modalities)}")
        values = [label.value for label in self.labels]
        if len(set(values)) < len(values):
            raise ValueError(f"label values must differ from each other, got {values}")
        if (self.targets == "regions") != bool(self.regions):
            raise ValueError("regions must be listed when, and only when, targets is 'regions'")
        if unknown := {v for region in self.regions for v in region.values} - set(values):
            raise ValueError(f"regions use label values that are not in labels: {sorted(unknown)}")
        if unknown_images := set(self.ct_windows) - set(self.modalities):
            raise ValueError(f"ct_windows name images that are not in modalities: {', '.join(sorted(unknown_images))}")
        if self.ignore_value in values:
            raise ValueError(f"ignore_value {self.ignore_value} is also the value of a label")
        if self.clip_percentiles and self.clip_percentiles[0] >= self.clip_percentiles[1]:
            raise ValueError("clip_percentiles must rise, such as 0.1 and 99.8")
        if self.augmentation.quarter_turns_probability and self.patch_voxels[0] != self.patch_voxels[1]:
            raise ValueError(
                f"augmentation.quarter_turns_probability needs patches as long as wide, got {_times(self.patch_voxels)}"
            )
        if self.adversarial and self.network.supervises_deeply:
            raise ValueError("adversarial needs a network with one output: set network.deep_supervision to false")
        divisor = self.network.divisor
        if any(size % d for size, d in zip(self.patch_voxels, divisor, strict=True)):
            raise ValueError(
                f"patch_voxels {_times(self.patch_voxels)} must be a multiple of {_times(divisor)} for this network"
            )
        if self.network.normalises_bottom and tuple(self.patch_voxels) == divisor:
            raise ValueError(
                f"patch_voxels {_times(self.patch_voxels)} leave a single voxel at the bottom of this network, "
                "which it cannot normalise: take a larger patch"
            )
        return self

    @property
    def outputs(self) -> int:
        """Channels that the network returns: classes with background, or regions."""
        return len(self.regions) if self.targets == "regions" else len(self.labels) + 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what is scored: the foreground classes, or the regions."""
        return tuple(x.name for x in self.scored)

    @property
    def label_table(self) -> LabelTable:
        """The classes as a `LabelTable`."""
        return LabelTable(tuple(Label(x.value, x.name, x.color) for x in self.labels))

    @property
    def label_regions(self) -> tuple[Region, ...]:
        """The regions as the cases room knows them."""
        return tuple(Region(x.name, x.values, x.color, x.written) for x in self.regions)

    @property
    def scored(self) -> tuple[Label | Region, ...]:
        """What a prediction is scored by: the foreground classes, or the regions."""
        return self.label_regions if self.targets == "regions" else tuple(self.label_table)

    def changed(self, changes: Mapping[str, object]) -> Plan:
        """Return the plan with other settings; a dotted name such as ``network.widths`` reaches inside.

        Raises
        ------
        PlanError
            For an unknown name or an impossible value; the message lists what would be possible.
        """
        values: dict[str, Any] = self.model_dump()
        for name, value in changes.items():
            _put(values, name, value)
        if changes.get("budget_s") is not None and "epochs" not in changes:
            values["epochs"] = None
        if changes.get("epochs") is not None and "budget_s" not in changes:
            values["budget_s"] = None
        for name in changes:
            values["reasons"] = {**values["reasons"], name.split(".")[0]: "chosen by hand"}
        return plan_from(values)

    def to_json(self) -> str:
        """Return the plan as readable JSON."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan from JSON.

        Raises
        ------
        PlanError
            If it is no JSON object, has unknown or impossible settings, or was made by a newer version.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PlanError(f"Expected a plan as JSON; it cannot be read ({error}).") from None
        if not isinstance(values, dict):
            raise PlanError("Expected a plan as a JSON object with named settings.")
        if isinstance(version := values.get("format_version"), int) and version > FORMAT_VERSION:
            raise PlanError(f"This plan was made by a newer napari-seg3d (format {version}). Upgrade to read it.")
        return plan_from(values)

    def describe(self) -> list[str]:
        """Return the plan in plain lines, each with its reason."""
        long = f"{self.epochs} epochs" if self.epochs else f"{_minutes(self.budget_s or 0)}"
        network = self.network
        lines = {
            "modalities": f"Images: {', '.join(self.modalities)}",
            "targets": f"Learns: {', '.join(self.output_names)} ({self.targets})",
            "spacing_mm": f"Voxel size: {_times(self.spacing_mm)} mm",
            "normalisation": f"Intensities: {self._normalisation_in_words()}",
            "network": f"Network: {network.name}, {network.in_words()}",
            "patch_voxels": f"Patch: {_times(self.patch_voxels)} voxels",
            "batch_size": f"Batch: {self.batch_size} patch{'es' * (self.batch_size > 1)}, "
            f"{self.foreground_fraction:.0%} centred on a label",
            "augmentation": f"Augmentation: {self.augmentation.in_words()}",
            "loss": f"Loss: {self.loss}{self._judge_in_words()}",
            "learning_rate": f"Optimiser: {self.optimizer}, learning rate {self.learning_rate:g}, {self.schedule}",
            "ema_decay": f"Model: average of the last {1 / (1 - self.ema_decay):.0f} steps, at most a tenth of all"
            if self.ema_decay
            else "Model: the weights of the last step",
            "budget_s" if self.epochs is None else "epochs": f"Length: {long}",
        }
        return [f"{line} ({self.reasons[name]})" if name in self.reasons else line for name, line in lines.items()]

    def _judge_in_words(self) -> str:
        if self.adversarial is None:
            return ""
        judge = self.adversarial
        return (
            f" × {judge.weight:g}, beside the judgement of a {judge.discriminator} discriminator that learns while it "
            f"is right in at most {judge.threshold:.0%}"
        )

    def _normalisation_in_words(self) -> str:
        words = {
            "zscore-foreground": "z-score inside the foreground",
            "zscore-volume": "z-score of the whole volume",
            "minmax": "stretched to 0 … 1",
            "minmax-symmetric": "stretched to -1 … 1",
            "max": "divided by the largest",
            "brats": "z-score inside the foreground, stretched to 10 … 110",
            "none": "as they are",
        }
        steps = [words[self.normalisation]]
        if self.clip_percentiles:
            low, high = self.clip_percentiles
            steps.insert(0, f"cut at percentiles {low:g} and {high:g}")
        if self.smooth_sigma_voxels:
            steps.append(f"smoothed by {self.smooth_sigma_voxels:g} voxels")
        if self.sharpening:
            steps.append(f"sharpened by {self.sharpening:g}")
        windows = [f"{name} clipped to {w.low:g} … {w.high:g} HU" for name, w in self.ct_windows.items()]
        others = [", ".join(steps)] if len(windows) < len(self.modalities) else []
        return "; ".join(windows + others)


def plan_from(values: Mapping[str, object]) -> Plan:
    """Return a plan from plain values.

    Raises
    ------
    PlanError
        One sentence a problem, with the name of the setting.
    """
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        problems = [_in_words(problem) for problem in error.errors()]
        raise PlanError("The plan cannot be used: " + "; ".join(problems) + ".") from None


def settings_help() -> dict[str, str]:
    """Return every setting that `Plan.changed` takes, with its description."""
    names = {}
    for name, info in Plan.model_fields.items():
        if name in ("format_version", "reasons", "recipe", "labels", "regions", "ct_windows"):
            continue
        if name == "augmentation":
            names.update({f"augmentation.{k}": v.description or "" for k, v in Augmentation.model_fields.items()})
        elif name == "adversarial":
            names.update({f"adversarial.{k}": v.description or "" for k, v in Adversarial.model_fields.items()})
        elif name == "network":
            for family, kind in FAMILIES.items():
                for field, about in kind.model_fields.items():
                    if field != "name":
                        known = names.get(f"network.{field}")
                        names[f"network.{field}"] = (
                            f"{known}; {family}" if known else f"{about.description} For {family}"
                        )
        else:
            names[name] = info.description or ""
    return names


def _put(values: dict[str, Any], name: str, value: object) -> None:
    *path, last = name.split(".")
    if path == ["adversarial"] and values["adversarial"] is None:
        values["adversarial"] = Adversarial().model_dump()
    place: Any = values
    for part in path:
        place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        raise PlanError(f"Unknown setting {name!r}. Possible are: {', '.join(settings_help())}.")
    place[last] = value


def _in_words(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {where!r}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]}" if where else message


def _times(numbers: tuple[float, ...]) -> str:
    return " × ".join(f"{n:.3g}" for n in numbers)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.3g} minutes" if seconds < 7200 else f"{seconds / 3600:.3g} hours"
