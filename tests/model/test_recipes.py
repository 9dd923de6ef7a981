"""Every recipe is its article's, and says where it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_seg3d.cases.fingerprint import fingerprint
from napari_seg3d.cases.labels import regions_for
from napari_seg3d.errors import ModelError, PlanError
from napari_seg3d.events import result_of
from napari_seg3d.model.plan import Plan
from napari_seg3d.model.recipes import plan_from_recipe, recipe_names, recipe_summary
from napari_seg3d.volumes.volume import LabelTable

NAMES = recipe_names()[1:]

#: What RECIPES fixes: network, patch, batch, loss, optimiser, learning rate, decay, epochs, normalisation.
PUBLISHED = {
    "unet3d-iseg2017": (
        "cicek-unet", (128, 128, 64), 1, "dice-squared", "sgd", 1e-3, 1e-8, 200, "zscore-volume"),
    "medicalzoo-iseg2017": (
        "medicalzoo-unet", (64, 64, 64), 4, "dice-squared", "sgd", 1e-2, 1e-10, 200, "zscore-volume"),
    "unet-brats": ("monai-unet", (128, 128, 64), 2, "dice-ce-patch", "adamw", 1e-4, 1e-5, 170, "zscore-foreground"),
    "unetr-brats": (
        "article-unetr", (128, 128, 64), 2, "dice-ce-patch", "adamw", 1e-4, 1e-5, 180, "zscore-foreground"),
    "monai-unetr-brats": ("unetr", (128, 128, 64), 2, "dice-ce-patch", "adamw", 1e-4, 1e-5, 180, "zscore-foreground"),
    "qim3d-unet": ("qim3d-unet", (128, 128, 128), 1, "dice-ce-patch", "adam", 1e-2, 1e-3, 30, "minmax"),
    "unet3d-brats2020": ("keras-unet", (224, 224, 144), 1, "ce", "adam", 1e-3, 0, 4, "minmax"),
    "vox2vox": ("vox2vox", (128, 128, 128), 1, "generalised-dice", "adam", 2e-4, 0, 200, "minmax-symmetric"),
}  # fmt: skip


@pytest.fixture(scope="module")
def facts(tiny_case):
    return result_of(fingerprint([tiny_case(i) for i in range(3)]))


@pytest.fixture(scope="module")
def heads(facts):
    """Whole heads of 1 mm with the labels of BraTS."""
    table = LabelTable.from_names({1: "oedema", 2: "non-enhancing tumour", 3: "enhancing tumour"})
    shape = (240, 240, 155)
    head = {"shape": shape, "cropped_shape": shape, "spacing_mm": (1.0, 1.0, 1.0), "orientation": "RAS"}
    cases = tuple(replace(case, **head) for case in facts.cases)
    return replace(facts, cases=cases, table=table, regions=regions_for(table))


def test_all_published_recipes_are_there():
    assert set(NAMES) == set(PUBLISHED)
    assert all(len(recipe_summary(name)) > 40 for name in recipe_names())


@pytest.mark.parametrize("name", NAMES)
def test_on_whole_heads_a_recipe_is_the_articles(heads, name):
    plan = plan_from_recipe(name, heads)
    found = (plan.network.name, plan.patch_voxels, plan.batch_size, plan.loss, plan.optimizer, plan.learning_rate,
             plan.weight_decay, plan.epochs, plan.normalisation)  # fmt: skip
    assert found == PUBLISHED[name]
    assert (plan.schedule, plan.ema_decay) == ("constant", 0)
    assert plan.recipe == name
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("name", NAMES)
def test_on_small_volumes_it_fits_and_says_where_it_deviates(facts, name):
    plan = plan_from_recipe(name, facts, epochs=2)
    assert all(size % d == 0 for size, d in zip(plan.patch_voxels, plan.network.divisor, strict=True))
    assert np.prod(plan.patch_voxels) < 64**3
    assert "as large a part" in plan.reasons["patch_voxels"]
    assert "dataset" in plan.reasons["spacing_mm"]
    assert plan.augmentation.mirror == ()
    assert plan.epochs == 2
    assert plan.reasons["epochs"] == "chosen by hand"
    plan_from_recipe(name, facts, budget_s=60)


def test_details_that_are_easily_lost(heads):
    plans = {name: plan_from_recipe(name, heads) for name in NAMES}
    assert plans["unet-brats"].spacing_mm == (1.5, 1.5, 2.0)
    assert plans["unet-brats"].output_names == ("whole tumour", "tumour core", "enhancing tumour")
    assert plans["unet-brats"].network.widths == (16, 32, 64, 128, 256)
    assert plans["unetr-brats"].network.heads == 10
    assert plans["unet-brats"].validate_every == 5
    zoo = plans["medicalzoo-iseg2017"]
    assert (zoo.momentum, zoo.nesterov, zoo.clip_percentiles, zoo.least_label_share) == (0.5, False, (0.1, 99.8), 0.1)
    assert (zoo.steps_per_epoch, plans["unet3d-iseg2017"].steps_per_epoch) == (256, 500)
    assert plans["qim3d-unet"].output_names == ("object",)
    assert plans["qim3d-unet"].augmentation.quarter_turns_probability == 0.75
    keras = plans["unet3d-brats2020"]
    assert (keras.smooth_sigma_voxels, keras.sharpening, keras.augmentation.rotation_about) == (1, 0.3, ("up-down",))
    judge = plans["vox2vox"].adversarial
    assert (judge.weight, judge.threshold, judge.learning_rate, judge.betas) == (5, 0.8, 2e-4, (0.5, 0.999))


def test_another_network_and_other_targets_can_be_put_in(heads):
    plan = plan_from_recipe("unet-brats", heads, changes={"network.name": "segresnet", "targets": "classes"})
    assert (plan.network.name, plan.targets, plan.reasons["network"]) == ("segresnet", "classes", "chosen by hand")
    assert plan_from_recipe("medicalzoo-iseg2017", heads, changes={"network.name": "vnet"}).network.name == "vnet"
    assert plan_from_recipe("qim3d-unet", heads, changes={"network.size": "small"}).network.widths == (32, 64, 128)
    with pytest.raises(ModelError, match="monai-unet"):
        plan_from_recipe("unet-brats", heads, changes={"network.name": "magic"})
    with pytest.raises(PlanError, match="without a recipe"):
        plan_from_recipe("unet-brats", heads, changes={"network.name": "unet"})


def test_wrong_choices_are_named(facts):
    assert recipe_names()[0] == "automatic"
    with pytest.raises(PlanError, match="unet-brats"):
        recipe_summary("nnunet")
    with pytest.raises(PlanError, match="not both"):
        plan_from_recipe("vox2vox", facts, budget_s=1, epochs=1)
