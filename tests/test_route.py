"""The whole route of the data on two tiny cases: file to case to model to prediction to correction and round again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch

from napari_seg3d.cases.corrections import save_correction
from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.cases.fingerprint import fingerprint
from napari_seg3d.comparison.difference import difference_map, disagreements
from napari_seg3d.comparison.report import compare
from napari_seg3d.events import result_of
from napari_seg3d.model.checkpoint import load_model
from napari_seg3d.model.planner import make_plan
from napari_seg3d.prediction.predict import predict_many
from napari_seg3d.training.loop import resume, train
from napari_seg3d.volumes.files import read_label_map, write_label_map, write_volume

#: As small as a U-Net gets, so that the route takes seconds.
SMALL = {
    "steps_per_epoch": 4,
    "network": {
        "name": "unet",
        "widths": (4, 8, 16),
        "kernels": ((3, 3, 3),) * 3,
        "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2)),
    },
    "patch_voxels": (16, 16, 8),
}
CHILD = """
import sys
from pathlib import Path
from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.model.plan import Plan
from napari_seg3d.training.loop import train
folder = Path(sys.argv[1])
cases = list(open_dataset(folder / "study"))
plan = Plan.from_json((folder / "plan.json").read_text())
for event in train(plan, cases[:2], folder / "run", validation=cases[2:], threads=1):
    print(type(event).__name__, flush=True)
"""


@pytest.fixture
def study(tmp_path: Path, tiny_case) -> Path:
    """Three cases on disk, one folder each, with awkward label values."""
    for number in range(3):
        case = tiny_case(number, values=(3, 7))
        folder = tmp_path / "study" / case.id
        folder.mkdir(parents=True)
        for name, volume in case.modalities.items():
            write_volume(folder / f"{case.id}_{name.lower()}.nii.gz", volume)
        write_label_map(folder / f"{case.id}_seg.nii.gz", case.truth)
    return tmp_path / "study"


def killed_after_a_checkpoint(folder: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("EpochDone"):
            break
    os.kill(child.pid, signal.SIGKILL)
    child.stdout.close()
    child.wait()


@pytest.mark.slow
def test_the_whole_route(tmp_path: Path, study: Path) -> None:
    # Folder -> cases -> fingerprint -> plan.
    dataset = open_dataset(study)
    assert not dataset.problems
    cases = list(dataset)
    plan = make_plan(result_of(fingerprint(cases)), epochs=3, device="cpu", changes=SMALL)
    assert [label.value for label in plan.labels] == [3, 7]

    # Cases -> model, with a kill in the middle that costs nothing.
    (tmp_path / "plan.json").write_text(plan.to_json())
    killed_after_a_checkpoint(tmp_path)
    run = result_of(resume(tmp_path / "run", cases, threads=1))
    whole = result_of(train(plan, cases[:2], tmp_path / "whole", validation=cases[2:], threads=1))
    ours, theirs = load_model(run / "last.safetensors").weights, load_model(whole / "last.safetensors").weights
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())

    # Case + model -> a file on the case's own grid, in its own values.
    (predicted_path,) = result_of(predict_many(cases[2:], run, tmp_path / "predictions"))
    image_path = cases[2].modalities[plan.modalities[0]].path
    np.testing.assert_array_equal(nib.load(predicted_path).affine, nib.load(image_path).affine)
    there, here = SimpleITK.ReadImage(str(predicted_path)), SimpleITK.ReadImage(str(image_path))
    assert there.GetSize() == here.GetSize()
    assert there.GetDirection() == pytest.approx(here.GetDirection(), abs=1e-6)
    predicted, truth = read_label_map(predicted_path), cases[2].load().truth
    assert set(np.unique(predicted.data)) <= {0, 3, 7}

    # Labels against truth.
    scores = compare(predicted, truth)
    assert 0 <= scores.mean_dice <= 1
    errors = difference_map(predicted.data, truth.data)
    found = disagreements(errors, truth.geometry)
    assert sum(d.voxels for d in found) == np.count_nonzero(predicted.data != truth.data)

    # Corrected, saved, preferred over the older truth, and learned from.
    corrected = truth.data.copy()
    corrected[10, 13, 6] = 0 if corrected[10, 13, 6] else 3
    save_correction(tmp_path / "corrections", cases[2].id, truth.with_data(corrected), based_on=truth, author="route")
    again = open_dataset(study, corrections=tmp_path / "corrections")
    case = again[cases[2].id].load()
    assert np.array_equal(case.truth.data, corrected)
    assert case.truth.geometry == truth.geometry
    tuned = make_plan(result_of(fingerprint(list(again))), start=plan, epochs=1, device="cpu")
    better = result_of(train(tuned, list(again), tmp_path / "tuned", start=run, threads=1))
    assert load_model(better).plan.network == plan.network
    # The user's own folder is as it was.
    assert sorted(path.name for path in study.rglob("*") if path.is_file()) == sorted(
        f"{case.id}_{part}.nii.gz" for case in cases for part in ("flair", "t1c", "seg")
    )
