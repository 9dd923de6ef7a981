"""In a cross-validation each case is judged once, by a model that did not see it; folds are ordinary runs."""

from __future__ import annotations

import json
import shutil
from statistics import mean, stdev

import pytest

from napari_seg3d.errors import FileError, Seg3dError
from napari_seg3d.events import Finished, RunBegan, Step, Validated, result_of
from napari_seg3d.model.checkpoint import load_model
from napari_seg3d.training.cross_validation import divide, read_cross_validation
from napari_seg3d.training.folds import cross_validate, resume_cross_validation, train_fold
from napari_seg3d.training.run import RunFolder, best_validation, list_runs, read_history, run_name


@pytest.fixture(scope="module")
def cases(tiny_case):
    return [tiny_case(i) for i in range(5)]


@pytest.fixture(scope="module")
def plan(tiny_plan):
    return tiny_plan(epochs=1, steps_per_epoch=2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cases, plan):
    """A whole cross-validation of two folds, and what it reported."""
    folder = tmp_path_factory.mktemp("folds") / "cv"
    return folder, list(cross_validate(plan, cases, folder, folds=2, threads=1, dataset="tiny"))


def test_every_case_is_judged_once_by_a_model_that_did_not_see_it(finished, cases, plan):
    folder, events = finished
    assert isinstance(events[-1], Finished)
    assert sum(isinstance(event, Finished) for event in events) == 1
    assert [event.run for event in events if isinstance(event, RunBegan)] == [folder / "fold1", folder / "fold2"]
    record = read_cross_validation(folder)
    assert sorted(case.case_id for case in record.judged) == [case.id for case in cases]
    for case in record.judged:
        run = RunFolder.open(folder / f"fold{case.fold}")
        facts = run.facts()
        assert (facts.folds, facts.fold, facts.state) == (2, case.fold, "finished")
        assert case.case_id in facts.validation_ids
        assert case.case_id not in facts.train_ids
        assert case.dice == best_validation(read_history(run.folder)).by_case[case.case_id]
    assert sorted(run_name(run) for run in list_runs(folder.parent)) == ["cv/fold1", "cv/fold2"]


def test_the_table_is_mean_and_deviation_over_all_cases(finished):
    folder, events = finished
    record = read_cross_validation(folder)
    oedema = [case.dice["oedema"] for case in record.judged]
    assert record.dice()["oedema"].mean == pytest.approx(mean(oedema))
    assert record.dice()["oedema"].sd == pytest.approx(stdev(oedema))
    stored = json.loads((folder / "cross_validation.json").read_text())
    assert stored["mean_dice"]["mean"] == pytest.approx(mean(case.mean_dice for case in record.judged))
    assert stored["mean_dice"]["n"] == 5
    assert f"{mean(oedema):.3f} ± {stdev(oedema):.3f}" in "\n".join(record.as_lines())
    assert f"{record.mean_dice.mean:.3f} ±" in events[-1].message


def test_time_left_counts_the_folds_that_follow(tmp_path, cases, tiny_plan):
    events = cross_validate(tiny_plan(epochs=2, steps_per_epoch=4), cases, tmp_path / "cv", folds=2, threads=1)
    steps = [event for event in events if isinstance(event, Step) and event.step == 7]
    # The last step but one of the first fold has the whole second fold before it.
    assert steps[0].seconds_left > steps[0].elapsed_s * 0.9
    assert steps[1].seconds_left < steps[0].seconds_left


