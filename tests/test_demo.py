"""The demonstration: what it leaves behind and what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.cli import main
from napari_seg3d.comparison.baselines import baselines
from napari_seg3d.comparison.report import evaluate
from napari_seg3d.demo import Demo, as_json, demo, summary, with_time, write_report
from napari_seg3d.errors import Seg3dError
from napari_seg3d.events import Finished, Step, result_of


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A demonstration on tiny heads that learns for seconds: everything but the accuracy."""
    folder = tmp_path_factory.mktemp("demo") / "output"
    events = list(demo(folder, budget_s=4, device="cpu", shape=(36, 40, 16)))
    assert any(isinstance(event, Step) for event in events)
    assert isinstance(events[-1], Finished)
    result = events[-1].result
    assert isinstance(result, Demo)
    return result


def test_it_is_a_project_as_the_window_lays_it_out(shown: Demo) -> None:
    assert shown.study == shown.folder / "study"
    assert (shown.folder / "study-seg3d" / "runs" / "demo" / "model.safetensors").is_file()
    assert shown.prediction == shown.folder / "study-seg3d" / "predictions" / f"{shown.held_out}.nii.gz"
    assert len(open_dataset(shown.study).labelled) == 8


def test_the_held_out_case_was_never_seen(shown: Demo) -> None:
    facts = json.loads((shown.run / "run.json").read_text())
    split = json.loads((shown.folder / "split.json").read_text())
    assert split["test"] == [shown.held_out]
    assert shown.held_out not in facts["train_ids"] + facts["validation_ids"]
    assert (split["train"], split["validation"]) == (facts["train_ids"], facts["validation_ids"])


def test_scores_and_baselines_are_those_of_the_files(shown: Demo) -> None:
    table = result_of(evaluate(shown.prediction.parent, shown.study))
    assert [case.case for case in table.cases] == [shown.held_out]
    assert table.cases[0].mean_dice == shown.scores.mean_dice
    case = open_dataset(shown.study)[shown.held_out].load()
    assert shown.baselines == baselines(case, open_dataset(shown.study).regions or ())
    lines = summary(shown).splitlines()
    assert [word for word in lines[2].split("  ") if word] == ["Dice", "trained", "all background", "best threshold"]
    mean = f"{shown.scores.mean_dice:.3f}"
    assert lines[-1].split() == ["mean", mean, *(f"{baseline.mean_dice:.3f}" for baseline in shown.baselines)]


def test_the_report_needs_no_other_file(shown: Demo) -> None:
    page = shown.report.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("data:image/png;base64,") == 2
    for score in shown.scores.by_label:
        assert f"<b>{score.dice:.3f}</b>" in page
    for baseline in shown.baselines:
        assert f"{baseline.mean_dice:.3f} ({baseline.name})" in page
    assert str(shown.folder) not in page


def test_screenshots_join_the_report(shown: Demo) -> None:
    picture = shown.folder / "screenshots" / "review.png"
    picture.parent.mkdir(exist_ok=True)
    picture.write_bytes(next(iter(shown.figures.values())).read_bytes())
    longer = with_time(shown, "screenshots", 12.0)
    assert longer.seconds["total"] == pytest.approx(shown.seconds["total"] + 12, abs=0.5)
    page = write_report(longer, {"The <Review> page": picture}).read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3
    assert "The &lt;Review&gt; page" in page
    content = json.loads((shown.folder / "report.json").read_text(encoding="utf-8"))
    assert content["screenshots"] == {"The <Review> page": "screenshots/review.png"}
    assert content | {"screenshots": {}} == json.loads(json.dumps(as_json(longer))) | {"screenshots": {}}


def test_a_foreign_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "study").mkdir()
    assert main(["demo", "--headless", "--output", str(tmp_path)]) == 1
    assert "not empty and not of an earlier demonstration" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study", "thesis.txt"]
    assert main(["demo", "--headless", "--output", str(tmp_path / "thesis.txt")]) == 1
    assert "is a file" in capsys.readouterr().err


def test_running_again_replaces_its_own_files_and_keeps_corrections(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    corrections = folder / "study-seg3d" / "corrections" / "brain_001"
    stale = folder / "study" / "brain_001" / "stale.nii.gz"
    for path in (corrections / "v001.nii.gz", stale, folder / ".seg3d-demo"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("earlier")
    events = demo(folder, budget_s=4, device="cpu", shape=(36, 40, 16))
    next(events)
    events.close()
    assert (corrections / "v001.nii.gz").is_file()
    assert not stale.exists()


def test_a_failure_inside_is_the_failure_of_the_whole(tmp_path: Path) -> None:
    with pytest.raises(Seg3dError, match="one of the devices"):
        result_of(demo(tmp_path / "demo", budget_s=4, device="cuda:77", shape=(24, 24, 12)))
