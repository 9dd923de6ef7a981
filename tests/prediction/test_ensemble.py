"""Several models predict by the mean of their probabilities; what does not belong together is refused."""

from __future__ import annotations

import json
import weakref

import numpy as np
import pytest
import torch

from napari_seg3d.cases.case import CaseFiles, ImageFile
from napari_seg3d.errors import Seg3dError
from napari_seg3d.events import Progress, result_of
from napari_seg3d.model.checkpoint import Model, load_model, save_model
from napari_seg3d.model.members import members_of, output_order
from napari_seg3d.model.networks import build_network
from napari_seg3d.prediction import ensemble as ensemble_module
from napari_seg3d.prediction.ensemble import Ensemble
from napari_seg3d.prediction.predict import predict, predict_many
from napari_seg3d.volumes.files import write_volume


@pytest.fixture(scope="module")
def make(tiny_plan):
    def model(seed, **changes):
        torch.manual_seed(seed)
        plan = tiny_plan(**changes)
        return Model(plan, build_network(plan).state_dict())

    return model


def probabilities(case, model, **options):
    prediction = result_of(predict(case, model, probabilities=True, **options))
    return prediction, np.stack([volume.data for volume in prediction.probabilities.values()])


def test_the_mean_of_the_probabilities_decides(tiny_case, make):
    case, models = tiny_case(0), [make(seed) for seed in range(3)]
    each = [probabilities(case, model)[1] for model in models]
    together, maps = probabilities(case, models)
    np.testing.assert_allclose(maps, np.mean(each, axis=0), atol=2e-6)
    everything = np.concatenate([1 - maps.sum(0, keepdims=True), maps])
    assert np.array_equal(everything.argmax(0), together.label_map.data)


