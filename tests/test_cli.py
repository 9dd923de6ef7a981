"""The commands, end to end on tiny studies: what they print where, what they write, how they fail and how they stop."""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from napari_seg3d.cases.case import Case, CaseFiles, ImageFile
from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.cli import FIGURES, box_of, main, make_parser, positive, seconds_of, setting_of
from napari_seg3d.cli.inputs import FEWEST_TO_VALIDATE, cases_to_predict, training_split
from napari_seg3d.cli.terminal import JobFailedError, StoppedError, Terminal, duration, follow, in_words
from napari_seg3d.comparison.gallery import KINDS
from napari_seg3d.errors import DatasetError, Seg3dError
from napari_seg3d.events import EpochDone, Event, Failed, Finished, Progress, Saved, Step, Validated, Warned, job
from napari_seg3d.volumes.files import write_label_map, write_volume

#: A network that trains in a blink.
SMALL = (
    "--set=network.widths=4,8",
    "--set=network.kernels=[[3,3,3],[3,3,3]]",
    "--set=network.strides=[[1,1,1],[2,2,2]]",
    "--set=patch_voxels=16,16,8",
    "--set=steps_per_epoch=2",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny_case: Callable[..., Case]) -> Path:
    """Five labelled cases and one without truth, a folder each, with the label names beside them."""
    root = tmp_path_factory.mktemp("study")
    for number in range(6):
        case = tiny_case(number)
        for name, volume in case.modalities.items():
            (root / case.id).mkdir(exist_ok=True)
            write_volume(root / case.id / f"{case.id}_{name}.nii.gz", volume)
        if number < 5 and case.truth is not None:
            write_label_map(root / case.id / f"{case.id}_seg.nii.gz", case.truth)
    (root / "labels.json").write_text(json.dumps({"labels": {"1": "oedema", "2": "enhancing tumour"}}))
    return root


@pytest.fixture(scope="module")
def split(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("split") / "split.json"
    path.write_text(json.dumps({"train": ["case00", "case01", "case02"], "validation": ["case03"], "test": ["case04"]}))
    return path


@pytest.fixture(scope="module")
def run(dataset: Path, split: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two short rounds."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", str(dataset), "--output", str(folder), "--split", str(split), "--epochs", "2", *SMALL]) == 0
    return folder


