"""Runs are compared where they were judged on the same cases, by a test that is scipy's; elsewhere they are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from filelock import FileLock
from scipy.stats import wilcoxon

from napari_seg3d.errors import FileError
from napari_seg3d.events import EpochDone, Validated
from napari_seg3d.training.compare_runs import (
    compare_runs,
    comparison_as_lines,
    runs_as_lines,
    summarise_run,
    summarise_runs,
)
from napari_seg3d.training.cross_validation import CrossValidation, with_judgements, write_cross_validation
from napari_seg3d.training.run import RunFacts, RunFolder


@pytest.fixture
def write(tmp_path, tiny_plan):
    """Write a run folder as a training does: `write(name, {case: (dice of label 1, of label 2)})`."""

    def run(name, by_case, *, state="finished", start=None, tail=()):
        names = ("oedema", "enhancing tumour")
        facts = RunFacts("study", ("a", "b"), tuple(by_case), "2025-01-01", state, "CPU", 1, start, {})
        folder = RunFolder.create(tmp_path / "runs" / name, tiny_plan(), facts)
        folder.record(EpochDone(1, 2, 0.5, 1e-3, 3, 60.0))
        for scores, best in ((by_case, True), *((scores, False) for scores in tail)):
            if not scores:
                continue
            judged = {case_id: dict(zip(names, dice, strict=True)) for case_id, dice in scores.items()}
            dice = {name: float(np.mean([case[name] for case in judged.values()])) for name in names}
            folder.record(Validated(1 + (not best), 3, dice, float(np.mean(list(dice.values()))), judged, best, 61.0))
        return folder.folder

    return run


def drawn(count, shift, seed=0):
    rng = np.random.default_rng(seed)
    base, noise = rng.uniform(0.5, 0.8, (count, 2)), np.random.default_rng(seed + 1).normal(0, 0.02, (count, 2))
    return {f"case{i}": tuple(base[i] + shift + (noise[i] if shift else 0)) for i in range(count)}


def test_a_summary_is_that_of_the_model_that_is_kept(tmp_path, write):
    worse = {"x": (0.1, 0.2), "y": (0.1, 0.2)}
    write("one", {"x": (0.6, 0.8), "y": (0.8, 0.6)}, tail=[worse])
    (run,) = summarise_runs(tmp_path / "runs")
    assert (run.name, run.network, run.state, run.steps, run.seconds) == ("one", "unet", "finished", 3, 60.0)
    assert run.dice == pytest.approx({"oedema": 0.7, "enhancing tumour": 0.7})
    assert run.mean_dice == pytest.approx(0.7)
    assert run.by_case["x"] == {"oedema": 0.6, "enhancing tumour": 0.8}
    # The project folder stands for its runs.
    assert summarise_runs(tmp_path) == [run]
    assert json.loads(json.dumps(run.as_json()))["mean_dice"] == pytest.approx(0.7)
    with pytest.raises(FileError, match="no folder"):
        summarise_runs(tmp_path / "none")


def test_the_same_cases_are_compared_by_wilcoxons_test(tmp_path, write):
    write("a", drawn(12, 0))
    write("b", drawn(12, 0.03))
    a, b = sorted(summarise_runs(tmp_path), key=lambda run: run.name)
    comparison = compare_runs([a, b])
    assert not comparison.problems
    assert list(comparison.by_case) == [f"case{i}" for i in range(12)]  # in natural order
    means = np.array([[np.mean(list(run.by_case[c].values())) for run in (a, b)] for c in comparison.by_case])
    np.testing.assert_allclose(list(comparison.by_case.values()), means)
    mean, oedema, _ = comparison.differences
    assert (mean.label, mean.n, oedema.label) == ("mean", 12, "oedema")
    assert mean.p == pytest.approx(wilcoxon(means[:, 1] - means[:, 0]).pvalue)
    assert mean.mean == pytest.approx((means[:, 1] - means[:, 0]).mean())
    assert mean.mean > 0.01
    assert mean.verdict() == "more than chance"
    assert compare_runs([b, a]).differences[0].mean == pytest.approx(-mean.mean)
    rows = [line.split() for line in "\n".join(comparison_as_lines(comparison)).splitlines()]
    assert ["b", "−", "a", "mean", f"{mean.mean:+.3f}", "12"] in [row[:6] for row in rows]


def test_no_difference_and_few_cases_are_no_proof(tmp_path, write):
    write("a", drawn(12, 0))
    write("same", drawn(12, 0))
    (difference, *_) = compare_runs(summarise_runs(tmp_path)).differences
    assert (difference.p, difference.mean, difference.verdict()) == (1.0, 0.0, "may be chance")
    write("few", drawn(4, 0))
    write("fewer", drawn(4, 0.2))
    few = [run for run in summarise_runs(tmp_path) if run.name.startswith("few")]
    difference = compare_runs(few).differences[0]
    assert difference.p == difference.smallest_p == 0.125
    assert difference.verdict() == "too few cases to tell"


def test_other_cases_or_labels_are_not_compared_and_named(tmp_path, write):
    write("a", {"x": (0.5, 0.5), "y": (0.6, 0.6), "case10": (1, 1), "case2": (1, 1)})
    write("b", {"y": (0.5, 0.5), "z": (0.6, 0.6)})
    write("silent", {}, start="sha")
    a, b, silent = sorted(summarise_runs(tmp_path), key=lambda run: run.name)
    comparison = compare_runs([a, b])
    assert comparison.problems == ("judged on different cases; only a: case2, case10, x; only b: z.",)
    assert not comparison.by_case
    assert not comparison.differences
    assert "Not comparable: judged on different cases" in "\n".join(comparison_as_lines(comparison))
    assert "silent has not been validated" in compare_runs([a, silent]).problems[0]
    assert "silent started from another model" in compare_runs([a, silent]).cautions[0]
    assert "at least two" in compare_runs([a]).problems[0]
    assert "–" in runs_as_lines([a, silent])[0]


def test_a_cross_validation_stands_above_its_folds(tmp_path, write):
    for name, base in (("cv", 0.5), ("other", 0.6)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        record = CrossValidation("study", 0, (("w", "x"), ("y",)))
        write_cross_validation(folder, record)
        write(f"{name}/fold1", {"w": (base, base), "x": (base + 0.1, base + 0.1)})
        assert summarise_runs(tmp_path)[0].state == "stopped"
        write(f"{name}/fold2", {"y": (base + 0.3, base + 0.3)}, state="failed")
    found = {run.name: run for run in summarise_runs(tmp_path)}
    assert set(found) == {"cv", "cv/fold1", "cv/fold2", "other", "other/fold1", "other/fold2"}
    assert found["cv"].dice["oedema"] == pytest.approx((0.5 + 0.6 + 0.8) / 3)
    assert (found["cv"].folds, found["cv"].state) == (2, "failed")
    comparison = compare_runs([found["cv"], found["other"]])
    assert (comparison.differences[0].n, comparison.differences[0].mean) == (3, pytest.approx(0.1))
    assert compare_runs([found["cv"], found["other/fold1"]]).problems
    write_cross_validation(tmp_path / "runs" / "cv", with_judgements(tmp_path / "runs" / "cv", record))
    assert {run.name: run.state for run in summarise_runs(tmp_path)}["cv"] == "finished"


def test_a_killed_run_is_interrupted_and_one_that_is_held_runs(write):
    run = write("one", {"x": (0.6, 0.8)}, state="running")
    assert summarise_run(run).state == "interrupted"
    with FileLock(run / ".lock"):
        assert summarise_run(run).state == "running"
