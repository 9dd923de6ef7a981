"""The commands that tell what can be chosen: recipes and networks, and one network layer by layer."""

from __future__ import annotations

import json

import pytest

from napari_seg3d.cli import main
from napari_seg3d.model import planner
from napari_seg3d.model.network_settings import FAMILIES


def test_networks_are_listed_in_a_table_with_what_each_is_good_for(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    assert main(["networks"]) == 0
    table, _, note = capsys.readouterr().out.rstrip().rpartition("\n\n")
    lines = table.splitlines()
    assert lines[0].split("  ")[0] == "network"
    assert max(map(len, lines)) <= 90
    assert [line.split()[0] for line in lines[1:] if line[0] != " "] == list(FAMILIES)
    (line,) = (line for line in lines if line.startswith("monai-unet"))
    assert "4.81 M" in line
    assert "sample brain study" in note


def test_a_network_that_cannot_be_built_does_not_take_the_others_along(capsys, monkeypatch):
    planned = planner.make_plan

    def without_medicine(facts, *, network):
        if network == "mednext":
            raise ValueError("no block of that size")
        return planned(facts, network=network)

    monkeypatch.setattr(planner, "make_plan", without_medicine)
    assert main(["networks", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["choices"]}
    assert "no block of that size" in entries["mednext"]["error"]
    assert entries["mednext"]["parameters"] is None
    others = [entry for name, entry in entries.items() if name != "mednext"]
    assert all(entry["error"] is None and entry["memory_mb"] > 10 for entry in others)
    assert all(size % d == 0 for e in others for size, d in zip(e["patch_voxels"], e["divisor"], strict=True))
    assert main(["networks"]) == 0
    assert "cannot be used here: no block" in " ".join(capsys.readouterr().out.split())


def test_one_network_is_shown_layer_by_layer(capsys):
    assert main(["networks", "--summary", "monai-unet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "parameters"]
    assert lines[1].split()[0] == "monai-unet"
    assert any(line.startswith("Forward and backward: ") for line in lines)
    assert main(["networks", "--summary", "monai-unet", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert summary["rows"][0]["parameters"] == summary["parameters"]
    assert main(["networks", "--summary", "alexnet"]) == 1
    assert "Possible are: unet, " in capsys.readouterr().err


def test_a_plan_can_be_shown_with_its_network(tmp_path, capsys):
    assert main(["phantoms", "objects", "--output", str(tmp_path / "d"), "--count", "2", "--shape", "24,20,16"]) == 0
    capsys.readouterr()
    choices = ["plan", str(tmp_path / "d"), "--network", "keras-unet", "--epochs", "1", "--quiet"]
    assert main([*choices, "--summary"]) == 0
    text = capsys.readouterr().out
    assert "Network: keras-unet" in text
    assert "\nbottom.0 " in text
    assert main([*choices, "--summary", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["summary"]["input_shape"][2:] == shown["plan"]["patch_voxels"]


@pytest.mark.parametrize("command", ["recipes", "networks"])
def test_choices_are_json_too(command, capsys):
    assert main([command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "voxels" in found["for"]
    assert all(entry["what"].strip() for entry in found["choices"])
