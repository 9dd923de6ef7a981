"""Scores of a case, and of a folder."""

from __future__ import annotations

import json
import time
from math import isnan
from pathlib import Path

import nibabel
import numpy as np
import pytest

from napari_seg3d.cases.labels import BRATS_2012_2016, Region
from napari_seg3d.comparison.report import Table, compare, evaluate
from napari_seg3d.comparison.surface import surface_distances
from napari_seg3d.errors import GeometryError, Seg3dError
from napari_seg3d.events import Finished, Progress, Warned, result_of
from napari_seg3d.volumes.files import write_volume
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume

from .conftest import nested_labels, oblique_geometry, write_labels


def test_classes_and_regions_are_scored(predicted: LabelMap, truth: LabelMap) -> None:
    scores = compare(predicted, truth, case="a")
    assert [s.name for s in scores.by_label] == ["oedema", "non-enhancing tumour", "enhancing tumour"]
    assert [(s.name, s.values) for s in scores.by_region] == [
        ("whole tumour", (1, 2, 3)),
        ("tumour core", (2, 3)),
        ("enhancing tumour", (3,)),
    ]
    whole, enhancing = scores.by_region[0], scores.by_label[2]
    # A box of 11 voxels shifted by 1 along X; one of 3 voxels likewise.
    assert whole.dice == pytest.approx(10 / 11)
    assert whole.iou == pytest.approx(10 / 12)
    assert enhancing.dice == pytest.approx(2 / 3)
    assert whole.hd_mm == whole.hd95_mm == pytest.approx(0.9)
    assert whole.truth_ml == pytest.approx(11 * 13 * 7 * 0.9 * 1.2 * 2.5 / 1000)
    assert whole.difference_ml == 0
    assert scores.mean_dice == pytest.approx(np.mean([s.dice for s in scores.by_label]))
    assert scores.mean_region_dice == pytest.approx(np.mean([s.dice for s in scores.by_region]))
    assert enhancing.color == truth.table[3].color


def test_distances_are_those_of_each_class_alone(predicted: LabelMap, truth: LabelMap) -> None:
    scores = compare(predicted, truth, tolerance_mm=0.5)
    for score in (*scores.by_label, *scores.by_region):
        alone = surface_distances(
            np.isin(predicted.data, score.values),
            np.isin(truth.data, score.values),
            truth.geometry.spacing_mm,
            tolerance_mm=0.5,
        )
        measured = (score.hd_mm, score.hd95_mm, score.mean_surface_mm, score.surface_dice)
        assert measured == (alone.hd_mm, alone.hd95_mm, alone.mean_mm, alone.surface_dice)


def test_regions_can_be_chosen_or_left_out(predicted: LabelMap, truth: LabelMap) -> None:
    assert compare(predicted, truth, regions=()).by_region == ()
    inner = Region("inner", (2, 3), "#808080")
    assert [s.name for s in compare(predicted, truth, regions=(inner,)).by_region] == ["inner"]


def test_without_surface_no_distance_is_measured(predicted: LabelMap, truth: LabelMap) -> None:
    assert all(isnan(s.hd95_mm) for s in compare(predicted, truth, surface=False).by_label)


def test_a_value_that_only_the_prediction_has_is_scored(predicted: LabelMap, truth: LabelMap) -> None:
    data = predicted.data.copy()
    data[0, 0, 0] = 9
    extra = compare(predicted.with_data(data), truth).by_label[-1]
    assert (extra.name, extra.values, extra.dice) == ("label 9", (9,), 0.0)
    assert isnan(extra.hd95_mm)
    assert not extra.absent


def test_a_listed_class_that_is_absent_scores_one_and_says_so(truth: LabelMap) -> None:
    emptied = truth.with_data(np.where(truth.data == 3, 2, truth.data).astype(np.uint8))
    absent = compare(emptied, emptied).by_label[2]
    assert (absent.dice, absent.absent) == (1.0, True)
    assert isnan(absent.mean_surface_mm)


