"""Accuracy after ten minutes: the hippocampus task of the Medical Segmentation Decathlon on two CPU cores.

Promise: trained on the 40 `train` cases of the split for 10 minutes, the mean foreground Dice on the 20 `test` cases is
at least 0.84. Only the public commands are used. For comparison: nnU-Net v2 (3d_fullres, 1000 epochs, 195 cases) is
published with 0.895 on other cases of the same task.

    python benchmarks/hippocampus.py DATA [--output DIR] [--budget 10m] [--cores 2] [--seed 0]

DATA is the folder Task04_Hippocampus with its `dataset.json` and a `benchmark_split.json` that holds lists of case ids
under `train` and `test`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from commands import seg3d
from machine import describe, use_cores

PROMISED_DICE = 0.84


def main() -> int:
    """Train, predict, evaluate; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--output", type=Path, help="where the run and the predictions go; default: a new temporary folder"
    )
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seed", default="0")
    choices = parser.parse_args()
    output = choices.output or Path(tempfile.mkdtemp(prefix="hippocampus-"))
    split = choices.data / "benchmark_split.json"
    test = json.loads(split.read_text(encoding="utf-8"))["test"]
    use_cores(choices.cores)
    print(describe())

    run, predictions = output / "run", output / "predictions"
    begin = time.monotonic()
    seg3d(
        *("train", str(choices.data), "--output", str(run), "--split", str(split)),
        *("--budget", choices.budget, "--device", "cpu", "--seed", choices.seed),
    )
    trained = time.monotonic()
    seg3d(
        *("predict", str(run), str(choices.data), "--split", str(split), "--part", "test"),
        *("--output", str(predictions), "--device", "cpu"),
    )
    predicted = time.monotonic()
    scores = json.loads(seg3d("evaluate", str(predictions), str(choices.data), "--json"))

    print(json.dumps(scores, indent=1))
    if sorted(case["case"] for case in scores["cases"]) != sorted(test):
        raise RuntimeError("The scored cases are not the test cases of the split.")
    per_case = (predicted - trained) / len(test)
    print(f"train {trained - begin:.0f} s (budget {choices.budget}), predict {per_case:.2f} s a case; kept in {output}")
    print(f"mean foreground Dice of {len(test)} cases: {scores['mean_dice']:.4f} (promise {PROMISED_DICE})")
    return int(scores["mean_dice"] < PROMISED_DICE)


if __name__ == "__main__":
    sys.exit(main())