def test_regions_are_averaged_one_by_one(tiny_case, make):
    regions = [
        {"name": "whole tumour", "values": [1, 2], "color": "#49c6f2"},
        {"name": "enhancing", "values": [2], "color": "#ff0000"},
    ]
    case, models = tiny_case(0), [make(seed, targets="regions", regions=regions) for seed in range(2)]
    each = [probabilities(case, model)[1] for model in models]
    together, maps = probabilities(case, models)
    np.testing.assert_allclose(maps, np.mean(each, axis=0), atol=2e-6)
    assert np.array_equal(maps[0] > 0.5, together.label_map.data > 0)
    # The same regions in another order mean the same.
    swapped = make(1, targets="regions", regions=regions[::-1])
    assert output_order(swapped.plan, models[0].plan) == [1, 0]
    one, other = probabilities(case, [swapped, models[0]])[1], probabilities(case, [models[0], swapped])[1]
    np.testing.assert_allclose(one[::-1], other, atol=2e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_members_on_other_grids_are_averaged_on_the_cases_own(tiny_case, make, reverse):
    case = tiny_case(0)
    models = [make(0), make(1, spacing_mm=(2.0, 2.0, 2.5)), make(2)][:: -1 if reverse else 1]
    each = [probabilities(case, model)[1] for model in models]
    together, maps = probabilities(case, models)
    assert together.label_map.geometry == case.geometry
    # Of a model alone logits are interpolated, here probabilities: these differ a little between two voxels.
    assert np.abs(maps - np.mean(each, axis=0)).mean() < 5e-3
    assert np.corrcoef(maps.ravel(), np.mean(each, axis=0).ravel())[0, 1] > 0.99


def test_the_same_model_twice_says_what_it_says_alone(tiny_case, make):
    model, twin = make(0), make(0)
    alone, both = result_of(predict(tiny_case(0), model)), result_of(predict(tiny_case(0), [model, twin]))
    assert np.array_equal(alone.label_map.data, both.label_map.data)


def test_a_box_counts_for_all_members(tiny_case, make):
    roi = (slice(3, 15), slice(6, 20), slice(2, 9))
    inside = np.zeros(tiny_case(0).geometry.shape, bool)
    inside[roi] = True
    models = [make(0), make(1, spacing_mm=(2.0, 2.0, 2.5))]
    data = result_of(predict(tiny_case(0), models, roi=roi, uncertainty=True)).label_map.data
    assert not data[~inside].any()
    assert data[inside].any()


def test_progress_counts_over_the_members(tiny_case, make):
    events = [e for e in predict(tiny_case(0), [make(0), make(1)]) if isinstance(e, Progress) and e.total]
    done = [event.done for event in events]
    assert done == sorted(done)
    assert (done[-1], events[-1].total) == (2, 2)
    assert {event.what for event in events} == {"Predicting with model 1 of 2", "Predicting with model 2 of 2"}
    assert events[-1].seconds_left == 0


@pytest.fixture
def folds(tmp_path, make):
    """A folder as a cross-validation leaves it, of eleven folds."""
    for fold in range(1, 12):
        (tmp_path / "cv" / f"fold{fold}").mkdir(parents=True)
        save_model(tmp_path / "cv" / f"fold{fold}" / "model.safetensors", make(fold % 3))
    return tmp_path / "cv"


def test_a_cross_validation_is_the_ensemble_of_its_folds(tmp_path, folds, tiny_case):
    assert [path.name for path in members_of(folds)] == [f"fold{fold}" for fold in range(1, 12)]
    assert members_of(folds / "fold1") == (folds / "fold1",)
    case = tiny_case(0)
    for name, volume in case.modalities.items():
        write_volume(tmp_path / f"{name}.nii.gz", volume)
    files = CaseFiles("case00", {name: ImageFile(tmp_path / f"{name}.nii.gz") for name in case.modalities})
    (written,) = result_of(predict_many([files], folds, tmp_path / "out"))
    sidecar = json.loads(written.with_name("case00.json").read_text())
    assert sidecar["model"] == "cv"
    assert [member["model"] for member in sidecar["members"]] == [f"cv fold{fold}" for fold in range(1, 12)]
    assert sidecar["members"][3]["model_sha256"] == load_model(folds / "fold4").sha256
    assert "model_sha256" not in sidecar
    (alone,) = result_of(predict_many([files], folds / "fold2", tmp_path / "alone"))
    sidecar = json.loads(alone.with_name("case00.json").read_text())
    assert (sidecar["model"], sidecar["model_sha256"]) == ("cv fold2", load_model(folds / "fold2").sha256)


def test_large_members_are_never_in_memory_together(folds, monkeypatch):
    def alive(limit):
        monkeypatch.setattr(ensemble_module, "KEPT_BYTES", limit)
        ensemble, seen, most = Ensemble.of(folds), [], 0
        for _, network in ensemble.networks(torch.device("cpu")):
            seen.append(weakref.ref(network))
            most = max(most, sum(reference() is not None for reference in seen))
            del network
        return most

    assert alive(0) == 1
    assert alive(1 << 30) == 11


def test_models_that_do_not_belong_together_are_refused(tiny_case, make, folds):
    labels = [{"value": 1, "name": "cyst", "color": "#49c6f2"}, {"value": 2, "name": "bone", "color": "#ff0000"}]
    with pytest.raises(Seg3dError, match=r"cannot predict together: .* knows the labels 1 cyst, 2 bone; .* oedema"):
        result_of(predict(tiny_case(0), [make(0), make(1, labels=labels)]))
    with pytest.raises(Seg3dError, match=r"wants the images FLAIR; .* has FLAIR, T1c"):
        result_of(predict(tiny_case(0), [make(0), make(1, modalities=("FLAIR",))]))
    with pytest.raises(Seg3dError, match="named twice"):
        result_of(predict(tiny_case(0), [folds, folds / "fold3"]))
    with pytest.raises(Seg3dError, match="No model"):
        result_of(predict(tiny_case(0), []))
    with pytest.raises(Seg3dError, match="Expected a run folder"):
        result_of(predict(tiny_case(0), folds.parent))
