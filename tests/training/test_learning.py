"""Learning from corrections keeps a better model, leaves no trace of a worse one, and judges by unseen cases."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_seg3d.cases.case import CaseFiles
from napari_seg3d.comparison.overlap import overlap
from napari_seg3d.errors import DatasetError, Seg3dError
from napari_seg3d.events import Failed, Finished, Progress, Step, result_of
from napari_seg3d.model.checkpoint import load_model
from napari_seg3d.prediction.predict import predict
from napari_seg3d.training.learning import learn_from_corrections
from napari_seg3d.training.lesson import MOST_HELD_OUT, Lesson, choose_held_out
from napari_seg3d.training.loop import train
from napari_seg3d.training.run import RunFacts, RunFolder, list_runs


@pytest.fixture(scope="module")
def cases(tiny_case):
    return [tiny_case(i) for i in range(6)]


@pytest.fixture(scope="module")
def first(tmp_path_factory, cases, tiny_plan):
    """A model that has hardly learned anything, from two cases."""
    run = tmp_path_factory.mktemp("first") / "first"
    plan = tiny_plan(epochs=1, steps_per_epoch=2, learning_rate=1e-2)
    return result_of(train(plan, cases[:2], run, threads=1))


def learn(first, cases, output, **choices):
    return learn_from_corrections(first, cases, output, **{"epochs": 20, "rate": 1.0, "threads": 1, **choices})


def dice_of(model, case):
    predicted = result_of(predict(case, model, threads=1)).label_map.data
    known = np.ones(predicted.shape, bool)
    if case.checked is not None:
        known[:] = False
        for x, y, z in case.checked:
            known[slice(*x), slice(*y), slice(*z)] = True
    plan = load_model(model).plan
    scores = overlap(np.where(known, predicted, 0), np.where(known, case.truth.data, 0), plan.scored)
    return {score.name: score.dice for score in scores}


def test_a_better_model_is_kept_beside_the_old_one(tmp_path, first, cases):
    before = load_model(first).sha256
    output = tmp_path / "runs" / "better"
    events = list(learn(first, cases, output))
    assert isinstance(events[-1], Finished), events[-1]
    assert sum(isinstance(event, Finished | Failed) for event in events) == 1
    assert any(isinstance(event, Step) for event in events)
    assert any(isinstance(event, Progress) and "new model" in event.what for event in events)
    lesson = events[-1].result
    assert lesson.run == output
    # Judged by a case that the model has never seen; the numbers are those of the two models.
    (held_out,) = lesson.after
    assert held_out not in {*lesson.learned, "case00", "case01"}
    case = next(case for case in cases if case.id == held_out)
    assert lesson.before[held_out] == pytest.approx(dice_of(first, case))
    assert lesson.after[held_out] == pytest.approx(dice_of(output, case))
    assert lesson.mean_after > lesson.mean_before
    assert lesson.counts() == (1, 0)
    assert "better" in lesson.summary()
    assert held_out in "\n".join(lesson.as_lines())
    assert json.loads((output / "lesson.json").read_text())["kept"] is True
    facts = RunFolder.open(output).facts()
    assert facts.validation_ids == (held_out,)
    assert set(facts.earlier_ids) == {"case00", "case01"}
    assert facts.state == "finished"
    assert load_model(first).sha256 == before
    assert list_runs(tmp_path / "runs") == [output]
    assert not list((tmp_path / "runs").glob(".*"))


def test_a_model_that_is_not_better_leaves_no_trace(tmp_path, first, cases):
    # With a learning rate of nothing it stays what it was.
    lesson = result_of(learn(first, cases, tmp_path / "runs" / "same", epochs=1, rate=1e-12))
    assert lesson.run is None
    assert lesson.counts() == (0, 0)
    assert lesson.as_json()["kept"] is False
    assert "stays" in lesson.summary()
    assert list((tmp_path / "runs").iterdir()) == []


def test_stopping_leaves_no_trace(tmp_path, first, cases):
    events = learn(first, cases, tmp_path / "runs" / "stopped")
    for event in events:
        if isinstance(event, Step):
            break
    assert list((tmp_path / "runs").glob(".*"))
    assert list_runs(tmp_path / "runs") == []
    events.close()
    assert list((tmp_path / "runs").iterdir()) == []


def test_only_checked_slices_are_learned_from_and_judged_by(tmp_path, first, cases):
    """Wrong labels where nobody has looked change nothing."""
    slices = (((0, 99), (0, 99), (0, 8)),)
    honest = [replace(case, checked=slices) for case in cases]
    careless = []
    for case in honest:
        data = case.truth.data.copy()
        data[:, :, 8:] = 0
        careless.append(replace(case, truth=case.truth.with_data(data)))
    lessons = [
        result_of(learn(first, known, tmp_path / name, epochs=2))
        for name, known in (("honest", honest), ("careless", careless))
    ]
    assert lessons[0].after == lessons[1].after
    (held_out,) = lessons[0].before
    case = next(case for case in honest if case.id == held_out)
    assert lessons[0].before[held_out] == pytest.approx(dice_of(first, case))


def test_too_few_cases_and_a_taken_folder_are_refused(tmp_path, first, cases):
    with pytest.raises(Seg3dError, match="at least 3 checked cases"):
        result_of(learn(first, cases[:2], tmp_path / "run"))
    with pytest.raises(Seg3dError, match="nope"):
        result_of(learn(first, cases, tmp_path / "run", held_out=["nope"]))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(Seg3dError, match="not empty"):
        result_of(learn(first, cases, tmp_path / "taken"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]


def facts(train_ids=(), validation_ids=(), earlier_ids=()):
    return RunFacts("", train_ids, validation_ids, "", "finished", "cpu", 1, None, {}, earlier_ids=earlier_ids)


def some(names, patients=None):
    return [CaseFiles(name, {}, patient=(patients or {}).get(name, "")) for name in names]


def test_the_same_cases_are_held_out_in_every_round():
    names = [f"case{n:02d}" for n in range(30)]
    first = choose_held_out(some(names[:10]), facts(names[:3]))
    assert len(first) == 2
    assert not set(first) & set(names[:3])
    learned = tuple(name for name in names[:10] if name not in first)
    second = choose_held_out(some(names), facts(learned, first, names[:3]))
    assert set(first) < set(second)
    assert len(second) == 6
    assert not set(second) & set(learned)
    assert len(choose_held_out(some([f"c{n}" for n in range(200)]), None)) == MOST_HELD_OUT
    # Which are chosen does not depend on the order in which they were checked.
    assert set(choose_held_out(some(names[::-1]), None)) == set(choose_held_out(some(names), None))


def test_the_cases_of_a_patient_stay_together():
    names = ["a1", "a2", "b1", "b2", "c1", "c2"]
    chosen = choose_held_out(some(names, {name: name[0] for name in names}), facts(("a1",)))
    assert len({name[0] for name in chosen}) == 1
    assert len(chosen) == 2
    assert "a2" not in chosen


def test_a_model_that_knows_all_cases_cannot_be_judged():
    with pytest.raises(DatasetError, match="learned from all"):
        choose_held_out(some(["a", "b", "c"]), facts(("a", "b"), earlier_ids=("c",)))


def test_a_lesson_counts_cases_and_not_labels():
    before = {"a": {"x": 0.5, "y": 0.9}, "b": {"x": 0.5, "y": 0.5}, "c": {"x": 0.7, "y": 0.7}}
    after = {"a": {"x": 0.6, "y": 0.7}, "b": {"x": 0.6, "y": 0.5}, "c": {"x": 0.7, "y": 0.7}}
    lesson = Lesson(None, ("d",), before, after)
    assert lesson.counts() == (1, 1)
    assert lesson.mean_before == pytest.approx(0.6333, abs=1e-4)
    assert [line.split()[-1] for line in lesson.as_lines()[1:]] == [
        "better",
        "worse",
        "better",
        "before",
        "before",
        "before",
    ]
