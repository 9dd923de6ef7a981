"""The published systems, each from one command, on data that everybody can get.

Promises: every recipe, within its own short schedule on the hippocampus task, beats both trivial baselines (all
background, best threshold); the U-Nets of the infant brain and the BraTS article reach a mean foreground Dice of 0.85
on the test cases; the qim3d recipe on its synthetic volumes reaches a Dice of 0.95 on its validation case after its 30
epochs, its loss falls to a tenth, and training and validation loss end within 0.05 of each other.

    python benchmarks/recipes.py DATA [--only NAME ...] [--output DIR] [--cores 2]

DATA is the folder Task04_Hippocampus with its `dataset.json` and a `benchmark_split.json` that holds lists of case ids
under `train` and `test`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path

from commands import Measured, measured, seg3d
from machine import describe, use_cores

#: Recipe -> what is given besides its name: time on two cores, and what the small volumes ask for.
SCHEDULES = {
    "unet-brats": ("--budget", "12m"),
    "medicalzoo-iseg2017": ("--budget", "20m"),
    # The article's learning rate belongs to its 100,000 steps.
    "unet3d-iseg2017": ("--budget", "25m", "--set", "learning_rate=0.01", "--set", "momentum=0.9"),
    "unetr-brats": ("--budget", "10m"),
    "monai-unetr-brats": ("--budget", "10m"),
    "qim3d-unet": ("--budget", "3m", "--set", "targets=classes"),
    "unet3d-brats2020": ("--budget", "5m"),
    "vox2vox": ("--budget", "10m", "--set", "network.base=16", "--set", "adversarial.base=16"),
}
#: The tutorial's own run, on its own kind of volumes.
OBJECTS = "qim3d-unet on objects"
PROMISED = {"unet-brats": 0.85, "medicalzoo-iseg2017": 0.85, "unet3d-iseg2017": 0.85}


def main() -> int:
    """Train, predict and score with each recipe; 1 if a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=[*SCHEDULES, OBJECTS], default=[*SCHEDULES, OBJECTS])
    parser.add_argument("--output", type=Path, help="where runs and predictions go; default: a new temporary folder")
    parser.add_argument("--cores", type=int, default=2)
    choices = parser.parse_args()
    output = choices.output or Path(tempfile.mkdtemp(prefix="recipes-"))
    use_cores(choices.cores)
    print(describe())
    kept = [on_objects(output) if name == OBJECTS else on_hippocampus(choices.data, name, output)
            for name in choices.only]  # fmt: skip
    return int(not all(kept))


def on_hippocampus(data: Path, name: str, output: Path) -> bool:
    """Train a recipe on the task's training cases and score it on its test cases."""
    run, predictions, split = output / name, output / f"{name}-predictions", data / "benchmark_split.json"
    trained = measured(
        *("train", str(data), "--output", str(run), "--recipe", name, "--split", str(split), "--device", "cpu"),
        *SCHEDULES[name],
    )
    seg3d(
        *("predict", str(run), str(data), "--split", str(split), "--part", "test", "--output", str(predictions)),
        *("--device", "cpu"),
    )
    scores = json.loads(seg3d("evaluate", str(predictions), str(data), "--json"))
    dice, promised = scores["mean_dice"], PROMISED.get(name, 0.0)
    trivial = {what: found["mean_dice"] for what, found in scores["baselines"].items()}
    print(f"{name}: Dice {dice:.4f} beside {', '.join(f'{w} {d:.3f}' for w, d in trivial.items())}; "
          f"{described(run, trained)}")  # fmt: skip
    return told(dice > max(trivial.values()), "beats both baselines") & told(
        dice >= promised, f"reaches {promised}", asked=promised > 0
    )


def on_objects(output: Path) -> bool:
    """Make up the tutorial's volumes, and train its recipe as it is."""
    folder, run = output / "objects", output / "qim3d-objects"
    seg3d("phantoms", "objects", "--output", str(folder))
    trained = measured(
        *("train", str(folder), "--output", str(run), "--recipe", "qim3d-unet"),
        *("--split", str(folder / "split.json"), "--device", "cpu"),
    )
    with (run / "history.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["mean_dice"]]
    dice = float(rows[-1]["mean_dice"])
    train = [float(row["loss"]) for row in rows]
    validation = [float(row["validation_loss"]) for row in rows]
    print(f"{OBJECTS}: validation Dice {dice:.4f}; loss {train[0]:.3f} → {train[-1]:.3f} in training, "
          f"{validation[0]:.3f} → {validation[-1]:.3f} in validation; {described(run, trained)}")  # fmt: skip
    return (
        told(dice >= 0.95, "validation Dice 0.95")
        & told(validation[-1] <= validation[0] / 10, "the loss falls to a tenth")
        & told(abs(train[-1] - validation[-1]) <= 0.05, "training and validation loss within 0.05")
    )


def described(run: Path, trained: Measured) -> str:
    """Steps, time and memory of a training."""
    with (run / "history.csv").open(encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    return f"{last['step']} steps in {trained.seconds / 60:.1f} minutes, {trained.peak_mb:.0f} MB"


def told(kept: bool, promise: str, *, asked: bool = True) -> bool:
    """Print whether a promise is kept; one that was not made always is."""
    if asked:
        print(f"  {'yes' if kept else 'NO '} {promise}", flush=True)
    return kept or not asked


if __name__ == "__main__":
    sys.exit(main())