@pytest.fixture(scope="module")
def predictions(dataset: Path, run: Path, split: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predictions")
    assert main(["predict", str(run), str(dataset), "--output", str(folder), "--split", str(split)]) == 0
    return folder


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a failure."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


# ------------------------------------------------------------------------------------------------ arguments


def test_every_public_command_is_there() -> None:
    (commands,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    names = "cache demo evaluate figures inspect learn networks open phantoms plan predict preview recipes runs train"
    assert set(commands.choices) == set(names.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["train", "somewhere"],
        ["train", "a", "--output", "b", "--budget", "10m", "--epochs", "3"],
        ["train", "a", "--output", "b", "--budget", "soon"],
        ["train", "a", "--output", "b", "--set", "batch_size"],
        ["predict", "model", "--output", "b"],
        ["predict", "m", "i", "--output", "o", "--roi", "1:2,3:4"],
        ["figures", "paintings", "p", "--output", "o"],
        ["figures", "slices", "p", "t", "--output", "o", "--slices", "1,x"],
        ["preview", "d", "--output", "o", "--count", "0"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "usage: napari-seg3d" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_and_version_are_status_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "napari-seg3d" in capsys.readouterr().out


def test_values_of_options() -> None:
    assert seconds_of("1h30m") == 5400
    assert seconds_of("2.5m") == 150
    assert box_of(":5,2:,3:4") == (slice(0, 5), slice(2, None), slice(3, 4))
    assert setting_of("augmentation.mirror=left-right,front-back") == (
        "augmentation.mirror",
        ["left-right", "front-back"],
    )
    assert setting_of("epochs=none") == ("epochs", None)
    assert setting_of("learning_rate=1e-3") == ("learning_rate", 0.001)
    for kind, text in ((seconds_of, "0s"), (seconds_of, "10x"), (box_of, "5:5,0:1,0:1"), (box_of, "-1:5,0:1,0:1")):
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)
    for text in ("0", "-1", "inf", "nan", "much"):
        with pytest.raises(argparse.ArgumentTypeError):
            positive(text)


# ------------------------------------------------------------------------------------------------ looking at a dataset


def test_inspect_tells_what_is_there(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(dataset)]) == 0
    text = capsys.readouterr().out
    assert "6, of which 5 can be learned from" in text
    assert "FLAIR, T1c" in text
    assert "1 oedema, 2 enhancing tumour" in text
    assert "21 × 26 × 13 voxels" in text
    assert "1.5 × 1.2 × 2.5 mm" in text
    assert "6 oblique" in text


def test_inspect_as_json(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(dataset), "--json", "--quick"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["modalities"] == ["FLAIR", "T1c"]
    assert content["labelled"] == 5
    assert [label["name"] for label in content["labels"]] == ["oedema", "enhancing tumour"]
    first = content["cases"][0]
    assert (first["id"], first["truth"], first["shape"]) == ("case00", True, [21, 26, 13])
    assert first["spacing_mm"] == pytest.approx([1.5, 1.2, 2.5])


def test_inspect_finds_what_is_damaged(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = _copy_of(dataset, tmp_path)
    damaged = root / "case02" / "case02_T1c.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    assert main(["inspect", str(root), "--json"]) == 0
    problems = json.loads(capsys.readouterr().out)["problems"]
    (found,) = [problem for problem in problems if problem["severity"] == "error"]
    assert found["path"].endswith("case02_T1c.nii.gz")


def test_plan_in_lines_and_as_json(dataset: Path, split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["plan", str(dataset), "--split", str(split), "--budget", "2m", "--set", "batch_size=3"]
    assert main(options) == 0
    text = capsys.readouterr().out
    assert "Batch: 3 patches" in text
    assert "million parameters" in text
    assert main([*options, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["batch_size"], plan["budget_s"]) == (3, 120)


def test_phantoms_are_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, split in (("brain", False), ("objects", True)):
        folder = tmp_path / kind
        assert main(["phantoms", kind, "--output", str(folder), "--count", "2", "--shape", "24,20,16"]) == 0
        assert str(folder) in capsys.readouterr().out
        assert main(["inspect", str(folder), "--json", "--quiet"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["labelled"], found["problems"]) == (2, [])
        assert (folder / "split.json").is_file() == split
        assert main(["phantoms", kind, "--output", str(folder), "--count", "2", "--shape", "24,20,16"]) == 1
        assert "exist" in said(capsys)
    with pytest.raises(SystemExit):
        make_parser().parse_args(["phantoms", "brain", "--output", "x", "--shape", "2,2"])


def test_recipes_and_networks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    assert "unet-brats: " in capsys.readouterr().out
    assert main(["networks", "--json"]) == 0
    networks = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["choices"]}
    assert {"unet", "unetr"} <= set(networks)
    assert all(entry["parameters"] > 1e5 and entry["memory_mb"] > 10 for entry in networks.values())


# ------------------------------------------------------------------------------------------------ learning


def test_train_leaves_a_run_and_says_so(run: Path, dataset: Path) -> None:
    assert (run / "model.safetensors").is_file()
    facts = json.loads((run / "run.json").read_text())
    assert facts["train_ids"] == ["case00", "case01", "case02"]
    assert facts["validation_ids"] == ["case03"]
    assert facts["state"] == "finished"
    # No record tells where somebody's home is.
    assert str(dataset) not in (run / "run.json").read_text()


def test_train_as_json(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", str(dataset), "--output", str(run), "--epochs", "1", "--json", *SMALL]) == 0
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert (content["run"], content["epochs"], content["steps"]) == (str(run), 1, 2)
    assert content["dice"] == {}
    # Of five labelled cases none is kept for validation, and the progress does not disturb the result.
    assert "Training on 5 cases, validating on 0." in captured.err
    assert json.loads((run / "run.json").read_text())["validation_ids"] == []


def test_the_seed_decides_who_validates(dataset: Path) -> None:
    few = open_dataset(dataset)
    assert training_split(few, None, 0).validation == ()
    case = few.labelled[0]
    opened = replace(few, cases=tuple(replace(case, id=f"case{i}", patient=f"{i}") for i in range(FEWEST_TO_VALIDATE)))
    drawn = [training_split(opened, None, seed) for seed in range(8)]
    assert all(len(s.train) == FEWEST_TO_VALIDATE - 1 and len(s.validation) == 1 for s in drawn)
    assert len({s.validation[0].id for s in drawn}) > 1
    assert training_split(opened, None, 3) == training_split(opened, None, 3)


def test_test_cases_are_never_touched(dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["case00", "case01", "case02", "case03", "case05"], "test": ["case04"]}))
    split = training_split(open_dataset(dataset), path, 0)
    used = {case.id for case in (*split.train, *split.validation)}
    # case05 has no truth.
    assert used == {"case00", "case01", "case02", "case03"}
    path.write_text(json.dumps({"train": ["case00", "case01"], "validation": ["case02"], "test": ["case04"]}))
    assert [case.id for case in training_split(open_dataset(dataset), path, 0).validation] == ["case02"]


def test_folds_are_trained_one_after_the_other_and_judged_together(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, options = tmp_path / "cv", ["--epochs", "1", *SMALL]
    train = ["train", str(dataset), "--output", str(folder)]
    # One alone, as a cluster would do, then the rest.
    one = ["train", str(dataset), "--output", str(folder / "fold2"), "--folds", "2", "--fold", "2", "--json"]
    assert main([*one, *options]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert main([*train, "--folds", "2", *options]) == 1
    assert "not empty" in said(capsys)
    assert main([*train, "--folds", "2", "--resume"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split()[:4] == ["fold", "cases", "mean", "Dice"]
    assert " ± " in out
    stored = json.loads((folder / "cross_validation.json").read_text())
    assert sorted(case["case_id"] for case in stored["judged"]) == [f"case0{i}" for i in range(5)]
    facts = [json.loads((folder / f"fold{k}" / "run.json").read_text()) for k in (1, 2)]
    assert [fact["fold"] for fact in facts] == [1, 2]
    assert (folder / "fold1" / facts[0]["dataset"]).resolve() == dataset.resolve()
    assert main([*train, "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean_dice"]["n"] == 5
    assert main([*train, "--epochs", "3", "--resume"]) == 1
    assert "goes on as it was begun" in said(capsys)
    # Its folds were judged on different cases, so these cannot be compared; together they predict.
    capsys.readouterr()
    assert main(["runs", str(tmp_path), "--json", "--compare", "cv/fold1", "cv/fold2"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in content["runs"]] == ["cv", "cv/fold1", "cv/fold2"]
    assert content["runs"][0]["mean_dice"] == pytest.approx(stored["mean_dice"]["mean"])
    assert "different cases" in content["comparison"]["problems"][0]
    assert main(["runs", str(tmp_path)]) == 0
    assert "cv/fold2" in capsys.readouterr().out
    assert main(["runs", str(tmp_path), "--compare", "cv", "nothing"]) == 1
    assert "no run nothing" in said(capsys)
    output = tmp_path / "out"
    assert main(["predict", str(folder), str(dataset), "--cases", "case05", "--output", str(output)]) == 0
    assert "Mean of 2 models: cv fold1, cv fold2." in capsys.readouterr().err
    both = [str(folder / "fold2"), str(dataset), "--cases", "case05", "--ensemble", str(folder / "fold1")]
    assert main(["predict", *both, "--output", str(tmp_path / "again")]) == 0
    one, other = (nibabel.load(path / "case05.nii.gz").get_fdata() for path in (output, tmp_path / "again"))
    np.testing.assert_array_equal(one, other)
    assert main([*train, "--folds", "3", "--resume"]) == 1
    assert "has 2 folds" in said(capsys)
    assert main([*train, "--fold", "1", *options]) == 1
    assert "--folds how many" in said(capsys)


def test_the_test_cases_of_a_split_are_in_no_fold(dataset: Path, split: Path, tmp_path: Path) -> None:
    options = ["--folds", "4", "--split", str(split), "--epochs", "1", "--set=steps_per_epoch=1", *SMALL[:-1]]
    assert main(["train", str(dataset), "--output", str(tmp_path / "cv"), *options]) == 0
    stored = json.loads((tmp_path / "cv" / "cross_validation.json").read_text())
    assert sorted(case["case_id"] for case in stored["judged"]) == ["case00", "case01", "case02", "case03"]
    assert json.loads((tmp_path / "cv" / "fold3" / "run.json").read_text())["test_ids"] == ["case04"]


def test_a_full_folder_is_not_trained_into(dataset: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "model.safetensors").read_bytes()
    assert main(["train", str(dataset), "--output", str(run), "--epochs", "1"]) == 1
    assert "is not empty" in said(capsys)
    assert (run / "model.safetensors").read_bytes() == before


def test_a_resumed_run_keeps_its_plan(dataset: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(dataset), "--output", str(run), "--resume", "--seed", "9"]) == 1
    assert "Leave out --seed" in said(capsys)
    assert main(["train", str(dataset), "--output", str(run / "nowhere"), "--resume"]) == 1
    assert "Expected a training run" in said(capsys)


def test_an_unknown_setting_is_answered_with_those_there_are(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(dataset), "--output", str(tmp_path / "run"), "--set", "batchsize=3"]) == 1
    message = said(capsys)
    assert "batchsize" in message
    assert "batch_size" in message
    assert not (tmp_path / "run").exists()


def test_choices_that_contradict(dataset: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(dataset), "--recipe", "unet-brats", "--network", "unetr"]) == 1
    assert "Leave out --network" in said(capsys)
    assert main(["plan", str(dataset), "--recipe", "magic"]) == 1
    assert "unet-brats" in said(capsys)
    assert main(["plan", str(dataset), "--network", "magic"]) == 1
    assert "unetr" in said(capsys)
    assert main(["plan", str(dataset), "--device", "cuda:77"]) == 1
    assert "cpu" in said(capsys)


def test_fine_tuning_starts_from_a_model(
    dataset: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = tmp_path / "tuned"
    options = ["--from", str(run), "--epochs", "1", "--set=steps_per_epoch=1"]
    assert main(["train", str(dataset), "--output", str(tuned), *options]) == 0
    facts = json.loads((tuned / "run.json").read_text())
    assert facts["start_model"] == json.loads((run / "model.json").read_text())["sha256"]
    assert json.loads((tuned / "plan.json").read_text())["network"]["widths"] == [4, 8]


def test_corrections_are_learned_from(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from napari_seg3d.cases.corrections import save_correction

    case = open_dataset(dataset)["case05"].load()
    truth = open_dataset(dataset)["case04"].load().truth
    assert truth is not None
    corrected = truth.with_data(truth.data)
    save_correction(tmp_path, "case05", _on(corrected, case), based_on=None, author="me", seconds=1.0)
    assert main(["inspect", str(dataset), "--corrections", str(tmp_path), "--json", "--quick"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["labelled"] == 6
    assert content["cases"][5]["corrected"]


def test_learn_keeps_a_better_model_and_says_what_it_was_judged_by(
    dataset: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from napari_seg3d.cases.corrections import save_correction
    from napari_seg3d.correction.queue import ReviewList, State

    corrections, output = tmp_path / "corrections", tmp_path / "runs" / "learned"
    start = ["learn", str(dataset), "--from", str(run), "--output", str(output), "--epochs", "1", "--threads", "1"]
    for name in ("case02", "case03", "case04"):
        truth = open_dataset(dataset)[name].load().truth
        assert truth is not None
        save_correction(corrections, name, truth, based_on=None, author="me", seconds=1.0)
    reviews = ReviewList(corrections, ["case02", "case03", "case04"])
    for name in ("case02", "case04"):
        reviews.set(name, State.CHECKED)
    # One case is still in progress: the two checked ones are too few.
    assert main([*start, "--corrections", str(corrections)]) == 1
    assert "at least 3 checked cases" in said(capsys)
    reviews.set("case03", State.CHECKED)
    assert main([*start, "--corrections", str(corrections), "--json"]) == 0
    lesson = json.loads(capsys.readouterr().out)
    # The run has learned from all but the last one and its own validation case.
    assert set(lesson["after"]) <= {"case03", "case04"}
    assert lesson["kept"] == (lesson["mean_after"] > lesson["mean_before"]) == output.is_dir()
    assert lesson["run"] == (str(output) if lesson["kept"] else None)
    assert main([*start[:4], "--output", str(tmp_path / "other"), "--epochs", "1", "--held-out", "case04"]) == 0
    assert "case04" in capsys.readouterr().out


def _on(label_map: object, case: Case) -> object:
    from dataclasses import replace

    return replace(label_map, geometry=case.geometry, source=None)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda root: [p.unlink() for p in root.glob("*/*_seg.nii.gz")], "nothing to learn from"),
        (lambda root: (root / "case01" / "case01_seg.nii.gz").write_bytes(b"no image"), "case01_seg.nii.gz"),
        (lambda root: _overwrite(root / "case01" / "case01_T1c.nii.gz", np.nan), "case01_T1c.nii.gz"),
    ],
)
def test_bad_cases_are_found_before_training(
    break_it: Callable[[Path], object], words: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = _copy_of(dataset, tmp_path)
    break_it(root)
    assert main(["train", str(root), "--output", str(tmp_path / "run"), "--epochs", "1", *SMALL]) == 1
    assert words in said(capsys)
    assert not (tmp_path / "run").exists()


def test_no_dataset_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["inspect"], ["plan"], ["train", "--output", str(tmp_path / "run")]):
        assert main([*command, str(tmp_path / "nowhere")]) == 1
        assert said(capsys).startswith("napari-seg3d: There is no")
    assert main(["inspect", str(tmp_path)]) == 1
    assert "No cases were found" in said(capsys)


def test_details_are_shown_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path), "--details"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("napari-seg3d: ")


def _copy_of(dataset: Path, folder: Path) -> Path:
    import shutil

    return Path(shutil.copytree(dataset, folder / "copy"))


def _overwrite(path: Path, value: float) -> None:
    image = nibabel.load(path)
    data = np.asarray(image.dataobj, np.float32)
    data[0, 0, 0] = value
    nibabel.save(nibabel.Nifti1Image(data, image.affine), path)


# ------------------------------------------------------------------------------------------------ predicting, comparing


def test_predict_writes_on_the_grid_of_the_case(predictions: Path, dataset: Path) -> None:
    assert sorted(path.name for path in predictions.iterdir()) == ["case04.json", "case04.nii.gz"]
    predicted = nibabel.load(predictions / "case04.nii.gz")
    image = nibabel.load(dataset / "case04" / "case04_FLAIR.nii.gz")
    assert predicted.shape == image.shape
    np.testing.assert_allclose(predicted.affine, image.affine, atol=1e-4)


def test_predict_prints_what_it_wrote_and_overwrites_only_when_told(
    dataset: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["predict", str(run), str(dataset / "case00"), "--output", str(tmp_path), "--uncertainty", "--tta"]
    assert main(options) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "case00.nii.gz")]
    assert (tmp_path / "case00.uncertainty.nii.gz").is_file()
    assert main(options) == 1
    assert "allow to overwrite" in said(capsys)
    assert main([*options, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"] == [str(tmp_path / "case00.nii.gz")]


def test_predict_only_in_a_box(dataset: Path, run: Path, tmp_path: Path) -> None:
    options = ["--output", str(tmp_path), "--roi", "5:12,:9,4:"]
    assert main(["predict", str(run), str(dataset), "--cases", "case02", *options]) == 0
    data = np.asarray(nibabel.load(tmp_path / "case02.nii.gz").dataobj)
    outside = np.ones(data.shape, bool)
    outside[5:12, :9, 4:] = False
    assert not data[outside].any()


def test_predict_says_which_cases_there_are(
    dataset: Path, run: Path, split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["predict", str(run), str(dataset), "--output", str(tmp_path / "out")]
    assert main([*base, "--cases", "case09"]) == 1
    assert "case09" in said(capsys)
    assert main([*base, "--part", "test"]) == 1
    assert "--split" in said(capsys)
    assert main([*base, "--split", str(split), "--part", "train", "--cases", "case04"]) == 1
    assert "case04" in said(capsys)
    assert main(["predict", str(tmp_path), str(dataset), "--output", str(tmp_path / "out")]) == 1
    assert "model" in said(capsys)


def test_a_case_that_cannot_be_predicted_is_status_1(
    dataset: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = _copy_of(dataset, tmp_path)
    (root / "case01" / "case01_T1c.nii.gz").write_bytes(b"no image")
    options = ["--output", str(tmp_path / "out"), "--cases", "case00", "case01"]
    assert main(["predict", str(run), str(root), *options]) == 1
    captured = capsys.readouterr()
    assert "1 of 2 cases could not be predicted" in captured.err
    assert captured.out.split() == [str(tmp_path / "out" / "case00.nii.gz")]


def test_loose_files_become_cases(dataset: Path, tmp_path: Path) -> None:
    volumes = {name: file.path for name, file in open_dataset(dataset)["case00"].modalities.items()}
    named = [tmp_path / "x_t1c.nii.gz", tmp_path / "x_flair.nii.gz"]
    named[0].write_bytes(volumes["T1c"].read_bytes())
    named[1].write_bytes(volumes["FLAIR"].read_bytes())
    wanted = ("FLAIR", "T1c")
    ((case,), problems) = cases_to_predict(named, wanted)
    # By name, whatever the order on the command line.
    assert case.id == "x"
    assert case.modalities == {"FLAIR": ImageFile(named[1]), "T1c": ImageFile(named[0])}
    assert not problems
    plain = [tmp_path / "subject-a.nii.gz", tmp_path / "subject-b.nii.gz"]
    for path, source in zip(plain, volumes.values(), strict=True):
        path.write_bytes(source.read_bytes())
    ((case,), _) = cases_to_predict(plain, wanted)
    assert case == CaseFiles("subject", {"FLAIR": ImageFile(plain[0]), "T1c": ImageFile(plain[1])})
    # A model of one image takes each file as a case.
    singles, _ = cases_to_predict(plain, ("T1",))
    assert [c.id for c in singles] == ["subject-a", "subject-b"]
    numbered = [tmp_path / f"p{patient}_000{i}.nii.gz" for patient in (1, 2) for i in (0, 1)]
    for path in numbered:
        path.write_bytes(volumes["T1c"].read_bytes())
    both, _ = cases_to_predict(numbered, wanted)
    assert [(c.id, c.modalities["T1c"].path.name) for c in both] == [("p1", "p1_0001.nii.gz"), ("p2", "p2_0001.nii.gz")]
    with pytest.raises(DatasetError, match="wants 2 images a case"):
        cases_to_predict([*plain, named[0]], wanted)


def test_a_file_with_channels_is_a_whole_case(tmp_path: Path) -> None:
    path = tmp_path / "four.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 6, 7, 2), np.float32), np.eye(4)), path)
    ((case,), _) = cases_to_predict([path], ("FLAIR", "T1c"))
    assert case.modalities == {"FLAIR": ImageFile(path, 0), "T1c": ImageFile(path, 1)}


def test_files_of_a_dataset_bring_their_case(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
            nibabel.save(
                nibabel.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4)), tmp_path / folder / f"{name}.nii"
            )
    cases, _ = cases_to_predict([tmp_path / "images" / "b.nii", tmp_path / "images" / "a.nii"], ("image",))
    assert [case.id for case in cases] == ["b", "a"]
    assert cases[0].truth == tmp_path / "labels" / "b.nii"


def test_evaluate_prints_and_writes(
    predictions: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, figures = tmp_path / "scores.csv", tmp_path / "figures"
    options = ["--output", str(output), "--figures", str(figures)]
    assert main(["evaluate", str(predictions), str(dataset), *options]) == 0
    text = capsys.readouterr().out
    assert "Mean Dice" in text
    assert "HD95 is the larger" in text
    rows = list(csv.DictReader(output.read_text(encoding="utf-8").splitlines()))
    assert {row["case"] for row in rows} == {"case04"}
    assert {row["label"] for row in rows if row["kind"] == "label"} == {"oedema", "enhancing tumour"}
    assert sorted(path.name for path in figures.iterdir()) == ["case04.png", "overview.png"]


def test_evaluate_as_json_agrees_with_nibabel(
    predictions: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(predictions), str(dataset), "--json", "--no-distances"]) == 0
    content = json.loads(capsys.readouterr().out)
    ours = np.asarray(nibabel.load(predictions / "case04.nii.gz").dataobj)
    theirs = np.asarray(nibabel.load(dataset / "case04" / "case04_seg.nii.gz").dataobj)
    for label in content["cases"][0]["labels"]:
        (value,) = label["values"]
        both = np.sum((ours == value) & (theirs == value))
        sizes = np.sum(ours == value) + np.sum(theirs == value)
        assert label["dice"] == pytest.approx(2 * both / sizes if sizes else 1.0)
        assert label["hd95_mm"] is None
    assert content["truths_without_prediction"] == ["case00", "case01", "case02", "case03"]


def test_figures_of_predictions_a_dataset_and_a_run(
    predictions: Path, dataset: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(FIGURES) == {"curves", *KINDS}
    for kind in ("slices", "blind"):
        options = (
            ["--slices", "3,6", "--plane", "coronal", "--label", "oedema"] if kind == "slices" else ["--seed", "1"]
        )
        assert main(["figures", kind, str(predictions), str(dataset), "--output", str(tmp_path / kind), *options]) == 0
        printed = capsys.readouterr().out.splitlines()
        names = ["case04.png"] if kind == "slices" else ["case04.png", "case04.answer.png"]
        assert printed == [str(tmp_path / kind / name) for name in names]
        assert all(Path(path).read_bytes()[:4] == b"\x89PNG" for path in printed)
    one = tmp_path / "one.png"
    assert main(["figures", "panels", str(dataset), "--cases", "case00", "--output", str(one), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"kind": "panels", "figures": [{"path": str(one)}]}
    assert main(["figures", "curves", str(run), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "curves.png").is_file()
    capsys.readouterr()
    for arguments, words in (
        (["slices", str(predictions)], "give the predictions and then the truth"),
        (["panels", str(dataset), str(dataset)], "Give only the dataset"),
        (["curves", str(dataset)], "run"),
        (["slices", str(predictions), str(dataset), "--label", "liver"], "no label liver"),
    ):
        assert main(["figures", *arguments, "--output", str(tmp_path / "none")]) == 1
        assert words in said(capsys)


def test_a_preview_writes_patches_and_says_what_was_done(
    dataset: Path, split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["preview", str(dataset), "--output", str(tmp_path), "--split", str(split), "--count", "2", *SMALL]
    assert main([*command, "--json"]) == 0
    patches = json.loads(capsys.readouterr().out)["patches"]
    assert len(patches) == 2
    for patch in patches:
        # Test and validation cases are no part of a training.
        assert patch["case"] in ("case00", "case01", "case02")
        assert all(Path(path).is_file() for path in patch["files"])
        assert nibabel.load(tmp_path / patch["name"] / "target.nii.gz").shape == (16, 16, 8)
    assert main([*command, "--step", "1"]) == 0
    assert "step 1, place 0: 16 × 16 × 8 voxels" in capsys.readouterr().out


def test_baselines_stand_beside_scores_unless_told_otherwise(
    predictions: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(predictions), str(dataset), "--no-distances"]) == 0
    assert "all background 0.000 · best threshold 0." in capsys.readouterr().out
    assert main(["evaluate", str(predictions), str(dataset), "--no-distances", "--no-baselines"]) == 0
    text = capsys.readouterr().out
    assert "all background 0.000" in text
    assert "best threshold" not in text.splitlines()[0]


def test_logits_are_written_as_float32(dataset: Path, run: Path, tmp_path: Path) -> None:
    command = ["predict", str(run), str(dataset), "--cases", "case04", "--output", str(tmp_path), "--logits"]
    assert main(command) == 0
    maps = sorted(tmp_path.glob("case04.logits-*.nii.gz"))
    plan = json.loads((run / "plan.json").read_text())
    assert len(maps) == (len(plan["regions"]) if plan["targets"] == "regions" else len(plan["labels"]) + 1)
    assert all(nibabel.load(path).get_data_dtype() == np.float32 for path in maps)
    assert json.loads((tmp_path / "case04.json").read_text())["logits"] == "outputs of the network"


def test_evaluate_fails_in_words(
    predictions: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path), str(dataset)]) == 1
    assert "no label files" in said(capsys)
    assert main(["evaluate", str(predictions), str(dataset), "--output", "scores.xls"]) == 1
    assert ".csv or .json" in said(capsys)
    truth = tmp_path / "case04.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), truth)
    assert main(["evaluate", str(predictions), str(tmp_path)]) == 1
    assert said(capsys) == "napari-seg3d: 1 of 1 cases could not be compared; the warnings above say why."


# ------------------------------------------------------------------------------------------------ the window


def test_without_a_display_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux can be without a display")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert main([]) == 1
    assert "no display" in said(capsys)
    assert main(["open", "image.nii.gz"]) == 1
    assert "There is no file or folder image.nii.gz" in said(capsys)


# ------------------------------------------------------------------------------------------------ progress and stopping


class _Terminal:
    """A stream that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def _validated() -> Validated:
    return Validated(3, 30, {"core": 0.5, "rim": 0.25}, 0.375, {}, True, 12.0)


def test_events_in_words() -> None:
    assert in_words(Progress("Reading", 3, 10, 65.0)) == "Reading 3/10 · 1 min 5 s left"
    assert in_words(Progress("Predicting", 0.25, 1)) == "Predicting 25%"
    assert in_words(Progress("Reading", 3)) == "Reading"
    assert in_words(Step(12, 1, 0.5, 1e-3, 3.0, 8.2)) == "epoch 2 · step 12 · 8 s left · loss 0.500"
    judged = {"D loss": 0.21, "D accuracy": 0.85, "D updated": 0.0, "G loss": 2.5}
    assert in_words(Step(12, 1, 2.5, 1e-3, 3.0, 8.2, None, judged)) == (
        "epoch 2 · step 12 · 8 s left · D loss 0.210 · D accuracy 85 % · D rested · G loss 2.500"
    )
    assert in_words(EpochDone(2, 5, 0.25, 1e-3, 20, 9.0, 10.0)) == "epoch 2 of 5 done · 10 s left · loss 0.250"
    assert in_words(_validated()) == "epoch 3 validated · mean Dice 0.375 (core 0.500, rim 0.250) · best so far"
    assert in_words(Saved(Path("x"), "model")) == ""
    assert duration(59.6) == "1 min 0 s"


def test_a_terminal_rewrites_its_line_and_keeps_what_matters() -> None:
    stream = _Terminal()
    terminal = Terminal(stream)  # type: ignore[arg-type]
    terminal.show(Progress("Reading", 1, 9))
    terminal.show(Warned("look here"))
    terminal.show(_validated())
    terminal.end()
    assert stream.text.startswith("\r\x1b[KReading 1/9\r\x1b[Kwarning: look here\n")
    assert stream.text.endswith("best so far\n")


def test_into_a_file_go_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    for done in range(500):
        terminal.show(Progress("Reading", done, 500))
    terminal.show(_validated())
    assert capsys.readouterr().err == f"{in_words(_validated())}\n"
    time.sleep(2.1)
    for done in range(500):
        terminal.show(Progress("Reading", done, 500))
    assert capsys.readouterr().err == "Reading 0/500\n"


def test_quiet_shows_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(quiet=True)
    for event in (Progress("Reading", 1, 2), _validated(), Warned("look here")):
        terminal.show(event)
    terminal.note("by the way")
    assert capsys.readouterr().err == "warning: look here\n"


def test_follow_returns_the_end_or_raises_it() -> None:
    quiet = Terminal(quiet=True)
    assert follow(iter([Progress("x", 1), Finished(7)]), quiet).result == 7
    with pytest.raises(JobFailedError, match="no luck") as failure:
        follow(iter([Failed("no luck", "because")]), quiet)
    assert failure.value.details == "because"
    with pytest.raises(Seg3dError, match="without a result"):
        follow(iter([Progress("x", 1)]), quiet)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_the_job_which_saves(number: signal.Signals) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has no such signals")
    saved: list[str] = []

    @job
    def work() -> Iterator[Event]:
        try:
            yield Progress("working", 1)
            os.kill(os.getpid(), number)
            # The signal does not tear the step it falls into.
            saved.append("step done")
            yield Progress("working", 2)
            saved.append("went on")
        finally:
            saved.append("closed")

    before = signal.getsignal(number)
    with pytest.raises(StoppedError):
        follow(work(), Terminal(quiet=True))
    assert saved == ["step done", "closed"]
    assert signal.getsignal(number) is before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for children")
def test_ctrl_c_saves_a_training_and_resume_finishes_it(dataset: Path, split: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "napari_seg3d", "train", str(dataset), "--output", str(run)]
    options = ["--split", str(split), "--epochs", "400", *SMALL]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not (run / "checkpoint.safetensors").is_file() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, error
    assert "Traceback" not in error
    last = error.splitlines()[-1]
    assert last.startswith("napari-seg3d: interrupted; the work is saved. Go on with: napari-seg3d train")
    assert "--resume" in last
    assert json.loads((run / "run.json").read_text())["state"] == "stopped"
    steps = _steps(run)
    assert 0 < steps < 800
    # Shortened by hand, as nobody wants to wait for 400 rounds here.
    plan = json.loads((run / "plan.json").read_text())
    (run / "plan.json").write_text(json.dumps({**plan, "epochs": steps // 2 + 2}))
    assert main(["train", str(dataset), "--output", str(run), "--resume"]) == 0
    assert _steps(run) == 2 * (steps // 2 + 2)
    assert json.loads((run / "run.json").read_text())["state"] == "finished"


def _steps(run: Path) -> int:
    rows = list(csv.DictReader((run / "history.csv").read_text(encoding="utf-8").splitlines()))
    return int(rows[-1]["step"])


def test_a_reader_that_has_enough_is_no_error(dataset: Path) -> None:
    command = f'"{sys.executable}" -m napari_seg3d inspect "{dataset}" --quick --json | head -n 1'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "{\n"
    assert done.stderr == ""
