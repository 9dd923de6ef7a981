"""The Train page: choices become a plan, a plan becomes a run, and a run can be stopped, resumed and looked at."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest

from napari_seg3d.cases.dataset import Split, open_dataset
from napari_seg3d.errors import DatasetError
from napari_seg3d.events import EpochDone, Finished, Step, Validated, result_of
from napari_seg3d.gui.labels_from_file import LabelsFromFile
from napari_seg3d.gui.layers import origin_of
from napari_seg3d.gui.planning import Choices, propose
from napari_seg3d.gui.run_view import RunView, memory_in_words, runs_in
from napari_seg3d.gui.train_choices import ChoicesWidget, SplitChoice, SplitWidget
from napari_seg3d.gui.train_panel import TrainPanel, mixed_in
from napari_seg3d.gui.widgets import NARROW
from napari_seg3d.training.run import RunFolder, read_history
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap

# ------------------------------------------------------------------------------------------ parts without a viewer


def test_a_split_is_drawn_by_seed_and_said_in_words(study):
    dataset = open_dataset(study)
    choice = SplitChoice(None, 50, 7)
    split = choice.of(dataset)
    assert choice.of(dataset) == split
    assert (len(split.train), len(split.validation)) == (1, 1)
    assert choice.in_words(split) == "2 labelled cases: 1 train, 1 validate (drawn by patient with seed 7)"


def test_a_split_file_keeps_its_test_cases_out_of_training(study, tmp_path):
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train": ["case1"], "test": ["case2"]}))
    split = SplitChoice(file).of(open_dataset(study))
    assert [case.id for case in (*split.train, *split.validation)] == ["case1"]
    assert "1 kept for testing (from split.json)" in SplitChoice(file).in_words(split)
    file.write_text(json.dumps({"train": ["case7"]}))
    with pytest.raises(DatasetError, match="case7"):
        SplitChoice(file).of(open_dataset(study))


def test_folds_are_made_of_all_but_the_test_cases(study, tmp_path):
    dataset = open_dataset(study)
    choice = SplitChoice(folds=2, seed=4)
    split = choice.of(dataset)
    assert [[case.id for case in part] for part in (split.train, split.validation)] == [["case1", "case2"], []]
    assert choice.in_words(split).startswith("2 labelled cases in 2 folds, one model each")
    with pytest.raises(DatasetError, match="3 folds for 2 patients"):
        SplitChoice(folds=3).of(dataset)
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train": ["case1"], "test": ["case2"]}))
    with pytest.raises(DatasetError, match="2 folds for 1 patients"):
        SplitChoice(file, folds=2).of(dataset)


def test_choices_are_what_the_boxes_say(qtbot, tmp_path):
    widget = ChoicesWidget()
    qtbot.addWidget(widget)
    widget.remember({"network": "unetr", "unit": "hours", "length": 2, "device": "gone", "recipe": "gone"})
    assert widget.choices(3, {}) == Choices(network="unetr", budget_s=7200.0, seed=3)
    widget.remember({"unit": "epochs", "length": 30})
    assert widget.choices(0, {}).epochs == 30
    assert widget.choices(0, {}).budget_s is None
    widget.remember({"unit": "thorough"})
    choices = widget.choices(0, {"batch_size": 3})
    assert (choices.budget_s, choices.epochs, choices.preset) == (None, None, "thorough")
    assert choices.changes == {"batch_size": 3}
    # A recipe has the length of its article instead of the planner's presets, and a network of its own.
    widget.remember({"recipe": "unet-brats"})
    choices = widget.choices(0, {})
    assert (choices.recipe, choices.budget_s, choices.epochs) == ("unet-brats", None, None)
    assert widget._unit.currentText() == "as published"
    assert widget._network.isHidden()
    model = tmp_path / "model"
    widget.set_models([("model", model)])
    widget.start_from(model)
    assert widget.choices(0, {}).start == model
    widget.set_models([])
    assert widget.choices(0, {}).start is None
    assert widget.remembered()["network"] == "unetr"


def test_older_cases_are_offered_for_fine_tuning_only(qtbot, tmp_path, study):
    widget = ChoicesWidget()
    qtbot.addWidget(widget)
    widget.set_older([study])
    widget._older.setCurrentIndex(1)
    assert widget.older is None  # nothing to forget
    assert widget._older.isHidden()
    widget.set_models([("model", tmp_path / "model")])
    widget.start_from(tmp_path / "model")
    assert not widget._older.isHidden()
    assert widget.older == study
    cases = open_dataset(study).labelled
    mixed = mixed_in(study, Split(cases[:1], (), ()), tmp_path / "runs" / "tuned")
    assert [case.id for case in mixed["older"]] == [case.id for case in cases[1:]]
    assert (tmp_path / "runs" / "tuned" / mixed["older_dataset"]).resolve() == study.resolve()
    with pytest.raises(DatasetError, match="Choose another folder"):
        mixed_in(study, Split(cases[:1], cases[1:], ()), tmp_path)


def test_a_typed_name_is_kept_until_it_is_used(qtbot):
    widget = ChoicesWidget()
    qtbot.addWidget(widget)
    widget.suggest_name("unet-1")
    qtbot.keyClicks(widget._name, "b")
    widget.suggest_name("unet-2")
    assert widget.name == "unet-1b"
    widget.forget_name()
    widget.suggest_name("unet-2")
    assert widget.name == "unet-2"


def test_the_parts_fit_a_narrow_page(qtbot):
    for widget in (ChoicesWidget(), SplitWidget(), RunView()):
        qtbot.addWidget(widget)
        assert widget.minimumSizeHint().width() <= 330


def test_a_plan_is_proposed_with_its_size_and_a_bad_change_is_said(study):
    cases = open_dataset(study).labelled
    proposal = result_of(propose(cases, Choices(epochs=2, device="cpu")))
    assert proposal.plan == proposal.base
    assert proposal.parameters > 1000
    assert proposal.devices[-1] == "cpu"
    changed = Choices(epochs=2, device="cpu", changes={"batch_size": 5})
    # The fingerprint is known: no file is read again.
    assert result_of(propose((), changed, proposal.fingerprint)).plan.batch_size == 5
    bad = result_of(propose((), Choices(device="cpu", changes={"patch_voxels": (7, 7, 7)}), proposal.fingerprint))
    assert "multiple" in bad.problem
    assert bad.plan == bad.base


def test_fine_tuning_takes_the_plan_of_the_model(trained_study):
    run = trained_study.with_name("study-seg3d") / "runs" / "tiny"
    choices = Choices(start=run, epochs=1, device="cpu")
    proposal = result_of(propose(open_dataset(trained_study).labelled, choices))
    assert proposal.plan.network == RunFolder.open(run).plan.network


def test_runs_tell_their_state_and_a_killed_one_is_interrupted(trained_study, qtbot):
    runs = trained_study.with_name("study-seg3d") / "runs"
    assert [(entry.folder.name, entry.state) for entry in runs_in(runs, None)] == [("tiny", "finished")]
    facts = json.loads((runs / "tiny" / "run.json").read_text())
    (runs / "tiny" / "run.json").write_text(json.dumps({**facts, "state": "running"}))
    assert runs_in(runs, None)[0].state == "interrupted"
    assert runs_in(runs, runs / "tiny")[0].state == "running"
    (runs / "tiny" / "run.json").write_text("{")
    assert runs_in(runs, None) == []


def standing(view):
    return view._status.text().replace("\N{NO-BREAK SPACE}", " ")


def test_an_earlier_run_shows_its_curves_and_a_running_one_how_it_stands(trained_study, qtbot):
    runs = trained_study.with_name("study-seg3d") / "runs"
    view = RunView()
    qtbot.addWidget(view)
    view.refresh(runs, None)
    assert "finished · 1 cases trained on, 1 validated" in view._status.text()
    assert len(view.curves._curves.loss) == 2
    assert set(view.curves._curves.dice) == set(RunFolder.open(runs / "tiny").plan.output_names)
    view.refresh(runs, runs / "tiny")
    view.show()
    view.take(runs / "tiny", Step(5, 2, 0.7, 1e-3, 3.0, 125.0, 2048.0))
    qtbot.waitUntil(lambda: "step" in standing(view))
    assert standing(view).startswith("epoch 3 · step 5 · loss 0.700 · 2 min left · CPU")
    assert standing(view).endswith("2.0 GB")
    with qtbot.waitSignal(view.validation_wanted) as wanted:
        view._look.click()
    assert wanted.args == [runs / "tiny", "case2"]


def test_a_running_one_tells_what_the_discriminator_says(trained_study, qtbot):
    runs = trained_study.with_name("study-seg3d") / "runs"
    view = RunView()
    qtbot.addWidget(view)
    view.refresh(runs, runs / "tiny")
    view.show()
    told = {"D loss": 0.2, "D accuracy": 0.75, "D updated": 1.0, "G loss": 3.1, "voxel loss": 0.5}
    view.take(runs / "tiny", Step(5, 2, 3.1, 1e-3, 3.0, 125.0, 2048.0, told))
    qtbot.waitUntil(lambda: "step" in standing(view))
    assert standing(view).startswith(
        "epoch 3 · step 5 · D loss 0.200 · D accuracy 75 % · D updated · G loss 3.100 · voxel loss 0.500 · 2 min left"
    )


def test_parting_losses_are_hinted_at(trained_study, qtbot):
    runs = trained_study.with_name("study-seg3d") / "runs"
    view = RunView()
    qtbot.addWidget(view)
    view.refresh(runs, runs / "tiny")
    view.show()
    assert not view._hint.isVisible()
    for epoch in range(1, 12):
        view.take(runs / "tiny", EpochDone(epoch, 12, 1 / epoch, 1e-3, 2 * epoch, float(epoch)))
        loss = 0.4 + abs(epoch - 4) / 20
        view.take(runs / "tiny", Validated(epoch, 2 * epoch, {}, 0.5, {}, False, float(epoch), loss))
    assert view._hint.isVisible()
    view.show_run(runs / "tiny")
    assert not view._hint.isVisible()


def test_the_tensorboard_command_can_be_copied(trained_study, qtbot):
    from qtpy.QtWidgets import QApplication

    runs = trained_study.with_name("study-seg3d") / "runs"
    view = RunView()
    qtbot.addWidget(view)
    view.refresh(runs, None)
    assert view._board.isEnabled()
    view._board.menu().actions()[0].trigger()
    assert QApplication.clipboard().text() == f'tensorboard --logdir "{runs / "tiny" / "tensorboard"}"'
    assert list((runs / "tiny" / "tensorboard").iterdir())


def test_memory_has_a_unit():
    assert (memory_in_words(830.4), memory_in_words(7270)) == ("830 MB", "7.1 GB")


# ------------------------------------------------------------------------------------------ the page in a real viewer


class Page:
    """The page in a viewer, and what tests do with it."""

    def __init__(self, viewer, workspace, qtbot):
        self.panel = TrainPanel(workspace, viewer)
        viewer.window.add_dock_widget(self.panel, area="right")
        # A page that nobody sees makes no plan.
        viewer.window._qt_window.show()
        self.workspace, self.viewer, self.qtbot = workspace, viewer, qtbot
        self.ended = []
        workspace.job_ended.connect(self._note_end)

    def _note_end(self, job, how):
        if job.kind == "train":
            self.ended.append(how)

    def wait(self, condition, seconds=60):
        self.qtbot.waitUntil(condition, timeout=1000 * seconds)

    def open(self, study, epochs=2):
        self.workspace.open_dataset(study)
        self.wait(lambda: self.workspace.dataset is not None)
        self.choose(epochs)

    def choose(self, epochs):
        self.panel.form.set_changes({"batch_size": 1, "steps_per_epoch": 2})
        self.panel.choices.remember({"unit": "epochs", "length": epochs, "device": "cpu"})
        self.panel.choices.changed.emit()
        self.wait(lambda: self.panel.plan_is_ready)

    def start_and_wait(self):
        count = len(self.ended)
        self.panel.start_button.click()
        self.wait(lambda: len(self.ended) > count)
        self.wait(lambda: self.panel.plan_is_ready)
        return self.ended[-1]

    def run(self, name):
        return self.workspace.runs / name


@pytest.fixture
def page(viewer_workspace, qtbot):
    return Page(*viewer_workspace, qtbot)


def test_from_the_empty_page_to_a_second_training(page, study):
    panel = page.panel
    assert panel.is_empty
    page.open(study)
    assert not panel.is_empty
    panel.unfold_plan()
    panel._form_fold.set_open(True)
    assert panel.body.parentWidget().minimumSizeHint().width() <= NARROW - 20
    assert panel.start_button.isEnabled()
    assert "2 labelled cases: 1 train, 1 validate" in panel.split._words.text()
    assert panel._proposal.plan.steps_per_epoch == 2
    assert panel.choices.name == "unet-1"
    panel.layers.button.click()
    page.wait(lambda: panel.layers.window_shown is not None and panel.layers.window_shown.isVisible())
    assert panel.layers.window_shown.tree.topLevelItem(0).text(0) == "unet"
    panel.layers.window_shown.close()

    # A double click starts one training; while it runs nothing else can start.
    panel.start_button.click()
    panel.start_button.click()
    assert not panel.start_button.isEnabled()
    assert sum(job.kind == "train" for job in (page.workspace.current_job, *page.workspace.jobs.queue) if job) == 1
    page.wait(lambda: len(page.ended) == 1)
    assert page.ended == ["finished"]
    assert "Trained 4 steps" in panel.messages.text
    assert (page.run("unet-1") / "model.safetensors").is_file()
    assert len(panel.run_view.curves._curves.loss) == 2
    assert [name for name, _ in page.workspace.models()] == ["unet-1"]

    # The validation prediction comes as a layer of its own; its case is opened for it.
    panel.run_view._look.click()
    page.wait(lambda: any("validation" in layer.name for layer in page.viewer.layers))
    layer = page.viewer.layers["unet-1 validation, epoch 2"]
    assert origin_of(layer).case_id == page.workspace.case_id == panel.run_view._case.currentText()
    assert "truth" in page.viewer.layers
    # Asking again brings the same layer back.
    layer.visible = False
    panel.run_view._look.click()
    page.wait(lambda: layer.visible)
    assert sum("validation" in layer.name for layer in page.viewer.layers) == 1
    page.viewer.layers.remove(layer)

    # A second training in the same session gets a name of its own and starts from the first.
    page.wait(lambda: panel.plan_is_ready)
    panel.choices.start_from(page.run("unet-1"))
    page.wait(lambda: panel.plan_is_ready)
    assert panel.choices.name == "unet-1-tuned-1"
    panel.start_button.click()

    def appears():
        # Other pages announce results just then; the page must follow the new run all the same.
        page.workspace.results_changed.emit()
        return (page.run("unet-1-tuned-1") / "plan.json").is_file()

    page.wait(appears)
    page.workspace.results_changed.emit()
    page.wait(lambda: panel.run_view.entry.folder == page.run("unet-1-tuned-1"))
    page.wait(lambda: len(page.ended) == 2)
    assert page.ended[-1] == "finished"
    assert RunFolder.open(page.run("unet-1-tuned-1")).facts().start_model


def test_cross_validation_then_more_of_a_finished_run(viewer, workspace, study, qtbot):
    page = Page(viewer, workspace, qtbot)  # its jobs are carried out at once, without a process of their own
    panel = page.panel
    shutil.copy(study / "labels" / "case1.nii.gz", study / "labels" / "case10.nii.gz")
    panel.split.set_choice(SplitChoice(None, 34, 0, 3))
    page.open(study, epochs=1)
    assert "3 labelled cases in 3 folds" in panel.split._words.text()
    assert panel.choices.name == "unet-3fold-1"
    assert page.start_and_wait() == "finished"
    # The fold that was trained last is shown; all are in the list, and together they are one model.
    assert panel.run_view.entry.name == "unet-3fold-1/fold3"
    assert panel.run_view.count == 3
    assert [name for name, _ in page.workspace.models()] == ["unet-3fold-1"]
    assert not panel.resume_button.isEnabled()
    panel.run_view._compare.click()
    window = panel._runs_window
    assert window._runs[0].name == "unet-3fold-1"
    window.wanted.emit(page.run("unet-3fold-1"))
    assert panel.run_view.entry.name == "unet-3fold-1/fold1"
    # A cross-validation whose table is missing can go on wherever it is shown.
    record = page.run("unet-3fold-1") / "cross_validation.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "judged": []}))
    page.workspace.refresh_results()
    panel.run_view.show_run(page.run("unet-3fold-1") / "fold1")
    assert panel.resume_button.isEnabled()
    panel.resume_button.click()
    page.wait(lambda: len(page.ended) == 2)
    assert json.loads(record.read_text())["judged"]

    # A case gets a label map after the training: the finished run learns from it too.
    panel.split.set_choice(SplitChoice(None, 34, 0, 0))
    (study / "labels" / "case10.nii.gz").rename(study / "later.nii.gz")
    page.open(study, epochs=2)
    assert page.start_and_wait() == "finished"
    (study / "later.nii.gz").rename(study / "labels" / "case10.nii.gz")
    page.workspace.open_dataset(study)
    page.wait(lambda: len(page.workspace.dataset.labelled) == 3)
    panel.run_view.show_run(page.run("unet-1"))
    assert panel.resume_button.text() == "Go on"
    panel._more_menu.aboutToShow.emit()
    assert [action.text() for action in panel._more_menu.actions()] == [
        "Half as long again (1 epoch)",
        "Half as long again (1 epoch), also on 1 new case",
        "As long again (2 epochs)",
        "As long again (2 epochs), also on 1 new case",
    ]
    panel._more_menu.actions()[1].trigger()
    page.wait(lambda: len(page.ended) == 4)
    assert page.ended[-1] == "finished"
    assert "case10" in RunFolder.open(page.run("unet-1")).facts().train_ids
    assert RunFolder.open(page.run("unet-1")).plan.epochs == 3


def test_pause_stop_and_resume(page, study):
    panel = page.panel
    page.open(study, epochs=400)
    panel.start_button.click()
    page.wait(lambda: len(panel.run_view.curves._curves.mean_dice) >= 1)
    panel.pause_button.click()
    assert panel.pause_button.text() == "Go on"
    page.qtbot.wait(500)
    count = len(panel.run_view.curves._curves.loss)
    page.qtbot.wait(500)
    assert len(panel.run_view.curves._curves.loss) == count
    panel.pause_button.click()
    page.wait(lambda: len(panel.run_view.curves._curves.loss) > count)

    # Meanwhile the window goes on living: another case, layers that go.
    page.workspace.open_case("case1")
    page.wait(lambda: "truth" in page.viewer.layers)
    page.viewer.layers.clear()

    panel.stop_button.click()
    page.wait(lambda: page.ended == ["stopped"])
    assert "Resume" in panel.messages.text
    entry = panel.run_view.entry
    assert entry.state == "stopped"
    assert panel.resume_button.isEnabled()
    steps = max(event.steps for event in _rounds(entry.folder))

    panel.resume_button.click()
    panel.resume_button.click()
    page.wait(lambda: len(_rounds(entry.folder)) > 0 and max(e.steps for e in _rounds(entry.folder)) > steps + 4)
    panel.stop_button.click()
    page.wait(lambda: page.ended == ["stopped", "stopped"])


def _rounds(run: Path):
    return [event for event in read_history(run) if isinstance(event, EpochDone)]


def test_a_failing_training_says_why_and_the_next_one_works(without_child, page, study):
    panel = page.panel
    page.open(study)
    image = study / "images" / "case1.nii.gz"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    assert page.start_and_wait() == "failed"
    assert "case1" in panel.messages.text
    assert panel.start_button.isEnabled()
    image.write_bytes(whole)
    assert page.start_and_wait() == "finished"

    # Closing the dataset empties the page, but for nothing that still runs.
    page.workspace.close_dataset()
    assert panel.is_empty


def test_nothing_to_learn_from_is_said(page, study):
    for file in (study / "labels").iterdir():
        file.unlink()
    page.workspace.open_dataset(study)
    page.wait(lambda: page.workspace.dataset is not None)
    assert page.panel.is_empty
    assert page.panel._reasons.currentIndex() == 1


def test_a_closed_page_is_forgotten(viewer_workspace, qtbot):
    viewer, workspace = viewer_workspace
    panel = TrainPanel(workspace, viewer)
    dock = viewer.window.add_dock_widget(panel, area="right")
    gone = weakref.ref(panel)
    viewer.window.remove_dock_widget(dock)
    del panel, dock
    qtbot.wait(50)
    gc.collect()
    assert gone() is None
    workspace.results_changed.emit()
    workspace.dataset_changed.emit()


def test_labels_of_another_grid_or_a_missing_file_are_told_not_shown(viewer_workspace, study, qtbot):
    viewer, workspace = viewer_workspace
    said = []
    workspace.message.connect(lambda level, text, details: said.append(text))
    workspace.open_dataset(study)
    qtbot.waitUntil(lambda: workspace.dataset is not None)
    workspace.open_case("case1")
    qtbot.waitUntil(lambda: "truth" in viewer.layers)
    shower = LabelsFromFile(workspace, viewer)
    other = LabelMap(np.zeros((4, 5, 6), np.uint8), Geometry.with_spacing((4, 5, 6)))
    assert shower.add(other, "case1", "wrong") is None
    assert "another grid" in said[-1]
    shower.show("case1", study / "no such file.nii.gz", "none")
    assert "moved or deleted" in said[-1]
    assert len(viewer.layers) == 2


def test_finished_is_the_last_word():
    # The planner's job must end like every other: with exactly one terminal event.
    events = list(propose((), Choices()))
    assert not isinstance(events[-1], Finished)
    assert len([event for event in events if type(event).__name__ in ("Finished", "Failed")]) == 1