def test_two_empty_maps() -> None:
    empty = LabelMap(np.zeros((3, 4, 5), np.uint8), Geometry.with_spacing((3, 4, 5)))
    scores = compare(empty, empty)
    assert scores.by_label == ()
    assert isnan(scores.mean_dice)


def test_other_grids_are_refused(predicted: LabelMap, truth: LabelMap) -> None:
    affine = truth.geometry.affine_voxel_to_world.copy()
    affine[0, 3] += 3
    moved = LabelMap(predicted.data, Geometry(predicted.data.shape, affine), truth.table)
    with pytest.raises(GeometryError, match=r"truth's grid \(the grids lie up to 3 mm apart\).*resample"):
        compare(moved, truth)
    smaller = LabelMap(predicted.data[1:], Geometry(predicted.data[1:].shape, affine), truth.table)
    with pytest.raises(GeometryError, match="shape 19×23×11 against 18×23×11"):
        compare(smaller, truth)


def test_on_a_sheared_grid_distances_are_stated_as_missing(predicted: LabelMap, truth: LabelMap) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 1] = 0.2
    sheared = Geometry(truth.geometry.shape, affine)
    scores = compare(LabelMap(predicted.data, sheared), LabelMap(truth.data, sheared, truth.table))
    assert scores.by_region[0].dice == pytest.approx(10 / 11)
    assert all(isnan(s.hd_mm) for s in scores.by_label)
    assert "not perpendicular" in scores.notes[0]


def _folders(root: Path) -> tuple[Path, Path]:
    """Predictions b, c, d and truths a, b, c; b is perfect, c misses everything."""
    labels = nested_labels()
    write_labels(root / "predictions" / "b.nii.gz", labels)
    write_labels(root / "predictions" / "c.nii", np.zeros_like(labels))
    write_labels(root / "predictions" / "d.nii.gz", labels)
    (root / "predictions" / "b.json").write_text(json.dumps({"model": "m"}))
    (root / "predictions" / "._b.nii.gz").write_text("what macOS leaves behind")
    for case in "abc":
        write_labels(root / "truths" / f"{case}.nii.gz", labels)
    return root / "predictions", root / "truths"


def test_files_are_matched_by_case(tmp_path: Path) -> None:
    events = list(evaluate(*_folders(tmp_path)))
    assert [e.what for e in events if isinstance(e, Progress)] == ["Comparing b", "Comparing c"]
    assert isinstance(events[-1], Finished)
    table = events[-1].result
    assert [(case.case, case.mean_dice) for case in table.cases] == [("b", 1.0), ("c", 0.0)]
    assert table.mean_dice == 0.5
    assert table.predictions_without_truth == ("d",)
    assert table.truths_without_prediction == ("a",)
    assert not table.failed


def test_the_summary_counts_what_a_mean_leaves_out(tmp_path: Path) -> None:
    table = result_of(evaluate(*_folders(tmp_path)))
    first = table.summaries()[0]
    assert (first.name, first.cases, first.mean_dice, first.lowest_dice) == ("label 1", 2, 0.5, 0.0)
    # c predicts nothing, so it has no distance; b has distance 0.
    assert (first.mean_hd95_mm, first.without_distance, first.absent) == (0.0, 1, 0)
    assert first.sd_dice == pytest.approx(np.std([0, 1], ddof=1))
    assert first.mean_difference_ml < 0


