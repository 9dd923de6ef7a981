"""Published systems as plans with blanks: what an article fixes is fixed, what depends on the dataset is filled in.

Where the dataset forces a deviation, the plan's reasons say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from types import MappingProxyType
from typing import Any

import numpy as np

from ..cases.fingerprint import Fingerprint
from ..errors import PlanError
from .plan import Plan, plan_from
from .planner import WHOLE_HEAD_MM, make_plan, median_box, targets

#: Name -> what it is, in one line.
RECIPES: Mapping[str, str] = MappingProxyType(
    {
        "automatic": "Everything planned from the dataset and the device, after nnU-Net.",
        "unet-brats": "The U-Net baseline of the UNETR comparison on BraTS (Adaloglou 2021): MONAI UNet 16-256 with "
        "residual units, whole tumour, core and enhancing tumour as regions, AdamW 1e-4, 170 epochs.",
    }
)


def recipe_names() -> tuple[str, ...]:
    """Return the names that ``--recipe`` takes."""
    return tuple(RECIPES)


def recipe_summary(name: str) -> str:
    """Return what a recipe is, in one line; raises `PlanError` for an unknown name."""
    if name not in RECIPES:
        raise PlanError(f"Unknown recipe {name!r}. Possible are: {', '.join(RECIPES)}.")
    return RECIPES[name]


def plan_from_recipe(
    name: str,
    fingerprint: Fingerprint,
    *,
    budget_s: float | None = None,
    epochs: int | None = None,
    device: str = "auto",
    seed: int = 0,
    changes: Mapping[str, object] | None = None,
) -> Plan:
    """Return the plan of a recipe for a dataset.

    Parameters
    ----------
    name : str
        One of `recipe_names`.
    fingerprint : Fingerprint
        Fills the blanks: modalities, labels, regions, and the grid where the article's does not fit.
    budget_s, epochs : optional
        Replace the article's length.
    changes : mapping, optional
        As in `napari_seg3d.model.plan.Plan.changed`.
    """
    recipe_summary(name)
    if name == "automatic":
        return make_plan(fingerprint, budget_s=budget_s, epochs=epochs, device=device, seed=seed, changes=changes)
    if budget_s is not None and epochs is not None:
        raise PlanError("Give a time budget or a number of epochs, not both.")
    wished = dict(changes or {})
    plan = _unet_brats(fingerprint, budget_s, epochs, seed, wished.pop("targets", None))
    return plan.changed(wished)


def _unet_brats(fingerprint: Fingerprint, budget_s: float | None, epochs: int | None, seed: int, wish: object) -> Plan:
    """The article's U-Net, with its traps avoided.

    It is oriented before it is resampled, normalised on the whole volume, validated on whole cases, and regions are
    learned with binary, not softmax, cross-entropy.
    """
    values: dict[str, Any] = targets(fingerprint, wish or ("regions" if fingerprint.regions else "classes"))
    reasons = values.pop("reasons")
    head_mm = np.median([np.multiply(c.cropped_shape, c.ras_spacing_mm) for c in fingerprint.cases], axis=0)
    whole_head = bool(head_mm.min() >= WHOLE_HEAD_MM)
    spacing = (1.5, 1.5, 2.0) if whole_head else tuple(round(x, 3) for x in fingerprint.median_spacing_mm)
    reasons["spacing_mm"] = "the article's" if whole_head else "the dataset's: the article's is for whole heads"
    box = median_box(fingerprint, (spacing[0], spacing[1], spacing[2]))
    article = (128, 128, 64)
    patch = tuple(min(a, max(16, ceil(b / 16) * 16)) for a, b in zip(article, box, strict=True))
    reasons["patch_voxels"] = "the article's" if patch == article else "the article's, cut to the size of the cases"
    given = budget_s or epochs
    length = {"epochs": 170} if given is None else {"epochs": epochs, "budget_s": budget_s}
    return plan_from(
        {
            **values,
            "recipe": "unet-brats",
            "modalities": fingerprint.modalities,
            "spacing_mm": spacing,
            "crop_to_foreground": False,
            "normalisation": "zscore-foreground",
            "network": {"name": "monai-unet", "widths": (16, 32, 64, 128, 256), "residual_units": 2},
            "patch_voxels": patch,
            "batch_size": 2,
            # One random crop of each case and epoch, two at a time.
            "steps_per_epoch": max(1, fingerprint.count // 2),
            "validate_every": 5,
            "optimizer": "adamw",
            "learning_rate": 1e-4,
            "weight_decay": 1e-5,
            "schedule": "constant",
            "clip_norm": 1e6,
            "foreground_fraction": 0.0,
            "augmentation": {
                "rotation_probability": 0.0,
                "scale_probability": 0.0,
                "elastic_probability": 0.0,
                "mirror": ("left-right",),
                "noise_probability": 0.0,
                "blur_probability": 0.0,
                "brightness_probability": 0.5,
                "brightness_range": 0.1,
                "shift_probability": 0.5,
                "shift_range": 0.1,
                "contrast_probability": 0.0,
                "gamma_probability": 0.0,
            },
            "seed": seed,
            "reasons": {
                **reasons,
                "network": "the article's",
                "normalisation": "inside the foreground of the whole volume, not of one crop",
                "learning_rate": "the article's",
                "epochs" if budget_s is None else "budget_s": "the article's" if given is None else "chosen by hand",
            },
            **length,
        }
    )
