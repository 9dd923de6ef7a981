"""Accuracy within a time budget: the hippocampus task of the Medical Segmentation Decathlon on two CPU cores.

Promise: trained on the 40 `train` cases of the split, the mean foreground Dice on the 20 `test` cases is at least 0.88
after 10 minutes and 0.89 after 30; with the first 5 cases and 10 minutes at least 0.84. It is kept when the mean over
the seeds is that high; the spread is told beside it. Only the public commands are used.

    python benchmarks/hippocampus.py DATA [--budget 10m] [--cases N] [--seeds 0 1 2] [--cores 2] [--output DIR]

DATA is the folder Task04_Hippocampus with its `dataset.json` and a `benchmark_split.json` that holds lists of case ids
under `train` and `test`. Where a `nnunet_baseline.json` lies beside that folder, nnU-Net's figures are printed too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from math import nan
from pathlib import Path
from statistics import mean, stdev

from commands import seg3d
from machine import describe, use_cores

#: Mean foreground Dice by budget and number of training cases; None is all of them.
PROMISED = {("10m", None): 0.88, ("30m", None): 0.89, ("10m", 5): 0.84}


def main() -> int:
    """Train, predict and evaluate with each seed; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--output", type=Path, help="where runs and predictions go; default: a new temporary folder, which is kept"
    )
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--cases", type=int, help="train on the first so many cases of the list; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--cores", type=int, default=2)
    choices = parser.parse_args()
    output = choices.output or Path(tempfile.mkdtemp(prefix="hippocampus-"))
    output.mkdir(parents=True, exist_ok=True)
    split = json.loads((choices.data / "benchmark_split.json").read_text(encoding="utf-8"))
    train = split["train"] if choices.cases is None else split["train"][: choices.cases]
    (output / "split.json").write_text(json.dumps({"train": train, "test": split["test"]}), encoding="utf-8")
    use_cores(choices.cores)
    print(describe())

    dice = [trained_dice(choices, output, seed, split["test"]) for seed in choices.seeds]
    what = f"{len(train)} cases, {choices.budget}, {len(split['test'])} test cases"
    spread = f" ± {stdev(dice):.4f} (seeds: {', '.join(f'{d:.4f}' for d in dice)})" if len(dice) > 1 else ""
    print(f"{what}: mean foreground Dice {mean(dice):.4f}{spread}; kept in {output}")
    print_baseline(choices.data.parent / "nnunet_baseline.json")
    promised = PROMISED.get((choices.budget, choices.cases))
    if promised is None:
        print("nothing is promised for this budget and number of cases")
        return 0
    kept = mean(dice) >= promised
    print(f"{'yes' if kept else 'NO '} promise {promised}")
    return int(not kept)


def trained_dice(choices: argparse.Namespace, output: Path, seed: int, test: list[str]) -> float:
    """Train with a seed, predict the test cases, and return their mean foreground Dice."""
    run, predictions, split = output / f"run{seed}", output / f"predictions{seed}", output / "split.json"
    begin = time.monotonic()
    seg3d(
        *("train", str(choices.data), "--output", str(run), "--split", str(split)),
        *("--budget", choices.budget, "--device", "cpu", "--seed", str(seed)),
    )
    trained = time.monotonic()
    seg3d(
        *("predict", str(run), str(choices.data), "--split", str(split), "--part", "test"),
        *("--output", str(predictions), "--device", "cpu"),
    )
    predicted = time.monotonic()
    scores = json.loads(seg3d("evaluate", str(predictions), str(choices.data), "--json"))
    (output / f"scores{seed}.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
    if sorted(case["case"] for case in scores["cases"]) != sorted(test):
        raise RuntimeError("The scored cases are not the test cases of the split.")
    labels = [
        f"{row['name']} {row['mean_dice']:.3f}, lowest {row['lowest_dice']:.3f}, "
        f"HD95 {row['mean_hd95_mm'] or nan:.1f} mm"
        for row in scores["summary"]
    ]
    print(f"seed {seed}: Dice {scores['mean_dice']:.4f} ({'; '.join(labels)}); trained {trained - begin:.0f} s, "
          f"predicted {(predicted - trained) / len(test):.2f} s a case", flush=True)  # fmt: skip
    return float(scores["mean_dice"])


def print_baseline(path: Path) -> None:
    """Print what nnU-Net reached on the same cases in the time of ten minutes, where its record is at hand."""
    if not path.is_file():
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    print(f"beside it, ten minutes of {record['program']} ({record['data']}):")
    for name, setting in record["settings"].items():
        print(f"  {name.replace('_', ' ')}: Dice {setting['dice']['mean']:.4f} in {setting['steps']} steps")


if __name__ == "__main__":
    sys.exit(main())
