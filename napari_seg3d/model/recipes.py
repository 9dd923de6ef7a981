"""Published systems as plans with blanks: what an article fixes is fixed, what depends on the dataset is filled in.

Each is a file in ``recipes/``: settings as in a `Plan`, and under ``reasons`` where and why they differ from the
article. ``targets``, ``patch_voxels`` in volumes of ``volume_voxels``, ``spacing_mm`` and ``patches_per_epoch`` or
``patches_per_case`` are the blanks' rules: what is filled in for a dataset follows from them. Where the dataset forces
a deviation, the plan's reasons say so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from math import ceil
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ..cases.fingerprint import Fingerprint
from ..errors import PlanError
from .network_settings import NetworkPlan
from .networks import network_summary
from .plan import Plan, plan_from
from .planner import WHOLE_HEAD_MM, make_plan, median_box, targets

AUTOMATIC = "automatic"
_AUTOMATIC_SUMMARY = "Everything planned from the dataset and the device, after nnU-Net."
#: The order in which they are offered.
_NAMES = (
    "unet3d-iseg2017", "medicalzoo-iseg2017", "unet-brats", "unetr-brats", "monai-unetr-brats", "qim3d-unet",
    "unet3d-brats2020", "vox2vox",
)  # fmt: skip
#: What every recipe is unless it says otherwise: none of the articles uses these of our automatic plan's ways.
_PLAIN: Mapping[str, object] = {"schedule": "constant", "clip_norm": 1e6, "ema_decay": 0.0, "validate_every": 1}


def recipe_names() -> tuple[str, ...]:
    """Return the names that ``--recipe`` takes."""
    return (AUTOMATIC, *_NAMES)


def recipe_summary(name: str) -> str:
    """Return what a recipe is, in one line; raises `PlanError` for an unknown name."""
    return _AUTOMATIC_SUMMARY if name == AUTOMATIC else str(published(name)["summary"])


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
        As in `napari_seg3d.model.plan.Plan.changed`; besides, ``network.name`` puts another network, with its own usual
        settings, in the place of the article's.

    Raises
    ------
    PlanError
        For an unknown recipe, or one that cannot be applied to this dataset.
    """
    if name == AUTOMATIC:
        return make_plan(fingerprint, budget_s=budget_s, epochs=epochs, device=device, seed=seed, changes=changes)
    recipe = published(name)
    if budget_s is not None and epochs is not None:
        raise PlanError("Give a time budget or a number of epochs, not both.")
    wished = dict(changes or {})
    values: dict[str, Any] = {**_PLAIN, **recipe["settings"], "recipe": name, "seed": seed}
    if by_hand := "network.name" in wished:
        values["network"] = {"name": wished.pop("network.name")}
    values |= _targets(recipe["targets"], fingerprint, wished.pop("targets", None))
    values["reasons"] = {
        **dict.fromkeys(recipe["settings"], "the article's"),
        **values["reasons"],
        **recipe["reasons"],
        **({"network": "chosen by hand"} if by_hand else {}),
    }
    values["modalities"] = fingerprint.modalities
    whole_head = _whole_head(fingerprint)
    _add_grid(values, recipe, fingerprint, whole_head)
    _add_mirrors(values, whole_head)
    _add_steps(values, recipe, fingerprint)
    if budget_s is not None or epochs is not None:
        values |= {"epochs": epochs, "budget_s": budget_s}
        values["reasons"].pop("epochs", None)
        values["reasons"]["epochs" if budget_s is None else "budget_s"] = "chosen by hand"
    return plan_from(values).changed(wished)


@cache
def published(name: str) -> Mapping[str, Any]:
    """Return the file of a published recipe as it is; raises `PlanError` for an unknown name."""
    if name not in _NAMES:
        raise PlanError(f"Unknown recipe {name!r}. Possible are: {', '.join(recipe_names())}.")
    text = files(__package__).joinpath("recipes", f"{name}.json").read_text("utf-8")
    recipe: dict[str, Any] = json.loads(text)
    return recipe


def _whole_head(fingerprint: Fingerprint) -> bool:
    sizes_mm = [np.multiply(c.cropped_shape, c.ras_spacing_mm) for c in fingerprint.cases]
    return bool(np.median(sizes_mm, axis=0).min() >= WHOLE_HEAD_MM)