def test_truths_may_be_a_dataset(tmp_path: Path) -> None:
    predictions, truths = _folders(tmp_path)
    root = tmp_path / "Task01_Tumour"
    for case in "abc":
        image = np.random.default_rng(0).normal(size=nested_labels().shape).astype(np.float32)
        (root / "imagesTr").mkdir(parents=True, exist_ok=True)
        nibabel.save(
            nibabel.Nifti1Image(image, oblique_geometry().affine_voxel_to_world), root / "imagesTr" / f"{case}.nii.gz"
        )
        write_labels(root / "labelsTr" / f"{case}.nii.gz", nested_labels())
    (root / "dataset.json").write_text(
        json.dumps(
            {
                "modality": {"0": "FLAIR"},
                "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
                "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in "abc"],
                "test": [],
            }
        )
    )
    table = result_of(evaluate(predictions, root))
    assert [case.case for case in table.cases] == ["b", "c"]
    assert [s.name for s in table.cases[0].by_region] == ["whole tumour", "tumour core", "enhancing tumour"]
    assert [s.name for s in table.summaries()][:2] == ["edema", "non-enhancing tumor"]
    # The folder of its label files does as well.
    assert result_of(evaluate(predictions, root / "labelsTr")).mean_dice == table.mean_dice
    assert truths.is_dir()


def test_another_label_scheme_is_warned_of(tmp_path: Path) -> None:
    predictions, truths = _folders(tmp_path)
    names = {"1": "oedema", "2": "necrosis", "3": "enhancing tumour"}
    (predictions / "b.json").write_text(json.dumps({"labels": names}))
    # Where the truth tells no names, those of the prediction are taken.
    table = result_of(evaluate(predictions, truths))
    assert [score.name for score in table.cases[0].by_label] == list(names.values())
    dataset = tmp_path / "study"
    for case in "ab":
        write_labels(dataset / "labels" / f"{case}.nii.gz", nested_labels())
        write_labels(dataset / "images" / f"{case}.nii.gz", nested_labels())
    own = {"1": "edema", "2": "resection cavity", "3": "enhancing tumour"}
    (dataset / "labels.json").write_text(json.dumps({"labels": own}))
    warnings = [event.message for event in evaluate(predictions, dataset) if isinstance(event, Warned)]
    assert warnings == [
        "b: the prediction means something else by label 2 (necrosis against resection cavity). Check the label scheme."
    ]


def test_maps_beside_predictions_are_no_predictions(tmp_path: Path) -> None:
    predictions, truths = _folders(tmp_path)
    for name in ("b.uncertainty.nii.gz", "b.probability-whole-tumour.nii.gz", "b.logits-background.nii.gz"):
        write_labels(predictions / name, nested_labels())
    table = result_of(evaluate(predictions, truths))
    assert table.predictions_without_truth == ("d",)


def test_two_named_files_belong_together(tmp_path: Path) -> None:
    predictions, truths = _folders(tmp_path)
    table = result_of(evaluate(predictions / "d.nii.gz", truths / "a.nii.gz"))
    assert [(case.case, case.mean_dice) for case in table.cases] == [("d", 1.0)]


def test_a_case_that_cannot_be_compared_does_not_stop_the_others(tmp_path: Path) -> None:
    predictions, truths = _folders(tmp_path)
    write_labels(predictions / "a.nii.gz", nested_labels()[1:])
    (predictions / "b.nii.gz").write_bytes((predictions / "b.nii.gz").read_bytes()[:60])
    events = list(evaluate(predictions, truths))
    table = events[-1].result
    assert isinstance(table, Table)
    assert [case.case for case in table.cases] == ["c"]
    assert set(table.failed) == {"a", "b"}
    assert [e.message for e in events if isinstance(e, Warned)] == list(table.failed.values())
    assert "shape" in table.failed["a"]
    assert "b.nii.gz" in table.failed["b"]


def test_nothing_in_common_is_an_error_in_words(tmp_path: Path) -> None:
    predictions, truths = _folders(tmp_path)
    for case in "bc":
        (truths / f"{case}.nii.gz").unlink()
    with pytest.raises(Seg3dError, match="predictions are b, c, d, truths a"):
        result_of(evaluate(predictions, truths))
    with pytest.raises(Seg3dError, match="no file or folder"):
        result_of(evaluate(tmp_path / "nowhere", truths))
    (tmp_path / "empty").mkdir()
    with pytest.raises(Seg3dError, match="no label files"):
        result_of(evaluate(tmp_path / "empty", truths))