def test_what_was_begun_goes_on_and_what_is_finished_is_left_alone(tmp_path, finished, cases, plan):
    whole, _ = finished
    folder = tmp_path / "cv"
    events = cross_validate(plan, cases, folder, folds=2, threads=1, dataset="tiny")
    for event in events:
        if isinstance(event, Step) and event.step == 1 and (folder / "fold2").is_dir():
            break
    events.close()
    record = read_cross_validation(folder)
    states = [RunFolder.open(folder / f"fold{fold}").facts().state for fold in (1, 2)]
    assert states == ["finished", "stopped"]
    assert not record.finished
    first = (folder / "fold1" / "model.safetensors").read_bytes()
    # More cases have come meanwhile: the division stays.
    again = list(resume_cross_validation(folder, cases[::-1]))
    assert [event.run.name for event in again if isinstance(event, RunBegan)] == ["fold2"]
    assert [event.step for event in again if isinstance(event, Step)] == [2]
    assert (folder / "fold1" / "model.safetensors").read_bytes() == first
    assert read_cross_validation(folder).judged == read_cross_validation(whole).judged
    assert load_model(folder / "fold2").sha256 == load_model(whole / "fold2").sha256
    # Nothing is left to do; the table is made again.
    assert not any(isinstance(event, Step) for event in resume_cross_validation(folder, cases))

    shutil.rmtree(folder / "fold2")
    (folder / "fold2").mkdir()
    shutil.copy(folder / "plan.json", folder / "fold2")  # killed while the folder of the run was being made
    result_of(resume_cross_validation(folder, cases))
    assert read_cross_validation(folder).judged == read_cross_validation(whole).judged


def test_folds_that_were_trained_one_by_one_are_put_together(tmp_path, finished, cases, plan):
    folder = tmp_path / "cv"
    events = list(train_fold(plan, cases, folder / "fold2", folds=2, fold=2, threads=1, dataset="tiny"))
    assert any(isinstance(event, Validated) for event in events)
    assert RunFolder.open(folder / "fold2").facts().fold == 2
    result_of(resume_cross_validation(folder, cases))
    assert read_cross_validation(folder) == read_cross_validation(finished[0])

    (folder / "cross_validation.json").unlink()
    (folder / "fold1").rename(folder / "fold3")
    with pytest.raises(Seg3dError, match="fold3 is fold 1 of 2"):
        result_of(resume_cross_validation(folder, cases))


def test_a_fold_that_fails_says_which_one_and_ends_the_work(tmp_path, cases, plan, finished):
    folder = tmp_path / "cv"
    shutil.copytree(finished[0], folder)
    shutil.rmtree(folder / "fold2")
    with pytest.raises(Seg3dError, match="not in this dataset: case04"):
        result_of(resume_cross_validation(folder, cases[:4]))
    wrong = [*cases[:4], type(cases[4])(cases[4].id, {"FLAIR": cases[4].modalities["FLAIR"]}, cases[4].truth)]
    with pytest.raises(Seg3dError, match=r"Fold 2 of 2: .*Missing: T1c"):
        result_of(resume_cross_validation(folder, wrong))


def test_wrong_folders_and_folds_are_refused_in_words(tmp_path, cases, plan, finished):
    with pytest.raises(Seg3dError, match="not empty"):
        result_of(cross_validate(plan, cases, finished[0], folds=2))
    with pytest.raises(Seg3dError, match="6 folds for 5 patients"):
        result_of(cross_validate(plan, cases, tmp_path / "cv", folds=6))
    with pytest.raises(Seg3dError, match="fold from 1 to 2, got 3"):
        result_of(train_fold(plan, cases, tmp_path / "cv", folds=2, fold=3))
    with pytest.raises(Seg3dError, match="Expected a cross-validation"):
        result_of(resume_cross_validation(tmp_path, cases))
    (tmp_path / "cross_validation.json").write_text('{"divided": 3}')
    with pytest.raises(FileError, match="damaged"):
        read_cross_validation(tmp_path)


def test_patients_stay_together():
    divided = divide({"a-1": "a", "a-2": "a", "b": "", "c": ""}, 3, 0)
    assert sorted(case_id for ids in divided for case_id in ids) == ["a-1", "a-2", "b", "c"]
    assert any(set(ids) == {"a-1", "a-2"} for ids in divided)
