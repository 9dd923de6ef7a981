"""A plan is JSON both ways and refuses what it does not know."""

from __future__ import annotations

import json

import pytest

from napari_seg3d.errors import PlanError
from napari_seg3d.model.plan import Plan, settings_help


def test_json_round_trip(tiny_plan):
    plan = tiny_plan(learning_rate=3e-4)
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learnin_rate": 1e-3}, "Unknown setting 'learnin_rate'"),
        ({"network.depth": 3}, "Unknown setting 'network.depth'"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"patch_voxels": (17, 16, 8)}, "multiple of"),
        ({"patch_voxels": (16, 16)}, "patch_voxels"),
        ({"network.widths": (4, 8)}, "one entry a stage"),
        ({"epochs": 3, "budget_s": 60}, "either epochs or budget_s"),
        ({"epochs": None}, "either epochs or budget_s"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"augmentation.mirror": ("sideways",)}, "mirror"),
    ],
)
def test_impossible_settings_are_refused_in_words(tiny_plan, change, words):
    with pytest.raises(PlanError, match=words.replace("'", ".")) as caught:
        tiny_plan(**change)
    assert "pydantic" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_listed_setting_can_be_set(tiny_plan):
    plan = tiny_plan()
    values = plan.model_dump()
    for name in settings_help():
        place = values
        for part in name.split("."):
            place = place.get(part, "absent") if isinstance(place, dict) else "absent"
        if place == "absent" or name in ("epochs", "budget_s", "targets"):
            continue  # a setting of another network, or one that excludes another
        assert plan.changed({name: place}).changed({}) is not None


def test_a_budget_replaces_the_epochs_and_back(tiny_plan):
    plan = tiny_plan(budget_s=60.0)
    assert (plan.epochs, plan.budget_s) == (None, 60.0)
    assert plan.changed({"epochs": 4}).budget_s is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"format_version": 99}', "[" * 100_000])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(PlanError):
        Plan.from_json(text)


def test_unknown_keys_in_a_file_are_refused(tiny_plan):
    values = json.loads(tiny_plan().to_json())
    values["_target_"] = "os.system"
    with pytest.raises(PlanError, match="unknown setting '_target_'"):
        Plan.from_json(json.dumps(values))


def test_regions_must_name_known_labels(tiny_plan):
    values = json.loads(tiny_plan().to_json())
    values |= {"targets": "regions", "regions": [{"name": "all", "values": [1, 9], "color": "#ff0000"}]}
    with pytest.raises(PlanError, match="not in labels"):
        Plan.from_json(json.dumps(values))


def test_a_plan_tells_what_was_chosen_by_hand(tiny_plan):
    lines = "\n".join(tiny_plan(learning_rate=2e-3).describe())
    assert "learning rate 0.002" in lines
    assert "chosen by hand" in lines
