"""A prediction lies on the case's own grid, as other programs see it."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch

from napari_seg3d.cases.case import CaseFiles, ImageFile
from napari_seg3d.errors import Seg3dError
from napari_seg3d.events import Failed, Finished, Progress, Saved, Warned, result_of
from napari_seg3d.model.checkpoint import Model
from napari_seg3d.model.networks import build_network
from napari_seg3d.prediction.predict import CERTAIN, predict, predict_many
from napari_seg3d.volumes.files import write_volume

REGIONS = {
    "targets": "regions",
    "regions": [
        {"name": "whole tumour", "values": (1, 2), "color": "#f7d038"},
        {"name": "enhancing tumour", "values": (2,), "color": "#49c6f2"},
    ],
}


@pytest.fixture(scope="module")
def model(tiny_plan):
    torch.manual_seed(0)
    plan = tiny_plan()
    return Model(plan, build_network(plan).state_dict())


@pytest.fixture
def case_files(tmp_path, tiny_case):
    def write(number=0):
        case = tiny_case(number)
        for name, volume in case.modalities.items():
            write_volume(tmp_path / f"{case.id}_{name}.nii.gz", volume)
        return CaseFiles(case.id, {n: ImageFile(tmp_path / f"{case.id}_{n}.nii.gz") for n in case.modalities})

    return write


def test_one_case(tiny_case, model):
    events = list(predict(tiny_case(0), model))
    assert sum(isinstance(e, Finished | Failed) for e in events) == 1
    prediction = events[-1].result
    assert prediction.label_map.geometry == tiny_case(0).geometry
    assert prediction.label_map.data.dtype == np.uint8
    assert [label.name for label in prediction.label_map.table] == ["oedema", "enhancing tumour"]
    progress = [e for e in events if isinstance(e, Progress) and e.total]
    assert progress[-1].done == progress[-1].total > 1


def test_probabilities_and_uncertainty_agree_with_the_labels(tiny_case, model):
    prediction = result_of(predict(tiny_case(0), model, probabilities=True, uncertainty=True))
    maps = np.stack([v.data for v in prediction.probabilities.values()])
    assert list(prediction.probabilities) == ["oedema", "enhancing tumour"]
    everything = np.concatenate([1 - maps.sum(0, keepdims=True), maps])
    assert np.array_equal(everything.argmax(0), prediction.label_map.data)
    assert 0 <= prediction.uncertainty.data.min() <= prediction.uncertainty.data.max() <= 1


def test_logits_are_what_probabilities_and_labels_come_from(tiny_case, model):
    case = tiny_case(0)
    prediction = result_of(predict(case, model, logits=True, probabilities=True))
    assert list(prediction.logits) == ["background", "oedema", "enhancing tumour"]
    maps = np.stack([volume.data for volume in prediction.logits.values()])
    assert maps.dtype == np.float32
    assert all(volume.geometry == case.geometry for volume in prediction.logits.values())
    assert np.array_equal(maps.argmax(0), prediction.label_map.data)
    probabilities = torch.from_numpy(maps).softmax(0).numpy()
    for number, volume in enumerate(prediction.probabilities.values(), start=1):
        assert probabilities[number] == pytest.approx(volume.data, abs=1e-6)
    # They are the network's own numbers, not normalised in any way.
    assert np.ptp(maps.sum(0)) > 0.01
    assert result_of(predict(case, model)).logits is None


def test_logits_of_regions_and_of_what_was_not_looked_at(tiny_case, tiny_plan):
    torch.manual_seed(0)
    plan = tiny_plan(**REGIONS)
    case = tiny_case(0)
    prediction = result_of(
        predict(case, Model(plan, build_network(plan).state_dict()), logits=True, probabilities=True,
                roi=(slice(0, 10), slice(None), slice(None)))
    )  # fmt: skip
    assert list(prediction.logits) == list(plan.output_names) == list(prediction.probabilities)
    for name, volume in prediction.logits.items():
        assert 1 / (1 + np.exp(-volume.data)) == pytest.approx(prediction.probabilities[name].data, abs=1e-6)
        assert (volume.data[-3:] == -CERTAIN).all()


def test_logits_of_several_models_are_logarithms_of_the_mean(tiny_case, tiny_plan, model):
    torch.manual_seed(1)
    plan = tiny_plan()
    other = Model(plan, build_network(plan).state_dict())
    case = tiny_case(0)
    together = result_of(predict(case, (model, other), logits=True))
    alone = [result_of(predict(case, each, probabilities=True)).probabilities["oedema"].data for each in (model, other)]
    assert np.exp(together.logits["oedema"].data) == pytest.approx(np.mean(alone, axis=0), abs=1e-5)


def test_mirrors_average_to_something_symmetric(tiny_case, model):
    plain = result_of(predict(tiny_case(0), model))
    mirrored = result_of(predict(tiny_case(0), model, mirrors=True))
    assert mirrored.label_map.geometry == plain.label_map.geometry
    assert not np.array_equal(mirrored.label_map.data, plain.label_map.data)


def test_outside_a_box_is_background(tiny_case, model):
    roi = (slice(3, 15), slice(6, 20), slice(2, 9))
    inside = np.zeros(tiny_case(0).geometry.shape, bool)
    inside[roi] = True
    data = result_of(predict(tiny_case(0), model, roi=roi)).label_map.data
    assert not data[~inside].any()
    assert data[inside].any()


def test_files_are_on_the_same_grid_for_other_programs(tmp_path, case_files, model):
    files = [case_files(0), case_files(1)]
    events = list(predict_many(files, model, tmp_path / "out"))
    written = events[-1].result
    assert [path.name for path in written] == ["case00.nii.gz", "case01.nii.gz"]
    assert sum(isinstance(e, Saved) for e in events) == 2
    for path, case in zip(written, files, strict=True):
        source = case.modalities["FLAIR"].path
        ours, theirs = nib.load(path), nib.load(source)
        np.testing.assert_array_equal(ours.affine, theirs.affine)
        assert (ours.header["sform_code"], ours.header["qform_code"]) == (
            theirs.header["sform_code"], theirs.header["qform_code"],
        )  # fmt: skip
        assert ours.get_data_dtype() == np.uint8
        label, image = SimpleITK.ReadImage(str(path)), SimpleITK.ReadImage(str(source))
        assert label.GetSize() == image.GetSize()
        assert label.GetDirection() == pytest.approx(image.GetDirection(), abs=1e-6)
        assert label.GetOrigin() == pytest.approx(image.GetOrigin(), abs=1e-4)
        sidecar = (tmp_path / "out" / f"{case.id}.json").read_text()
        assert json.loads(sidecar)["inputs"] == {"FLAIR": f"{case.id}_FLAIR.nii.gz", "T1c": f"{case.id}_T1c.nii.gz"}
        assert str(tmp_path) not in sidecar  # folders can carry names


def test_predictions_are_not_overwritten_silently(tmp_path, case_files, model):
    files = [case_files(0)]
    result_of(predict_many(files, model, tmp_path / "out"))
    before = (tmp_path / "out" / "case00.nii.gz").read_bytes()
    with pytest.raises(Seg3dError, match="there already"):
        result_of(predict_many(files, model, tmp_path / "out"))
    assert (tmp_path / "out" / "case00.nii.gz").read_bytes() == before
    result_of(predict_many(files, model, tmp_path / "out", overwrite=True))


def test_a_case_that_fails_does_not_stop_the_others(tmp_path, case_files, model):
    broken = case_files(1)
    path = broken.modalities["FLAIR"].path
    path.write_bytes(path.read_bytes()[:200])
    events = list(predict_many([broken, case_files(0)], model, tmp_path / "out"))
    assert [e.message for e in events if isinstance(e, Warned) and "case01_FLAIR.nii.gz" in e.message]
    assert [path.name for path in events[-1].result] == ["case00.nii.gz"]


def test_a_case_without_the_models_images_is_refused_before_reading(tmp_path, case_files, model):
    lacking = replace(case_files(0), modalities={"FLAIR": ImageFile(tmp_path / "absent.nii.gz")})
    (event,) = [e for e in predict(lacking, model) if isinstance(e, Failed)]
    assert event.message == "The model wants FLAIR, T1c; case case00 has FLAIR. Missing: T1c."


def test_closing_ends_a_prediction_at_once(tiny_case, model):
    events = predict(tiny_case(0), model)
    next(events)
    next(events)
    events.close()
    assert list(events) == []
