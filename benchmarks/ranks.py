"""Two processes that train one model together, beside one process.

Promise: with 2 ranks on the CPU (gloo, this computer only) the weights are those of 1 rank, up to the order of sums:
they differ by 1e-4 at most, or by ten times as much as when 1 rank sums with another number of threads. The steps per
second are told beside it. Made-up studies, the public commands.

    python benchmarks/ranks.py [--steps 20] [--output DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe, use_cores

CASES, ROUND = 4, 5
OF_THREADS, AT_MOST = 10, 1e-4
SETTINGS = {
    "network.widths": "8,16,32",
    "network.kernels": "[[3,3,3],[3,3,3],[3,3,3]]",
    "network.strides": "[[1,1,1],[2,2,2],[2,2,2]]",
    "network.deep_supervision": "true",
    "patch_voxels": "32,32,16",
    "batch_size": "4",
    # Adam divides by the gradient's own size, which makes steps of rounding errors where a gradient is nearly 0.
    "optimizer": "sgd",
    "learning_rate": "0.01",
    "steps_per_epoch": str(ROUND),
}


def main() -> int:
    """Train with 1 and with 2 ranks and compare; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", type=Path, help="where the runs go; default: a temporary folder")
    choices = parser.parse_args()
    use_cores(2)
    print(describe())
    if choices.output is not None:
        return compare(choices.output, choices.steps)
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        return compare(Path(folder), choices.steps)


def compare(folder: Path, steps: int) -> int:
    """Train in a folder and compare the newest weights."""
    from napari_seg3d import result_of
    from napari_seg3d.cases.phantoms import write_phantom_dataset

    result_of(write_phantom_dataset(folder / "study", CASES, 7, shape=(56, 64, 28)))
    os.environ["NAPARI_SEG3D_CACHE"] = str(folder / "cache")
    rounds = max(2, steps // ROUND)
    runs = {
        "1 rank, 1 thread": train(folder, "one", 1, 1, rounds),
        "1 rank, 2 threads": train(folder, "threads", 1, 2, rounds),
        "2 ranks, 1 thread each": train(folder, "two", 2, 1, rounds),
    }
    first = runs["1 rank, 1 thread"]
    far = {name: difference(first, run) for name, run in runs.items()}
    for name, run in runs.items():
        print(f"  {name:24s} {steps_per_s(run):7.2f} steps/s, weights differ by {far[name]:.1e} at most")
    allowed = max(OF_THREADS * far["1 rank, 2 threads"], AT_MOST)
    kept = far["2 ranks, 1 thread each"] <= allowed
    print(f"{'yes' if kept else 'NO '} 2 ranks learn what 1 learns, after {rounds * ROUND} steps within {allowed:.1e}")
    return int(not kept)


def train(folder: Path, name: str, ranks: int, threads: int, rounds: int) -> Path:
    """Train with the public command, under torchrun if there are several ranks; return the run folder."""
    run = folder / name
    settings = [text for key, value in SETTINGS.items() for text in ("--set", f"{key}={value}")]
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"] if ranks > 1 else []
    command = [sys.executable, "-m", *torchrun, "napari_seg3d", "train", str(folder / "study"), "--output", str(run)]
    command += ["--epochs", str(rounds), "--device", "cpu", "--threads", str(threads), "--quiet", *settings]
    # The ranks talk over the loopback interface alone.
    network = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    environment = {**os.environ, **network, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return run


def difference(one: Path, other: Path) -> float:
    """Return the largest difference of any two weights."""
    from safetensors.torch import load_file

    a, b = (load_file(run / "last.safetensors") for run in (one, other))
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def steps_per_s(run: Path) -> float:
    """Return the pace between the first and the last round, validations included."""
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    rounds = [event for event in map(json.loads, lines) if event["event"] == "EpochDone"]
    seconds = rounds[-1]["elapsed_s"] - rounds[0]["elapsed_s"]
    return float((rounds[-1]["steps"] - rounds[0]["steps"]) / seconds)


if __name__ == "__main__":
    sys.exit(main())