def _targets(rule: str, fingerprint: Fingerprint, wish: object) -> dict[str, Any]:
    """What is learned: the recipe's kind of targets, as far as the dataset has them."""
    if rule == "foreground" and wish is None:
        values = targets(fingerprint, "classes")
        first = values["labels"][0]
        everything = {
            "name": "object" if len(values["labels"]) > 1 else first["name"],
            "values": [label["value"] for label in values["labels"]],
            "color": first["color"],
            "written": first["value"],
        }
        return {**values, "targets": "regions", "regions": [everything], "reasons": {}}
    if rule == "regions" and wish is None and not fingerprint.regions:
        values = targets(fingerprint, "classes")
        values["reasons"]["targets"] = "the labels of this dataset have no known regions, which the article learns"
        return values
    return targets(fingerprint, wish or rule)


def _add_grid(values: dict[str, Any], recipe: Mapping[str, Any], fingerprint: Fingerprint, whole_head: bool) -> None:
    reasons = values["reasons"]
    spacing = recipe.get("spacing_mm") if whole_head else None
    if spacing is None:
        spacing = tuple(round(x, 3) for x in fingerprint.median_spacing_mm)
        has_one = "spacing_mm" in recipe
        reasons["spacing_mm"] = "the dataset's" + (": the article's is for whole heads" if has_one else "")
    values["spacing_mm"] = x, y, z = tuple(spacing)
    if values["crop_to_foreground"]:
        box = median_box(fingerprint, (x, y, z))
    else:
        sizes_mm = np.multiply(fingerprint.median_shape, fingerprint.median_spacing_mm)
        box = tuple(np.maximum(1, np.round(sizes_mm / values["spacing_mm"])).astype(int).tolist())
    article = recipe["patch_voxels"]
    # The patch is not known yet, so the network's settings are read on their own.
    network = _network(values["network"])
    divisor = network.divisor
    # Two voxels along each axis are left at the bottom: what is normalised over fewer is noise.
    least = [d * (2 if network.normalises_bottom else 1) for d in divisor]
    patch = list(article)
    if any(a > ceil(b / d) * d for a, b, d in zip(article, box, divisor, strict=True)):
        # As large a part of the case as the article's of its: a patch that is the whole case would never vary.
        shares = [a / whole for a, whole in zip(article, recipe["volume_voxels"], strict=True)]
        parts = [ceil(share * b / d) * d for share, b, d in zip(shares, box, divisor, strict=True)]
        patch = [max(n, min(a, part)) for a, part, n in zip(article, parts, least, strict=True)]
    if values["augmentation"].get("quarter_turns_probability"):
        patch[0] = patch[1] = max(patch[:2])
    values["patch_voxels"] = tuple(patch)
    if patch != article:
        reasons["patch_voxels"] = (
            f"as large a part of these cases as the article's {' × '.join(map(str, article))} is of its own"
        )
    else:
        reasons.setdefault("patch_voxels", "the article's")


def _network(values: Mapping[str, Any]) -> Any:
    """Return the settings of a network from plain values."""
    try:
        return TypeAdapter(NetworkPlan).validate_python(values)
    except ValidationError:
        network_summary(str(values.get("name")))  # raises with the list of names
        raise PlanError(
            f"The network {values.get('name')!r} needs settings of its own; plan it without a recipe."
        ) from None


def _add_mirrors(values: dict[str, Any], whole_head: bool) -> None:
    mirrors = values["augmentation"].get("mirror")
    if mirrors and not whole_head:
        values["augmentation"] = {**values["augmentation"], "mirror": []}
        values["reasons"]["augmentation"] = (
            f"the article's without mirroring {', '.join(mirrors)}: what is not a whole head has a front and a side"
        )


def _add_steps(values: dict[str, Any], recipe: Mapping[str, Any], fingerprint: Fingerprint) -> None:
    batch = values["batch_size"]
    if "patches_per_epoch" in recipe:
        patches = recipe["patches_per_epoch"]
        values["reasons"]["steps_per_epoch"] = f"{patches} patches a round, as in the article"
    else:
        patches = fingerprint.count * recipe["patches_per_case"]
        values["reasons"]["steps_per_epoch"] = "one patch of each case a round, as in the article"
    values["steps_per_epoch"] = max(1, patches // batch)