@pytest.mark.real_data
def test_all_labels_of_a_brain_within_a_second(shared_data: Path) -> None:
    path = next((shared_data / "BraTS2013").glob("*0001*/OTMultiClass.nii.gz"))
    image = nibabel.load(path)
    data = np.asarray(image.dataobj).astype(np.uint8)
    geometry = Geometry(data.shape, image.affine)
    truth = LabelMap(data, geometry, BRATS_2012_2016.table)
    predicted = LabelMap(np.roll(data, (2, -1, 1), (0, 1, 2)), geometry, BRATS_2012_2016.table)
    started = time.perf_counter()
    scores = compare(predicted, truth)
    elapsed = time.perf_counter() - started
    assert len(scores.by_label) == 4
    assert len(scores.by_region) == 3
    # About 0.4 s on a quiet core; the tests share theirs.
    assert elapsed < 2.0


def test_unnamed_values_get_plain_names() -> None:
    data = np.array([[[0, 5, 5]]], np.uint8)
    labels = LabelMap(data, Geometry.with_spacing((1, 1, 3)), LabelTable())
    assert [s.name for s in compare(labels, labels).by_label] == ["label 5"]


def test_voxel_accuracy_comes_with_that_of_all_background(predicted: LabelMap, truth: LabelMap) -> None:
    scores = compare(predicted, truth)
    assert scores.voxel_accuracy == pytest.approx(np.mean(predicted.data == truth.data))
    assert scores.background_accuracy == pytest.approx(np.mean(truth.data == 0))
    # System D's lesson: the accuracy of an answer without any label looks excellent.
    nothing = compare(truth.with_data(np.zeros_like(truth.data)), truth)
    assert nothing.voxel_accuracy == nothing.background_accuracy
    assert nothing.mean_dice == 0


def test_labelling_nothing_is_right_only_where_there_is_nothing(truth: LabelMap) -> None:
    without = truth.with_data(np.where(truth.data == 3, 2, truth.data))
    (nothing,) = compare(truth, without).baselines
    assert list(nothing.dice.values()) == [0.0, 0.0, 1.0]
    assert nothing.region_dice == {"whole tumour": 0.0, "tumour core": 0.0, "enhancing tumour": 1.0}


def test_the_best_threshold_is_found_where_images_are_known(tmp_path: Path) -> None:
    labels, geometry = nested_labels(), oblique_geometry()
    bright = Volume((100.0 * (labels == 2) + 10).astype(np.float32), geometry)
    for folder in ("images", "labels"):
        (tmp_path / "study" / folder).mkdir(parents=True)
    write_volume(tmp_path / "study" / "images" / "a.nii.gz", bright)
    write_labels(tmp_path / "study" / "labels" / "a.nii.gz", labels)
    write_labels(tmp_path / "predictions" / "a.nii.gz", labels)
    table = result_of(evaluate(tmp_path / "predictions", tmp_path / "study"))
    (scores,) = table.cases
    assert scores.threshold.dice["label 2"] == 1.0
    assert scores.threshold.dice["label 1"] < 0.8
    assert table.baselines()[1].mean_dice == scores.threshold.mean_dice
    skipped = result_of(evaluate(tmp_path / "predictions", tmp_path / "study", thresholds=False))
    assert [each.name for each in skipped.baselines()] == ["all background"]
    # An image that cannot be read costs the threshold, not the scores.
    (tmp_path / "study" / "images" / "a.nii.gz").write_bytes(b"no image")
    damaged = result_of(evaluate(tmp_path / "predictions", tmp_path / "study"))
    assert damaged.mean_dice == 1.0
    assert damaged.cases[0].threshold is None
    assert "No best threshold" in damaged.cases[0].notes[0]
