"""All networks under one plan: parameters, seconds per step, memory, and the Dice that the same time brings.

No promise but that each trains: the table is what a person needs who wants to choose one. Every network gets the
automatic plan for the same cases and the same time; patch and batch are what that plan gives it.

    python benchmarks/networks.py DATA [--only NAME ...] [--budget 10m] [--output DIR] [--cores 2]

DATA is the folder Task04_Hippocampus with its `dataset.json` and a `benchmark_split.json` that holds lists of case ids
under `train` and `test`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from commands import measured, seg3d
from machine import describe, use_cores

from napari_seg3d.model.networks import network_names, parameter_count
from napari_seg3d.model.plan import Plan


def main() -> int:
    """Train each network and print its line of the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=network_names(), default=network_names())
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--output", type=Path, help="where runs and predictions go; default: a new temporary folder")
    parser.add_argument("--cores", type=int, default=2)
    choices = parser.parse_args()
    output = choices.output or Path(tempfile.mkdtemp(prefix="networks-"))
    use_cores(choices.cores)
    print(describe())
    print(f"\n| network | parameters (M) | patch, batch | s/step | peak memory (MB) | Dice after {choices.budget} |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in choices.only:
        print(row(choices, name, output), flush=True)
    return 0


def row(choices: argparse.Namespace, name: str, output: Path) -> str:
    """Train a network, score it on the test cases, and return its line."""
    data, run, predictions = choices.data, output / name, output / f"{name}-predictions"
    split = data / "benchmark_split.json"
    trained = measured(
        *("train", str(data), "--output", str(run), "--network", name, "--budget", choices.budget),
        *("--split", str(split), "--device", "cpu"),
    )
    seg3d(
        *("predict", str(run), str(data), "--split", str(split), "--part", "test", "--output", str(predictions)),
        *("--device", "cpu"),
    )
    dice = json.loads(seg3d("evaluate", str(predictions), str(data), "--json"))["mean_dice"]
    plan = Plan.from_json((run / "plan.json").read_text(encoding="utf-8"))
    patch = f"{' × '.join(map(str, plan.patch_voxels))}, {plan.batch_size}"
    count = parameter_count(plan) / 1e6
    return f"| {name} | {count:.2f} | {patch} | {step_s(run):.2f} | {trained.peak_mb:.0f} | {dice:.3f} |"


def step_s(run: Path) -> float:
    """Seconds from step to step, between rounds without a validation: the fastest, for others hold one."""
    with (run / "history.csv").open(encoding="utf-8") as file:
        rounds = [(int(row["step"]), float(row["elapsed_s"])) for row in csv.DictReader(file)]
    each = [(late - early) / (last - first) for (first, early), (last, late) in pairwise(rounds) if last > first]
    return min(each) if each else rounds[0][1] / rounds[0][0]


if __name__ == "__main__":
    sys.exit(main())
