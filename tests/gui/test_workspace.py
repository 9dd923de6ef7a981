"""The workspace: what is open, what is remembered, and what happens when something cannot be opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_seg3d.cases.corrections import save_correction
from napari_seg3d.gui.work import Job
from napari_seg3d.gui.workspace import Settings, Workspace
from napari_seg3d.volumes.files import read_label_map, write_label_map

from .conftest import InlineJobs


def heard(signal: Any) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    signal.connect(lambda *arguments: calls.append(arguments), check_nargs=False)
    return calls


def shifted_prediction(workspace: Workspace, case_id: str) -> Path:
    """Write a prediction: the truth, moved by one voxel."""
    assert workspace.dataset is not None
    files = workspace.dataset[case_id]
    assert files.truth is not None
    truth = read_label_map(files.truth, files.table)
    workspace.predictions_folder.mkdir(parents=True, exist_ok=True)
    return write_label_map(
        workspace.predictions_folder / f"{case_id}.nii.gz", truth.with_data(np.roll(truth.data, 1, 0)), overwrite=True
    )


def test_opening_a_dataset_and_a_case(workspace: Workspace, study: Path) -> None:
    datasets, cases = heard(workspace.dataset_changed), heard(workspace.case_changed)
    workspace.open_dataset(study)
    assert len(datasets) == 1
    assert workspace.dataset is not None
    assert [files.id for files in workspace.dataset.cases] == ["case1", "case2", "case10"]
    assert workspace.output == study.parent / "study-seg3d"
    assert not workspace.output.exists()
    cases.clear()
    workspace.open_case("case2")
    assert len(cases) == 1
    assert workspace.case_id == "case2"
    assert workspace.case is not None
    assert workspace.case.truth is not None
    assert list(workspace.displays) == list(workspace.case.modalities)
    workspace.close_case()
    assert workspace.case is workspace.case_id is None


def test_what_cannot_be_opened_is_said_and_leaves_everything_as_it_was(workspace: Workspace, study: Path) -> None:
    messages = heard(workspace.message)
    workspace.open_case("case1")
    assert messages.pop()[:2] == ("error", "No dataset is open. Choose a dataset folder first.")
    workspace.open_dataset(study)
    workspace.open_case("case1")
    case = workspace.case

    workspace.open_dataset(study / "nowhere")
    assert messages.pop()[0] == "error"
    empty = study / "empty"
    empty.mkdir()
    workspace.open_dataset(empty)
    assert "No cases were found" in messages.pop()[1]
    image = study / "images" / "case2.nii.gz"
    image.write_bytes(image.read_bytes()[:300])
    workspace.open_case("case2")
    level, text, _ = messages.pop()
    assert level == "error"
    assert "case2.nii.gz" in text
    assert workspace.case is case
    assert workspace.case_id == "case1"
    assert not messages


def test_predictions_are_found_scored_and_opened_with_the_case(workspace: Workspace, study: Path) -> None:
    workspace.open_dataset(study)
    results = heard(workspace.results_changed)
    path = shifted_prediction(workspace, "case1")
    workspace.refresh_results()
    assert results
    assert workspace.predictions == {"case1": [path]}
    assert 0.5 < workspace.scores["case1"] < 0.95
    workspace.open_case("case1")
    assert list(workspace.opened_predictions) == [path]


def test_a_prediction_that_changes_is_scored_again(workspace: Workspace, study: Path) -> None:
    workspace.open_dataset(study)
    shifted_prediction(workspace, "case1")
    workspace.refresh_results()
    before = workspace.scores["case1"]
    files = workspace.dataset["case1"]  # type: ignore[index]
    truth = read_label_map(files.truth, files.table)  # type: ignore[arg-type]
    write_label_map(workspace.predictions_folder / "case1.nii.gz", truth, overwrite=True)
    workspace.refresh_results()
    assert before < workspace.scores["case1"] == 1


def test_a_prediction_on_another_grid_is_told_and_left_out(workspace: Workspace, study: Path) -> None:
    workspace.open_dataset(study)
    files = workspace.dataset["case1"]  # type: ignore[index]
    truth = read_label_map(files.truth, files.table)  # type: ignore[arg-type]
    workspace.predictions_folder.mkdir(parents=True)
    from napari_seg3d.volumes.geometry import Geometry
    from napari_seg3d.volumes.volume import LabelMap

    elsewhere = LabelMap(truth.data, Geometry.with_spacing(truth.data.shape, (1, 1, 1)))
    write_label_map(workspace.predictions_folder / "case1.nii.gz", elsewhere)
    messages = heard(workspace.message)
    workspace.refresh_results()
    workspace.open_case("case1")
    assert workspace.case_id == "case1"
    assert not workspace.opened_predictions
    assert {level for level, *_ in messages} == {"warning"}
    assert any("lies on another grid" in text for _, text, _ in messages)


def test_a_correction_is_preferred_as_truth(workspace: Workspace, study: Path) -> None:
    workspace.open_dataset(study)
    files = workspace.dataset["case1"]  # type: ignore[index]
    truth = read_label_map(files.truth, files.table)  # type: ignore[arg-type]
    data = truth.data.copy()
    data[0, 0, 0] = 2
    path = save_correction(workspace.corrections_folder, "case1", truth.with_data(data))
    workspace.refresh_results()
    assert workspace.corrections == {"case1": path}
    assert workspace.with_correction(files).best_truth == path
    workspace.open_case("case1")
    assert workspace.case is not None
    assert workspace.case.truth is not None
    assert workspace.case.truth.data[0, 0, 0] == 2
    # Also in the next session.
    again = Workspace(InlineJobs(), InlineJobs())
    again.open_dataset(study)
    assert again.dataset["case1"].best_truth == path  # type: ignore[index]


def test_runs_and_added_models_are_offered_newest_first(workspace: Workspace, study: Path, tmp_path: Path) -> None:
    workspace.open_dataset(study)
    for age, name in enumerate(("new", "old")):
        run = workspace.runs / name
        run.mkdir(parents=True)
        (run / "model.json").write_text("{}")
        import os

        os.utime(run / "model.json", (1_000_000 - age, 1_000_000 - age))
    (workspace.runs / "unfinished").mkdir()
    model = tmp_path / "from elsewhere"
    model.mkdir()
    workspace.add_model(model)
    assert [label for label, _ in workspace.models()] == ["new", "old", "from elsewhere"]


def test_folders_are_remembered(study: Path, tmp_path: Path) -> None:
    settings = tmp_path / "config" / "settings.json"
    first = Workspace(InlineJobs(), InlineJobs(), Settings(settings))
    first.open_dataset(study)
    first.set_output(tmp_path / "elsewhere")
    second = Workspace(InlineJobs(), InlineJobs(), Settings(settings))
    assert second.recent == [study]
    second.open_dataset(study)
    assert second.output == tmp_path / "elsewhere"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"recent": 7, "outputs": []}', '{"recent": [1, null]}'])
def test_damaged_settings_are_as_good_as_none(content: str, study: Path, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(content)
    workspace = Workspace(InlineJobs(), InlineJobs(), Settings(path))
    assert workspace.recent == []
    workspace.open_dataset(study)
    assert workspace.recent == [study]
    assert json.loads(path.read_text())["recent"] == [str(study)]


def test_settings_that_cannot_be_written_are_no_reason_to_stop(study: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    workspace = Workspace(InlineJobs(), InlineJobs(), Settings(blocked / "settings.json"))
    workspace.open_dataset(study)
    assert workspace.dataset is not None


def test_the_newest_wish_wins(workspace: Workspace, study: Path) -> None:
    workspace.open_dataset(study)
    quick = workspace.quick
    assert isinstance(quick, InlineJobs)
    quick.hold = True
    workspace.open_case("case1")
    workspace.open_case("case2")
    assert [job.title for job in quick.queue] == ["Opening case2"]
    quick.go()
    assert workspace.case_id == "case2"


def test_every_long_job_is_followed_by_a_look_at_the_results(workspace: Workspace, study: Path) -> None:
    workspace.open_dataset(study)
    path = shifted_prediction(workspace, "case2")
    kwargs = {"paths": ()}
    workspace.start(Job("anything", "napari_seg3d.gui.tasks:read_volumes", kwargs))
    assert workspace.predictions == {"case2": [path]}


def test_unsaved_layers_are_told_once_and_forgotten_with_the_case(workspace: Workspace, study: Path) -> None:
    workspace.open_dataset(study)
    workspace.open_case("case1")
    told = heard(workspace.unsaved_changed)
    workspace.set_unsaved(frozenset({"prediction"}))
    workspace.set_unsaved(frozenset({"prediction"}))
    assert len(told) == 1
    workspace.open_case("case2")
    assert workspace.unsaved == frozenset()
