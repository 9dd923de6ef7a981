"""All networks under one plan: parameters, seconds per step, memory, and the Dice that the same computing brings.

No promise but that each trains: the table is what a person needs who wants to choose one. Every network gets the
automatic plan for the same cases and the same processor time, on one thread; patch and batch are what that plan gives
it. As the budget counts processor time, several networks may train at once (`--jobs`) and other work may go on. Seconds
per step are taken afterwards, by the clock on `--cores` cores, so let the machine be quiet then.

    python benchmarks/networks.py DATA --output DIR [--only NAME ...] [--budget 20m] [--jobs 2] [--cores 2]

DATA is the folder Task04_Hippocampus with its `dataset.json` and a `benchmark_split.json` that holds lists of case ids
under `train` and `test`. What is finished in DIR is not done again, so that a stopped run can go on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from commands import measured, seg3d
from machine import describe, use_cores
from throughput import Study

from napari_seg3d.model.networks import network_names, parameter_count
from napari_seg3d.model.plan import Plan

WARM_STEPS, TIMED_STEPS = 2, 4
RUNNER = Path(__file__).with_name("processor_clock.py")


def main() -> int:
    """Train each network that is not done yet, time its steps, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="where runs, predictions and results go")
    parser.add_argument("--only", nargs="+", choices=network_names(), default=network_names())
    parser.add_argument("--budget", default="20m", help="processor time of each training")
    parser.add_argument("--jobs", type=int, default=2, help="how many networks train at once, on one thread each")
    parser.add_argument("--cores", type=int, default=2, help="cores on which the steps are timed")
    choices = parser.parse_args()
    print(describe(), flush=True)
    choices.output.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(choices.jobs) as pool:
        list(pool.map(lambda name: train(choices, name), choices.only))
    use_cores(choices.cores)
    print(f"\n| network | parameters (M) | patch, batch | s/step | peak memory (MB) | Dice after {choices.budget} |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        study = Study(choices.data, Path(folder))
        for name in choices.only:
            print(row(choices, name, study), flush=True)
    return 0


def train(choices: argparse.Namespace, name: str) -> None:
    """Train one network, score it on the test cases, and write down what came out."""
    result = choices.output / f"{name}.json"
    if result.is_file():
        return
    data, run, predictions = choices.data, choices.output / name, choices.output / f"{name}-predictions"
    for left in (run, predictions):
        shutil.rmtree(left, ignore_errors=True)
    split = data / "benchmark_split.json"
    trained = measured(
        *("train", str(data), "--output", str(run), "--network", name, "--budget", choices.budget),
        *("--split", str(split), "--device", "cpu", "--threads", "1"),
        runner=(str(RUNNER),),
    )
    seg3d(
        *("predict", str(run), str(data), "--split", str(split), "--part", "test", "--output", str(predictions)),
        *("--device", "cpu", "--threads", "1"),
    )
    dice = json.loads(seg3d("evaluate", str(predictions), str(data), "--json"))["mean_dice"]
    result.write_text(json.dumps({"peak_mb": trained.peak_mb, "dice": dice}), encoding="utf-8")
    print(f"{name}: {dice:.3f}", flush=True)


def row(choices: argparse.Namespace, name: str, study: Study) -> str:
    """Time the steps of one network, and return its line of the table."""
    found = json.loads((choices.output / f"{name}.json").read_text(encoding="utf-8"))
    plan = Plan.from_json((choices.output / name / "plan.json").read_text(encoding="utf-8"))
    endless = plan.changed({"budget_s": None, "epochs": 100_000})
    with study.loop(endless, "cpu", choices.cores) as make:
        make(WARM_STEPS)
        step_s = make(TIMED_STEPS) / TIMED_STEPS
    patch = f"{' × '.join(map(str, plan.patch_voxels))}, {plan.batch_size}"
    count = parameter_count(plan) / 1e6
    return f"| {name} | {count:.2f} | {patch} | {step_s:.2f} | {found['peak_mb']:.0f} | {found['dice']:.3f} |"


if __name__ == "__main__":
    sys.exit(main())
