import json

import numpy as np
import pytest

from napari_seg3d.cases.check import check_cases
from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.events import Finished, Progress, result_of

from .conftest import SHAPE, image, labels, oblique_affine, write_nifti


@pytest.fixture
def root(tmp_path):
    """Three sound cases of two modalities with a contrast-enhancing label."""
    for case in ("a", "b", "c"):
        truth = labels(1, 3)
        write_nifti(tmp_path / case / "FLAIR.nii.gz", image(0))
        write_nifti(tmp_path / case / "T1c.nii.gz", image(1) + 100 * (truth == 3))
        write_nifti(tmp_path / case / "seg.nii.gz", truth)
    names = {"1": "oedema", "2": "non-enhancing tumour", "3": "enhancing tumour"}
    (tmp_path / "labels.json").write_text(json.dumps({"labels": names}))
    return tmp_path


def problems_in(root) -> list[tuple[str, str, str]]:
    return [(p.path.name, p.message, p.severity) for p in result_of(check_cases(open_dataset(root)))]


def test_sound_cases_have_one_remark(root):
    ((name, message, severity),) = problems_in(root)
    assert (name, severity) == (root.name, "warning")
    assert message == "No case has a voxel of the label 2 (non-enhancing tumour)."


def test_everything_wrong_is_listed_at_once(root):
    shifted = oblique_affine()
    shifted[0, 3] += 30
    (root / "a/FLAIR.nii.gz").write_bytes((root / "a/FLAIR.nii.gz").read_bytes()[:-50])
    write_nifti(root / "a/seg.nii.gz", labels(1, 3) / 2.0)
    write_nifti(root / "b/T1c.nii.gz", image(1), shifted)
    write_nifti(root / "b/seg.nii.gz", labels(1, 7, 2))
    holes = image(0)
    holes[2, 3, :3] = np.nan
    write_nifti(root / "c/FLAIR.nii.gz", holes)
    write_nifti(root / "c/T1c.nii.gz", np.full(SHAPE, 4, np.int16))
    write_nifti(root / "c/seg.nii.gz", labels(0))
    write_nifti(root / "d/FLAIR.nii.gz", image(0))
    write_nifti(root / "d/T1c.nii.gz", image(0))
    write_nifti(root / "d/seg.nii.gz", labels(1, 3), shifted)
    write_nifti(root / "d/brainmask.nii.gz", image(0))
    found = problems_in(root)
    text = "\n".join(f"{severity} {name}: {message}" for name, message, severity in found)
    for expected in (
        "error FLAIR.nii.gz: Case a: FLAIR cannot be used.",
        "error seg.nii.gz: Case a: the truth cannot be used.",
        "error T1c.nii.gz: Case b: T1c does not lie on the grid of FLAIR (the grids lie up to 30 mm apart).",
        "error seg.nii.gz: Case b: the truth holds the values [7], which have no name",
        "error FLAIR.nii.gz: Case c: FLAIR cannot be used. c/FLAIR.nii.gz has 3 of 270 voxels",
        "warning T1c.nii.gz: Case c: all voxels of T1c have the same value.",
        "warning seg.nii.gz: Case c: the truth has no labelled voxel.",
        "error seg.nii.gz: Case d: the truth does not lie on the grid of the images",
        "error brainmask.nii.gz: Case d: the mask cannot be used.",
    ):
        assert expected in text
    assert len([severity for *_, severity in found if severity == "error"]) == 7


def test_swapped_label_numbers_are_suspected(root):
    write_nifti(root / "b/seg.nii.gz", labels(3, 1))
    suspected = [(name, message) for name, message, _ in problems_in(root) if "another edition" in message]
    assert suspected == [
        ("seg.nii.gz", "Case b: oedema is brighter in T1c than enhancing tumour. "
         "Perhaps the label numbers are those of another edition."),
    ]  # fmt: skip


def test_an_empty_mask_and_labels_outside_of_one(root):
    write_nifti(root / "a/brainmask.nii.gz", np.zeros(SHAPE, np.uint8))
    inside = labels(1, 3) > 0
    inside[0, 0, 1:3] = False
    write_nifti(root / "b/brainmask.nii.gz", inside * 0.99999997)
    messages = [message for name, message, _ in problems_in(root) if name == "brainmask.nii.gz"]
    assert messages == ["Case a: the mask is empty and is not used.", "Case b: 2 labelled voxels lie outside the mask."]


def test_unlabelled_cases_are_fine(root):
    for case in ("a", "b", "c"):
        (root / case / "seg.nii.gz").unlink()
    assert problems_in(root) == []


def test_events(root):
    events = list(check_cases(open_dataset(root).cases[:2]))
    assert [(e.done, e.total) for e in events if isinstance(e, Progress)] == [(0, 2), (1, 2), (2, 2)]
    assert isinstance(events[-1], Finished)
    assert events[-1].message == "2 cases were read: 0 errors, 1 warnings."


@pytest.mark.real_data
def test_real_studies(shared_data):
    assert result_of(check_cases(open_dataset(shared_data / "Task04_Hippocampus").cases[:20])) == ()
    (problem,) = result_of(check_cases([open_dataset(shared_data / "BraTS2013")["brats_2013_pat0006_1"]]))
    assert problem.message.endswith("481 labelled voxels lie outside the mask.")
