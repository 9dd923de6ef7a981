"""A tumour study end to end: two patients of BraTS 2013 train, the third is predicted.

Promise: the whole tumour is found, enhancing tumour lies in the core and the core in the whole tumour, and an
independent library reads the written file back on exactly the image's grid. With two patients accuracy is not
the point.

    python benchmarks/brats.py DATA [--output DIR] [--budget 10m] [--cores 2] [--seed 0]

DATA is a folder with one folder per patient.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK
from commands import seg3d
from machine import describe, use_cores

from napari_seg3d import open_dataset
from napari_seg3d.cases.labels import regions_from_labels

FOUND_DICE = 0.5


def same_grid(one: SimpleITK.Image, other: SimpleITK.Image) -> bool:
    """Whether two files put the same voxels at the same places, as SimpleITK reads them."""
    return (
        one.GetSize() == other.GetSize()
        and np.allclose(one.GetSpacing(), other.GetSpacing(), rtol=1e-6)
        and np.allclose(one.GetOrigin(), other.GetOrigin(), atol=1e-4)
        and np.allclose(one.GetDirection(), other.GetDirection(), atol=1e-6)
    )


def main() -> int:
    """Train, predict, check; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--output", type=Path, help="where the run and the prediction go; default: a new temporary folder"
    )
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--seed", default="0")
    choices = parser.parse_args()
    output = choices.output or Path(tempfile.mkdtemp(prefix="brats-"))
    output.mkdir(parents=True, exist_ok=True)
    use_cores(choices.cores)
    print(describe())

    dataset = open_dataset(choices.data)
    *train, held_out = dataset.labelled
    split, run, predictions = output / "split.json", output / "run", output / "predictions"
    split.write_text(json.dumps({"train": [case.id for case in train], "test": [held_out.id]}), encoding="utf-8")
    seg3d(
        *("train", str(choices.data), "--output", str(run), "--split", str(split)),
        *("--set", "targets=regions", "--budget", choices.budget, "--device", "cpu", "--seed", choices.seed),
    )
    begin = time.monotonic()
    seg3d(
        *("predict", str(run), str(choices.data), "--split", str(split), "--part", "test"),
        *("--output", str(predictions), "--device", "cpu"),
    )
    seconds = time.monotonic() - begin
    scores = json.loads(seg3d("evaluate", str(predictions), str(choices.data), "--json"))["cases"][0]

    image = SimpleITK.ReadImage(str(next(iter(held_out.modalities.values())).path))
    written = SimpleITK.ReadImage(str(predictions / f"{held_out.id}.nii.gz"))
    labels = SimpleITK.GetArrayFromImage(written)
    values = set(np.unique(labels).tolist())
    masks = regions_from_labels(labels, dataset.regions or ())
    whole_dice = next(score["dice"] for score in scores["regions"] if score["name"] == "whole tumour")
    checks = {
        f"whole tumour found (Dice {whole_dice:.3f})": whole_dice >= FOUND_DICE,
        "enhancing tumour in the core in the whole tumour": all(
            not (inner & ~outer).any() for outer, inner in itertools.pairwise(masks)
        ),
        f"written values {sorted(values)} are the scheme's": values <= {0, *dataset.table.values},
        "SimpleITK reads it on the image's grid": same_grid(image, written),
    }
    for score in (*scores["labels"], *scores["regions"]):
        print(
            f"{score['name']:20} Dice {score['dice']:.3f}  {score['predicted_ml']:7.2f} ml of {score['truth_ml']:.2f}"
        )
    print(f"predict {seconds:.0f} s with starting up; everything is kept in {output}")
    for what, kept in checks.items():
        print("yes" if kept else "NO ", what)
    return int(not all(checks.values()))


if __name__ == "__main__":
    sys.exit(main())
