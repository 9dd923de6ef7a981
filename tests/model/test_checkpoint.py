"""A model file is whole or refused, and cannot run code."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_seg3d.errors import FileError, ModelError, Seg3dError
from napari_seg3d.model.checkpoint import (
    MODEL_FILE,
    Model,
    load_model,
    read_model_plan,
    read_tensors,
    save_model,
    write_tensors,
)
from napari_seg3d.model.networks import build_network


@pytest.fixture
def model_file(tmp_path, tiny_plan):
    torch.manual_seed(3)
    plan = tiny_plan()
    return save_model(tmp_path / "run" / MODEL_FILE, Model(plan, build_network(plan).state_dict(), {"epoch": 3}))


@pytest.fixture(autouse=True)
def run_folder(tmp_path):
    (tmp_path / "run").mkdir()


def test_round_trip(model_file, tiny_plan):
    model = load_model(model_file.parent)
    assert model.plan == tiny_plan() == read_model_plan(model_file)
    assert model.history == {"epoch": 3}
    assert model.name == "run"
    torch.manual_seed(3)
    for name, tensor in build_network(tiny_plan()).state_dict().items():
        assert torch.equal(tensor, model.weights[name])
    readable = json.loads(model_file.with_suffix(".json").read_text())
    assert readable["sha256"] == model.sha256
    assert readable["plan"]["modalities"] == ["FLAIR", "T1c"]


def test_the_weights_file_alone_is_enough(model_file):
    model_file.with_suffix(".json").unlink()
    assert load_model(model_file).plan.network.name == "unet"


def test_no_flipped_bit_goes_unnoticed(model_file, tmp_path):
    whole = model_file.read_bytes()
    sound = load_model(model_file)
    rng = np.random.default_rng(0)
    damaged = tmp_path / "damaged.safetensors"
    refused = 0
    for place in rng.integers(0, len(whole), 80):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.write_bytes(flipped)
        try:
            again = load_model(damaged)
        except Seg3dError:
            refused += 1
        else:  # a flip in the padding or in a number of the plan's reasons may pass; the weights may not differ
            assert all(torch.equal(again.weights[k], v) for k, v in sound.weights.items())
    assert refused > 60


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, 0.999])
def test_truncated_files_are_refused(model_file, keep):
    whole = model_file.read_bytes()
    model_file.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_model(model_file)


def test_a_hostile_header_allocates_nothing(tmp_path):
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(ModelError, match="not a model file"):
        load_model(path)


def test_other_files_are_refused_by_name(tmp_path, tiny_plan):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(3)}, foreign)
    with pytest.raises(ModelError, match=r"foreign.safetensors is not a model file of napari-seg3d"):
        load_model(foreign)
    pickled = tmp_path / "model.pt"
    torch.save({"x": torch.zeros(3)}, pickled)
    with pytest.raises(ModelError, match=r"model.pt is not a model file"):
        load_model(pickled)
    write_tensors(tmp_path / "state", {"x": torch.zeros(2)}, "checkpoint", {})
    with pytest.raises(ModelError, match="state is a checkpoint file"):
        read_tensors(tmp_path / "state", "model")
    with pytest.raises(FileError, match="no finished model"):
        load_model(tmp_path)
    with pytest.raises(FileError, match="no file"):
        load_model(tmp_path / "absent")


def test_a_newer_format_says_upgrade(tmp_path):
    facts = {"format_version": 99}
    write_tensors(tmp_path / "new.safetensors", {"x": torch.zeros(2)}, "model", facts)
    with pytest.raises(ModelError, match="Upgrade"):
        load_model(tmp_path / "new.safetensors")


def test_weights_of_another_network_are_refused(tmp_path, tiny_plan):
    plan = tiny_plan()
    other = build_network(tiny_plan(**{"network.widths": (4, 8, 12)})).state_dict()
    save_model(tmp_path / "mixed.safetensors", Model(plan, other))
    with pytest.raises(ModelError, match="do not fit its own plan"):
        load_model(tmp_path / "mixed.safetensors")


def test_every_kind_of_tensor_comes_back(tmp_path):
    tensors = {
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "double": torch.rand(2, 3, dtype=torch.float64),
        "half": torch.rand(5).bfloat16(),
        "view": torch.rand(4, 6).T,
    }
    write_tensors(tmp_path / "t", tensors, "checkpoint", {"step": 7})
    again, facts, _ = read_tensors(tmp_path / "t", "checkpoint")
    assert facts["step"] == 7
    assert all(torch.equal(again[k], v) and again[k].dtype == v.dtype for k, v in tensors.items())
