"""Two processes under torchrun learn what one learns, write once, and resume."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from napari_seg3d.cli import main
from napari_seg3d.events import Validated
from napari_seg3d.model.checkpoint import load_model
from napari_seg3d.training.run import RunFolder, read_history
from napari_seg3d.volumes.files import write_label_map, write_volume


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, tiny_case):
    folder = tmp_path_factory.mktemp("ranks") / "data"
    for number in range(5):
        case = tiny_case(number)
        (folder / case.id).mkdir(parents=True)
        for name, volume in case.modalities.items():
            write_volume(folder / case.id / f"{case.id}_{name}.nii.gz", volume)
        write_label_map(folder / case.id / f"{case.id}_seg.nii.gz", case.truth)
    split = {"train": ["case00", "case01", "case02"], "validation": ["case03", "case04"]}
    (folder.parent / "split.json").write_text(json.dumps(split))
    return folder


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
ROOT = Path(__file__).parents[2]


def run_torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1",
               "--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "-m",
               "napari_seg3d", *map(str, arguments)]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=ENVIRONMENT, cwd=ROOT)


def run_two(*arguments):
    """Start both processes with what torchrun tells them, without torchrun, which loads torch once more."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**ENVIRONMENT, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2",
              "LOCAL_WORLD_SIZE": "2"}  # fmt: skip
    command = [sys.executable, "-m", "napari_seg3d", *map(str, arguments)]
    ranks = [
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env={**shared, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]  # fmt: skip
    errors = [rank.communicate(timeout=240)[1] for rank in ranks]
    return [rank.returncode for rank in ranks], errors


SETTINGS = ["--set", "network.widths=4,8", "--set", "network.strides=[[1,1,1],[2,2,2]]", "--set",
            "network.kernels=[[3,3,3],[3,3,3]]", "--set", "patch_voxels=16,16,8", "--set", "batch_size=4", "--set",
            "steps_per_epoch=4", "--set", "learning_rate=0.01"]  # fmt: skip


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns(tmp_path, dataset):
    one, two = tmp_path / "one", tmp_path / "two"
    split = ("--epochs", 3, "--device", "cpu", "--split", dataset.parent / "split.json", *SETTINGS)
    assert main([*map(str, ("train", dataset, "--output", one, "--threads", 1, *split))]) == 0
    done = run_torchrun("train", dataset, "--output", two, *split)
    assert done.returncode == 0, done.stderr
    assert RunFolder.open(two).facts().state == "finished"
    ours, theirs = (load_model(run / "last.safetensors").weights for run in (one, two))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)
    scores = [[e.mean_dice for e in read_history(run) if isinstance(e, Validated)] for run in (one, two)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    assert len(scores[0]) == 3
    # Each said everything once.
    assert (two / "events.jsonl").read_text().count('"EpochDone"') == 3

    codes, errors = run_two("train", dataset, "--output", two, "--resume", "--epochs", 1, "--device", "cpu")
    assert codes == [0, 0], errors
    assert load_model(two / "last.safetensors").history["step"] == 16


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, dataset):
    settings = [s.replace("batch_size=4", "batch_size=3") for s in SETTINGS]
    codes, errors = run_two("train", dataset, "--output", tmp_path / "run", "--epochs", 1, "--device", "cpu", *settings)
    assert 0 not in codes
    assert "A batch of 3 patches cannot be shared by 2 processes. Set batch_size to 4." in "".join(errors)
