"""The Predict page: whether a model fits is said before any work; labels come beside what is there, never over it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from napari.layers import Image, Labels, Shapes

from napari_seg3d.cases.dataset import open_dataset
from napari_seg3d.errors import FileError, ModelError
from napari_seg3d.gui import predict_panel
from napari_seg3d.gui.layers import label_map_of, origin_of
from napari_seg3d.gui.model_facts import misfit, oddities, read_ensemble_facts, read_model_facts
from napari_seg3d.gui.predict_panel import PredictPanel
from napari_seg3d.gui.result_list import Result, ResultList
from napari_seg3d.gui.widgets import NARROW
from napari_seg3d.gui.work import Job
from napari_seg3d.prediction import predict
from napari_seg3d.training.cross_validation import CrossValidation, with_judgements, write_cross_validation
from napari_seg3d.volumes.files import read_label_map

# ------------------------------------------------------------------------------------------ parts without a viewer


@pytest.fixture
def run(trained_study):
    return trained_study.with_name("study-seg3d") / "runs" / "tiny"


def test_a_model_says_what_it_wants_and_promises(run):
    facts = read_model_facts(run)
    assert facts == read_model_facts(run / "model.safetensors")
    words = facts.in_words()
    assert f"Wants the image {facts.plan.modalities[0]}; works on voxels of" in words
    assert "Mean Dice" in words


def test_a_model_without_its_description_is_refused_in_words(run):
    (run / "model.json").write_text("[]")
    with pytest.raises(ModelError, match="not the description"):
        read_model_facts(run)
    (run / "model.json").unlink()
    with pytest.raises(FileError, match="Copy it together"):
        read_model_facts(run)


def test_a_cross_validation_tells_of_its_folds(run):
    cv = run.with_name("cv")
    for fold in (1, 2):
        shutil.copytree(run, cv / f"fold{fold}")
    assert read_ensemble_facts([run]) == read_model_facts(run)
    facts = read_ensemble_facts([cv])
    assert facts.members == ("cv fold1", "cv fold2")
    assert facts.in_words().startswith("Mean of 2 models. Wants the image")
    assert read_ensemble_facts([cv, run]).members == ("cv fold1", "cv fold2", "tiny")
    assert facts.dice == {}
    record = CrossValidation("study", 0, (("case2",), ("case2",)))
    write_cross_validation(cv, with_judgements(cv, record))
    assert "Mean Dice" in read_ensemble_facts([cv]).in_words()
    assert "each judged by a model that did not see it" in read_ensemble_facts([cv]).in_words()
    values = json.loads((run / "model.json").read_text())
    values["plan"]["labels"][0]["name"] = "cyst"
    (run / "model.json").write_text(json.dumps(values))
    with pytest.raises(ModelError, match="cannot predict together: tiny knows the labels 1 cyst"):
        read_ensemble_facts([cv, run])


def test_a_case_without_the_models_images_does_not_fit(run, trained_study):
    facts = read_model_facts(run)
    case = open_dataset(trained_study)["case1"]
    assert misfit(facts, case) == ""
    other = facts.plan.changed({"modalities": ("FLAIR", "T1c")})
    (name,) = case.modalities
    assert misfit(type(facts)(other, {}), case) == f"case1 lacks FLAIR, T1c; it has {name}."


def test_odd_voxels_and_other_meanings_are_told(run, trained_study):
    facts = read_model_facts(run)
    dataset = open_dataset(trained_study)
    case = dataset["case1"].load()
    assert oddities(facts, case, dataset) == []
    coarse = type(facts)(facts.plan.changed({"spacing_mm": (9.0, 9.0, 9.0)}), {})
    assert "differ much" in oddities(coarse, case, None)[0]


def test_results_are_listed_newest_first_and_can_be_asked_for(qtbot, tmp_path):
    paths = [tmp_path / f"{name}.nii.gz" for name in "abc"]
    for age, path in enumerate(paths[:2]):
        path.touch()
        os.utime(path, (1000 + age, 1000 + age))
    listed = ResultList()
    qtbot.addWidget(listed)
    listed.show_results([Result(path.name[0], path, "tiny", 0.5 if path == paths[0] else None) for path in paths])
    rows = [[listed.item(row, column).text() for column in range(3)] for row in range(listed.rowCount())]
    assert rows == [["b", "tiny", "–"], ["a", "tiny", "0.500"]]
    with qtbot.waitSignal(listed.wanted) as wanted:
        listed.cellDoubleClicked.emit(1, 0)
    assert wanted.args[0].path == paths[0]


def test_both_rooms_mean_the_same_by_not_looked_at():
    # The window must not load torch to know this number.
    assert predict_panel.CERTAIN == predict.CERTAIN


# ------------------------------------------------------------------------------------------ the page in a real viewer


class Page:
    """The page in a viewer, and what tests do with it."""

    def __init__(self, viewer, workspace, qtbot):
        self.panel = PredictPanel(workspace, viewer)
        viewer.window.add_dock_widget(self.panel, area="right")
        self.workspace, self.viewer, self.qtbot = workspace, viewer, qtbot
        self.ended = []
        workspace.job_ended.connect(self._note_end)

    def _note_end(self, job, how):
        if job.kind == "predict":
            self.ended.append(how)

    def wait(self, condition, seconds=60):
        self.qtbot.waitUntil(condition, timeout=1000 * seconds)

    def open(self, study, case_id=None):
        self.workspace.open_dataset(study)
        self.wait(lambda: self.workspace.dataset is not None)
        if case_id is not None:
            self.open_case(case_id)

    def open_case(self, case_id):
        self.workspace.open_case(case_id)
        self.wait(lambda: self.workspace.case_id == case_id)
        self.wait(lambda: any(isinstance(layer, Image) for layer in self.viewer.layers))

    def target(self, key):
        self.panel.target_box.setCurrentIndex(self.panel.target_box.findData(key))
        self.panel.target_box.activated.emit(0)

    def predict(self):
        count = len(self.ended)
        self.panel.predict_button.click()
        self.panel.predict_button.click()
        self.wait(lambda: len(self.ended) == count + 1)
        return self.ended[-1]

    def labels(self, start):
        return [layer for layer in self.viewer.layers if isinstance(layer, Labels) and layer.name.startswith(start)]


@pytest.fixture
def page(viewer_workspace, qtbot):
    return Page(*viewer_workspace, qtbot)


def test_from_no_model_to_every_case(page, trained_study, qtbot):
    panel, workspace = page.panel, page.workspace
    assert panel.is_empty
    page.open(trained_study)
    assert not panel.is_empty
    assert panel.body.parentWidget().minimumSizeHint().width() <= NARROW - 20
    assert panel.model.name == "tiny"
    assert "No case is open" in panel._fit.text()
    assert not panel.predict_button.isEnabled()
    page.open_case("case1")
    assert panel._fit.text() == "case1 fits."

    # One case: a new layer on the case's own grid beside the truth, and a file with the same labels.
    panel.uncertainty.setChecked(True)
    assert page.predict() == "finished"
    page.wait(lambda: len(page.labels("tiny")) == 1)
    page.wait(lambda: "tiny uncertainty" in page.viewer.layers)
    (layer,) = page.labels("tiny")
    path = workspace.predictions_folder / "tiny" / "case1.nii.gz"
    assert np.array_equal(label_map_of(layer).data, read_label_map(path).data)
    assert origin_of(layer).geometry.same_grid(workspace.case.geometry)
    assert page.viewer.layers["truth"].visible
    page.wait(lambda: "case1" in workspace.scores)
    assert panel.results.item(0, 2).text() == f"{workspace.scores['case1']:.3f}"

    # Logits and probabilities are maps like it, but hidden; logits have 0 in the middle of their colours.
    panel.logits.setChecked(True)
    panel.probabilities.setChecked(True)
    assert page.predict() == "finished"

    def maps(start):
        return [layer for layer in page.viewer.layers if layer.name.startswith(start)]

    page.wait(lambda: len(maps("tiny logits")) == 3)
    page.wait(lambda: len(maps("tiny probability")) == 2)
    for logits in maps("tiny logits"):
        low, high = logits.contrast_limits
        assert low == -high
        assert not logits.visible
        assert logits.data.min() < 0
    assert all(list(layer.contrast_limits) == [0, 1] for layer in maps("tiny probability"))
    for extra in page.labels("tiny")[1:]:
        page.viewer.layers.remove(extra)
    panel.logits.setChecked(False)
    panel.probabilities.setChecked(False)

    # Predicting again never touches a layer that was painted on.
    panel.uncertainty.setChecked(False)
    voxel = (np.array([1]), np.array([2]), np.array([3]))
    layer.data_setitem(voxel, 2 if layer.data[voxel] != 2 else 1)
    painted = np.array(layer.data)
    assert panel.predict_button.text() == "Predict again"
    assert page.predict() == "finished"
    page.wait(lambda: len(page.labels("tiny")) == 2)
    assert np.array_equal(layer.data, painted)
    assert layer in page.viewer.layers

    # Another result is not opened over unsaved edits.
    page.wait(lambda: bool(workspace.unsaved))
    said = []
    workspace.message.connect(lambda level, text, details: said.append(text))

    # The rest: what is there is left out, and nothing of it is written again.
    before = path.stat().st_mtime_ns
    page.target("missing")
    assert panel._fit.text() == "All 2 cases fit."
    assert page.predict() == "finished"
    assert "Predicted 2 of 2 cases" in panel.messages.text
    assert path.stat().st_mtime_ns == before
    page.wait(lambda: panel.results.rowCount() == 3)
    assert panel._fit.text() == "This model has predicted all cases."
    row = [panel.results.item(row, 0).text() for row in range(3)].index("case10")
    panel.results.cellDoubleClicked.emit(row, 0)
    assert "not saved" in said[-1]
    assert workspace.case_id == "case1"
    for edited in page.labels("tiny"):
        page.viewer.layers.remove(edited)
    page.wait(lambda: not workspace.unsaved)
    panel.results.cellDoubleClicked.emit(row, 0)
    page.wait(lambda: workspace.case_id == "case10")
    page.wait(
        lambda: any(origin_of(layer).path is not None for layer in page.viewer.layers if isinstance(layer, Labels))
    )


def test_several_models_predict_together(viewer, workspace, trained_study, run, qtbot):
    page = Page(viewer, workspace, qtbot)  # its jobs are carried out at once, without a process of their own
    panel = page.panel
    for fold in (1, 2):
        shutil.copytree(run, run.with_name("cv") / f"fold{fold}")
    page.open(trained_study)
    page.target("all")
    assert {panel.model_box.itemText(i) for i in range(2)} == {"tiny", "cv"}
    panel.choose_model(run.with_name("cv"))
    assert panel._model_words.text().startswith("Mean of 2 models.")
    panel.others_button.menu().aboutToShow.emit()
    (action,) = panel.others_button.menu().actions()
    assert action.text() == "and tiny"
    action.trigger()
    assert panel.others_button.text() == "+1"
    assert panel._model_words.text().startswith("Mean of 3 models.")
    assert panel.folder.name == "cv + tiny"
    assert page.predict() == "finished"
    sidecar = json.loads((panel.folder / "case1.json").read_text())
    assert [member["model"] for member in sidecar["members"]] == ["cv fold1", "cv fold2", "tiny"]
    panel.others_button.menu().aboutToShow.emit()
    panel.others_button.menu().actions()[0].trigger()
    assert panel.models == (run.with_name("cv"),)


def test_only_a_box_and_a_model_that_does_not_fit(without_child, page, trained_study):
    panel, workspace = page.panel, page.workspace
    page.open(trained_study, "case1")
    page.wait(lambda: "truth" in page.viewer.layers)
    panel.box.want(True)
    assert "Draw a rectangle" in panel._fit.text()
    assert not panel.predict_button.isEnabled()
    panel.box.draw()
    (shapes,) = [layer for layer in page.viewer.layers if isinstance(layer, Shapes)]
    shapes.add_rectangles(np.array([[5, 4, 4], [5, 4, 12], [5, 14, 12], [5, 14, 4]]))
    assert "% of the image" in panel.box._words.text()
    box = panel.box.box
    assert page.predict() == "finished"
    page.wait(lambda: len(page.labels("tiny box")) == 1)
    data = label_map_of(page.labels("tiny box")[0]).data.copy()
    data[box] = 0
    assert not data.any()
    # A part of a case is no prediction of it: no file, no score.
    assert not (workspace.predictions_folder / "tiny").exists()

    # Mirrored copies are offered only to a model that has learned from them.
    assert not panel.mirrors.isEnabled()
    facts = json.loads((workspace.runs / "tiny" / "model.json").read_text())
    facts["plan"]["augmentation"]["mirror"] = ["left-right"]
    (workspace.runs / "tiny" / "model.json").write_text(json.dumps(facts))
    workspace.refresh_results()
    assert panel.mirrors.isEnabled()
    assert "2 × as slow" in panel.mirrors.toolTip()

    # Deleting layers and closing the case leaves the page in order.
    page.viewer.layers.clear()
    assert panel.box.box is None
    workspace.close_case()
    assert "No case is open" in panel._fit.text()

    # A model with other images is refused before any work; a case that cannot be read is told after it.
    facts = json.loads((workspace.runs / "tiny" / "model.json").read_text())
    facts["plan"]["modalities"] = ["FLAIR"]
    (workspace.runs / "tiny" / "model.json").write_text(json.dumps(facts))
    workspace.refresh_results()
    page.target("all")
    assert "lacks FLAIR" in panel._fit.text()
    assert not panel.predict_button.isEnabled()


def test_marked_cases_one_that_is_damaged_and_one_beside_a_training(without_child, page, trained_study, monkeypatch):
    panel, workspace = page.panel, page.workspace
    page.open(trained_study)
    page.target("selected")
    assert "No cases are marked" in panel._fit.text()
    workspace.select(("case2", "case10"))
    assert panel.target_box.currentText() == "selected cases (2)"
    image = trained_study / "images" / "case2.nii.gz"
    image.write_bytes(image.read_bytes()[:500])
    assert page.predict() == "finished"
    assert "Predicted 1 of 2 cases" in panel.messages.text
    assert "1 were left out" in panel.messages.text
    assert panel.results.rowCount() == 1

    # One case does not wait for a long job to end; nothing of that job is disturbed.
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    workspace.start(Job("Training", "worker_jobs:count", {"n": 100_000, "pause_s": 0.01}, "thread", "train"))
    page.wait(lambda: workspace.current_job is not None)
    page.open_case("case1")
    page.target("this")
    assert page.predict() == "finished"
    page.wait(lambda: len(page.labels("tiny")) == 1)
    assert panel.results.rowCount() == 2
    assert workspace.current_job.kind == "train"
    workspace.stop()
    page.wait(lambda: workspace.current_job is None)
