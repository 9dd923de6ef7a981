"""The Train page: choose, see the plan, start, watch the curves, stop, go on."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QMenu, QPushButton, QStackedWidget, QWidget

from ..cases.case import CaseFiles
from ..cases.dataset import Split, open_dataset
from ..cases.fingerprint import Fingerprint
from ..errors import DatasetError, Seg3dError
from ..events import Event, Failed, Finished, Progress, RunBegan, Saved, Validated, Warned
from ..model.network_settings import FAMILIES
from ..model.plan import Adversarial, Augmentation, Plan
from ..training.cross_validation import fold_folder
from ..training.run import RunFolder, read_history, relative, run_name
from .forms import SettingsForm
from .labels_from_file import LabelsFromFile
from .navigate import show_page
from .planning import Choices, Proposal
from .preview import PatchPreview, Wanted
from .run_view import RunEntry, RunView
from .summary_window import SummaryButton
from .train_choices import ChoicesWidget, SplitChoice, SplitWidget
from .widgets import EmptyState, MainButton, Panel, Section, duration, listen, quiet_label
from .work import Job

if TYPE_CHECKING:
    from napari import Viewer

    from .runs_window import RunsWindow
    from .workspace import Workspace

#: Milliseconds after the last change before a new plan is made.
SETTLE_MS = 500
#: What of the plan can be changed by hand, by heading. Length, seed and network are chosen above.
SETTINGS = {
    "What is learned": ("targets", "ignore_value"),
    "Grid and intensities": (
        "spacing_mm",
        "crop_to_foreground",
        "clip_percentiles",
        "normalisation",
        "smooth_sigma_voxels",
        "sharpening",
        "patch_voxels",
    ),
    # Every setting of every family; those that the planned network does not have are left out.
    "Network": tuple(
        dict.fromkeys(
            f"network.{name}"
            for family in FAMILIES.values()
            for name in family.model_fields
            if name not in ("name", "kernels", "strides")
        )
    ),
    "Learning": (
        "batch_size",
        "steps_per_epoch",
        "validate_every",
        "loss",
        "optimizer",
        "learning_rate",
        "weight_decay",
        "momentum",
        "nesterov",
        "schedule",
        "warmup_steps",
        "clip_norm",
        "ema_decay",
        "patience",
        "foreground_fraction",
        "least_label_share",
    ),
    "Discriminator": tuple(f"adversarial.{name}" for name in Adversarial.model_fields),
    "Fine-tuning": ("encoder_rate", "rehearsal_fraction"),
    "Augmentation": tuple(f"augmentation.{name}" for name in Augmentation.model_fields),
    "Prediction": ("window_overlap",),
}
_MEMORY = "train"


class TrainPanel(Panel):
    """Everything about training on the open dataset.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    """

    def __init__(self, workspace: Workspace, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(workspace, viewer, parent)
        self._split: Split | None = None
        self._proposal: Proposal | None = None
        self._planning: Job | None = None
        self._known: tuple[object, Fingerprint] | None = None
        self._failure: Failed | None = None
        #: The run that was switched to when it began.
        self._followed: Path | None = None
        #: The fold that is trained, in a cross-validation.
        self._fold: Path | None = None
        self._runs_window: RunsWindow | None = None
        self._labels = LabelsFromFile(workspace, viewer)
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.timeout.connect(self._plan)

        self.split = SplitWidget()
        self.choices = ChoicesWidget()
        self.form = SettingsForm(SETTINGS, judged_elsewhere=("targets",))
        self._plan_words = quiet_label()
        self._plan_words.setTextFormat(Qt.TextFormat.RichText)
        self._plan_fold = Section("Plan", tooltip="What will be trained and why, before it starts")
        self._plan_fold.body.addWidget(self._plan_words)
        self.layers = SummaryButton(workspace)
        self._plan_fold.body.addWidget(self.layers)
        self._form_fold = Section("More settings", tooltip="Change single settings of the plan")
        self._form_fold.body.addWidget(self.form)
        self._new = Section("New training", open_=True, tooltip="What to train on and how")
        self.preview = PatchPreview(workspace, viewer)
        for part in (self.split, self.choices, self._plan_fold, self.preview, self._form_fold):
            self._new.body.addWidget(part)
        self.start_button = MainButton("Start", "Train with this plan; the window stays usable")
        self.pause_button = QPushButton("Pause")
        self.pause_button.setToolTip("Let the training wait after its next step; nothing is lost")
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("Save the model and the state, and end the training; it can be resumed later")
        self.resume_button = QPushButton("Resume")
        self._more_menu = QMenu(self)
        self._more_menu.aboutToShow.connect(self._offer_more)
        self.run_view = RunView()
        self._lay_out()
        self._connect()
        self.choices.set_devices(workspace.settings.get("devices", []))
        self._recall()
        self._dataset_changed()

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.setSpacing(6)
        buttons.addWidget(self.start_button, 2)
        for button in (self.resume_button, self.pause_button, self.stop_button):
            buttons.addWidget(button, 1)
        self.body.addWidget(self._new)
        self.body.addLayout(buttons)
        self.body.addWidget(self.run_view, 1)
        self.body.addStretch(0)
        viewer = self.viewer
        to_data = ("To the Data page", "Choose a dataset folder there", lambda: show_page(viewer, "Data"))
        self._reasons = QStackedWidget()
        self._reasons.addWidget(
            EmptyState(
                "No dataset is open", "Open a folder with labelled cases first, then train on it here.", [to_data]
            )
        )
        self._reasons.addWidget(
            EmptyState(
                "Nothing to learn from",
                "No case of this dataset has all its images and a label map. Open another folder, or correct and save "
                "label maps on the Review page.",
                [to_data],
            )
        )
        self.set_empty_state(self._reasons)

    def _connect(self) -> None:
        self.split.changed.connect(self._split_changed)
        self.choices.changed.connect(self._choices_changed)
        self.choices.model_wanted.connect(self._browse_model)
        self.choices.folder_button.clicked.connect(self._browse_folder)
        self.form.changed.connect(self._choices_changed)
        self.start_button.clicked.connect(self.start)
        self.pause_button.clicked.connect(self._toggle_pause)
        self.stop_button.clicked.connect(self._stop)
        self.resume_button.clicked.connect(self.resume)
        self.run_view.chosen.connect(self._enable)
        self.run_view.validation_wanted.connect(self._show_validation)
        self.run_view.comparison_wanted.connect(self.compare_runs)
        self.choices.name_edited.connect(self._enable)
        # psygnal holds bound methods weakly: a closed panel is not kept alive by these.
        workspace = self.workspace
        listen(self, workspace.dataset_changed, self._dataset_changed)
        listen(self, workspace.results_changed, self._results_changed)
        listen(self, workspace.job_started, self._job_started)
        listen(self, workspace.job_event, self._take_event)
        listen(self, workspace.job_ended, self._job_ended)
        listen(self, workspace.jobs_changed, self._enable)

    # What is trained on

    def _dataset_changed(self) -> None:
        dataset = self.workspace.dataset
        labelled = () if dataset is None else dataset.labelled
        self._reasons.setCurrentIndex(0 if dataset is None else 1)
        self._proposal = None
        self.form.set_changes({})
        self.choices.forget_name()
        if dataset is not None and self.split.choice.file is not None:
            self.split.set_file(None)
        self._results_changed()
        self._split_changed()
        # Runs of a dataset stay worth seeing where no case has labels any more.
        self.show_empty(not labelled and not self.run_view.count)

    def _split_changed(self) -> None:
        dataset = self.workspace.dataset
        self._split = None
        if dataset is not None and dataset.labelled:
            try:
                self._split = self.split.choice.of(dataset)
                self.split.say(self.split.choice.in_words(self._split))
            except Seg3dError as error:
                self.split.say(f"⚠ {error}")
        self._choices_changed()

    def _cases(self, cases: tuple[CaseFiles, ...]) -> tuple[CaseFiles, ...]:
        """Return cases with their newest corrections: what was corrected is learned from."""
        return tuple(self.workspace.with_correction(case) for case in cases)

    # The plan

    def _choices_changed(self) -> None:
        self._proposal = None
        self.workspace.settings.set(_MEMORY, self._memory())
        self._suggest_name()
        self._settle.start()
        self._enable()

    def showEvent(self, event: QShowEvent) -> None:
        """Make the plan when the page is looked at; not before, as it reads all cases."""
        super().showEvent(event)
        if self._proposal is None:
            self._settle.start()

    def _choice(self) -> Choices:
        return self.choices.choices(self.split.choice.seed, self.form.changes())

    def _plan(self) -> None:
        """Ask for a plan in the background; an older request is dropped."""
        if self._planning is not None:
            self.workspace.jobs.drop(self._planning)
            self._planning = None
        up_to_date = self._proposal is not None and self._proposal.choices == self._choice()
        if self._split is None or not self.isVisible() or self._training() is not None or up_to_date:
            self._show_plan()
            return
        cases = (*self._split.train, *self._split.validation)
        known = self._known[1] if self._known is not None and self._known[0] == self._key(cases) else None
        kwargs = {"cases": self._cases(cases), "choices": self._choice(), "known": known}
        self._planning = Job("Planning", "napari_seg3d.gui.planning:propose", kwargs, "process", "plan")
        self.workspace.start(self._planning)
        self._show_plan()

    def _key(self, cases: tuple[CaseFiles, ...]) -> object:
        dataset = self.workspace.dataset
        return (None if dataset is None else dataset.root, frozenset(case.id for case in cases))

    def _take_proposal(self, proposal: Proposal) -> None:
        self._proposal = proposal
        if self._split is not None:
            self._known = (self._key((*self._split.train, *self._split.validation)), proposal.fingerprint)
        self.choices.set_devices(proposal.devices)
        self.workspace.settings.set("devices", list(proposal.devices))
        self.form.show_base(proposal.base)
        self._suggest_name()
        self._show_plan()
        self._enable()

    @property
    def plan_is_ready(self) -> bool:
        """Whether the shown choices have been planned."""
        return self._proposal is not None

    def unfold_plan(self) -> None:
        """Show the plan's lines."""
        self._new.set_open(True)
        self._plan_fold.set_open(True)

    def _show_plan(self, problem: str = "") -> None:
        proposal = self._proposal
        if problem or (proposal is not None and proposal.problem):
            self._plan_fold.set_title("Plan: not possible")
            self._plan_words.setText(problem or (proposal.problem if proposal else ""))
            self._plan_fold.set_open(True)
        elif proposal is None:
            waits = self._planning is not None and self.workspace.current_job not in (None, self._planning)
            self._plan_fold.set_title("Plan: made when the running work ends" if waits else "Plan: being made …")
            self._plan_words.setText("The cases are read once, then every choice is planned at once.")
        else:
            plan = proposal.plan
            self._plan_fold.set_title(f"Plan: {plan.network.name}, {count_in_words(proposal.parameters)} parameters")
            self._plan_words.setText(_plan_as_text(plan))

    # Start, pause, stop, resume

    def _training(self) -> Job | None:
        """The training that runs, is paused or waits for its turn."""
        jobs = self.workspace.jobs
        return next((job for job in (jobs.current, *jobs.queue) if job is not None and job.kind == "train"), None)

    def start(self) -> None:
        """Start a training with the plan that is shown."""
        proposal, split, dataset = self._proposal, self._split, self.workspace.dataset
        if proposal is None or split is None or dataset is None or self._training() is not None:
            return
        folder = self.workspace.runs / self.choices.name
        if problem := self._name_problem(folder):
            self.messages.show_message("error", problem)
            return
        kwargs = {
            "plan": proposal.plan,
            "cases": self._cases(split.train),
            "output": folder,
            "start": proposal.choices.start,
            "device": proposal.choices.device,
            "dataset": dataset.root.name,
            "test_ids": [case.id for case in split.test],
        }
        if folds := self.split.choice.folds:
            title, function = f"Cross-validating {folder.name}", "folds:cross_validate"
            kwargs["folds"] = folds
        else:
            title, function = f"Training {folder.name}", "loop:train"
            kwargs["validation"] = self._cases(split.validation)
            if (older := self.choices.older) is not None:
                try:
                    kwargs |= mixed_in(older, split, folder)
                except Seg3dError as error:
                    self.messages.show_message("error", f"The older cases cannot be mixed in. {error}")
                    return
        self.workspace.start(Job(title, f"napari_seg3d.training.{function}", kwargs, "process", "train"))
        self._begun()

    def resume(self) -> None:
        """Go on with the run that is shown, or with the cross-validation that it is part of."""
        entry = self.run_view.entry
        if entry is not None and entry.resumable:
            self._go_on(entry, {})

    def _go_on(self, entry: RunEntry, more: dict[str, Any]) -> None:
        """Resume a run; `more` is what a finished one gets on top."""
        dataset = self.workspace.dataset
        if dataset is None or self._training() is not None:
            return
        kwargs = {"cases": self._cases(dataset.cases), "device": self._choice().device, **more}
        if entry.whole is not None:
            kwargs["output"] = entry.whole
            title, function = f"Cross-validating {entry.whole.name}", "folds:resume_cross_validation"
        else:
            kwargs["output"] = entry.folder
            title, function = f"Training {entry.name}", "loop:resume"
            if entry.facts.older_ids:
                try:
                    kwargs["older"] = open_dataset(entry.folder / entry.facts.older_dataset).cases
                except Seg3dError as error:
                    self._tell("error", f"The older cases that this run mixes in are not there. {error}")
                    return
        self.workspace.start(Job(title, f"napari_seg3d.training.{function}", kwargs, "process", "train"))
        self._begun()

    def _offer_more(self) -> None:
        """Fill the menu of a finished run: how much longer, and whether also on cases that have come since."""
        self._more_menu.clear()
        entry, dataset = self.run_view.entry, self.workspace.dataset
        if entry is None or dataset is None:
            return
        try:
            plan = RunFolder.open(entry.folder).plan
        except Seg3dError as error:
            self._tell("error", str(error))
            return
        facts = entry.facts
        known = {*facts.train_ids, *facts.validation_ids, *facts.test_ids}
        new = [case.id for case in self._cases(dataset.cases) if case.best_truth is not None and case.id not in known]
        for words, part in (("Half as long again", 0.5), ("As long again", 1.0)):
            if plan.epochs is not None:
                length: dict[str, Any] = {"more_epochs": max(1, round(part * plan.epochs))}
                told = "1 epoch" if length["more_epochs"] == 1 else f"{length['more_epochs']} epochs"
            else:
                length = {"more_s": part * float(plan.budget_s or 0)}
                told = duration(length["more_s"])
            for cases in ([], new) if new else ([],):
                also = f", also on {len(cases)} new {'case' if len(cases) == 1 else 'cases'}" if cases else ""
                action = self._more_menu.addAction(f"{words} ({told}){also}")
                more = {**length, "add": cases}
                action.triggered.connect(lambda _=False, more=more: self._go_on(entry, more))

    def _begun(self) -> None:
        self.messages.clear()
        self._new.set_open(False)
        self._enable()

    def _name_problem(self, folder: Path) -> str:
        name = self.choices.name
        if not re.fullmatch(r"[\w][\w .()+-]*", name):
            return "Give the run a name of letters, digits, spaces, dots and hyphens: it becomes the name of a folder."
        if folder.exists():
            return f"There is a run {name} already. Choose another name, or resume that run."
        return ""

    def _toggle_pause(self) -> None:
        if self.workspace.jobs.paused:
            self.workspace.resume()
        else:
            self.workspace.pause()

    def _stop(self) -> None:
        training = self._training()
        if training is not None:
            # Takes it out of the queue if it has not begun.
            self.workspace.jobs.drop(training)
            self.stop_button.setEnabled(False)

    def _enable(self) -> None:
        """Let only those buttons be pressed that make sense now."""
        jobs, training = self.workspace.jobs, self._training()
        entry = self.run_view.entry
        runs = training is not None and jobs.current is training
        self.start_button.setEnabled(self._proposal is not None and not self._proposal.problem and training is None)
        self.start_button.setText("Training …" if runs else "Waiting …" if training is not None else "Start")
        self.start_button.setToolTip(self._why_no_start() or "Train with this plan; the window stays usable")
        resumable = training is None and entry is not None and entry.resumable
        self.resume_button.setVisible(training is None)
        may_learn_more = entry is not None and entry.may_learn_more and not resumable
        self.resume_button.setText("Go on" if may_learn_more else "Resume")
        self.resume_button.setMenu(self._more_menu if may_learn_more else None)
        self.resume_button.setEnabled((resumable or may_learn_more) and self.workspace.dataset is not None)
        self.resume_button.setToolTip(
            f"Go on with {(entry.whole or entry.folder).name} where it was saved"
            if resumable and entry
            else "Give the finished run more time, or cases that have got labels since"
            if may_learn_more
            else "The shown run needs no more work"
        )
        for button in (self.pause_button, self.stop_button):
            button.setVisible(training is not None)
        self.pause_button.setEnabled(runs)
        self.pause_button.setText("Go on" if runs and jobs.paused else "Pause")
        self.stop_button.setEnabled(training is not None)
        self.split.setEnabled(training is None)
        self.choices.setEnabled(training is None)
        self.form.setEnabled(training is None and self._proposal is not None)
        # Handed over, not asked for: parts that keep a method of the page would keep a closed page alive.
        self.preview.propose(self._patches_wanted())
        self.layers.propose(self._possible_plan())

    def _possible_plan(self) -> Plan | None:
        return None if self._proposal is None or self._proposal.problem else self._proposal.plan

    def _patches_wanted(self) -> Wanted | None:
        """Return the plan and the cases of which a training patch can be shown."""
        plan = self._possible_plan()
        return None if plan is None or self._split is None else Wanted(plan, self._cases(self._split.train))

    def _why_no_start(self) -> str:
        if self._training() is not None:
            return "One training at a time: stop this one first"
        if self._split is None:
            return "There are no cases to train on"
        if self._proposal is None:
            return "The plan is being made"
        return self._proposal.problem

    # What jobs report

    def _job_started(self, job: Job) -> None:
        if job.kind == "train":
            self._failure = None
            self._followed = self._fold = None
        if job is self._planning:
            self._show_plan()
        self._enable()

    def _take_event(self, job: Job, event: Event) -> None:
        if job is self._planning:
            if isinstance(event, Finished):
                self._take_proposal(event.result)
            elif isinstance(event, Failed):
                self._show_plan(event.message)
            elif isinstance(event, Progress) and event.total:
                self._plan_fold.set_title(f"Plan: reading case {event.done:.0f} of {event.total:.0f} …")
        elif job.kind == "train":
            self._take_training(job, event)

    def _take_training(self, job: Job, event: Event) -> None:
        if isinstance(event, RunBegan):
            self._fold = event.run
        run = self._run_of(job)
        # Once, when its folder is there: afterwards the user may look at other runs meanwhile.
        if self._followed != run and (run / "run.json").is_file():
            self._followed = run
            self.run_view.refresh(self.workspace.runs, run)
            self.run_view.show_run(run)
        self.run_view.take(run, event)
        if isinstance(event, Warned):
            self._tell("warning", event.message)
        elif isinstance(event, Failed):
            self._failure = event
        elif isinstance(event, Finished):
            self._tell("info", f"{event.message} Predict with {Path(event.result).name} on the Predict page.")
        elif isinstance(event, Saved) and event.what == "model":
            self._results_changed()

    def _run_of(self, job: Job) -> Path:
        """Return the run that a training job writes, of a cross-validation that of the fold at hand."""
        return self._fold or Path(job.kwargs["output"])

    def _job_ended(self, job: Job, how: str) -> None:
        if job is self._planning:
            self._planning = None
        if job.kind == "train":
            self._say_how_it_ended(self._run_of(job), how)
            self._fold = None
            self._results_changed()
            self.choices.forget_name()
            self._suggest_name()
            self._new.set_open(how in ("failed", "crashed") and not self.run_view.count)
            self._settle.start()
        self._enable()

    def _say_how_it_ended(self, run: Path, how: str) -> None:
        saved = (run / "checkpoint.safetensors").is_file()
        kept = "What it had learned is saved; Resume goes on from there." if saved else "Nothing was learned yet."
        if how == "stopped":
            self._tell("info", f"Stopped. {kept}")
        elif how in ("failed", "crashed"):
            failure = self._failure or Failed("The training ended without a word.")
            self._tell("error", f"{failure.message} {kept if saved else ''}".strip(), failure.details)

    def _tell(self, level: str, text: str, details: str = "") -> None:
        self.messages.show_message(level, text, details)

    # Runs, models and folders

    def _results_changed(self) -> None:
        training = self._training()
        running = self._run_of(training) if training is not None else None
        self.run_view.refresh(None if self.workspace.output is None else self.workspace.runs, running)
        self.choices.set_models(self.workspace.models())
        root = None if self.workspace.dataset is None else Path(self.workspace.dataset.root)
        self.choices.set_older([path for path in self.workspace.recent if path != root])
        self._suggest_name()
        self._enable()

    def _suggest_name(self) -> None:
        choice = self._choice()
        if choice.start is not None:
            stem = f"{choice.start.stem if choice.start.is_file() else choice.start.name}-tuned"
        else:
            stem = choice.network if choice.recipe == "automatic" else choice.recipe
        if folds := self.split.choice.folds:
            stem = f"{stem}-{folds}fold"
        number = 1
        while self.workspace.output is not None and (self.workspace.runs / f"{stem}-{number}").exists():
            number += 1
        self.choices.suggest_name(f"{stem}-{number}")

    def _browse_model(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Model to start from", "", "Models (*.safetensors)")
        if path:
            self._add_model(Path(path))

    def _add_model(self, path: Path) -> None:
        try:
            self.workspace.add_model(path)
        except Seg3dError as error:
            self._tell("error", str(error))
            return
        self.choices.start_from(path)

    def _browse_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Project folder", str(self.workspace.output or ""))
        if folder:
            self.workspace.set_output(Path(folder))

    def _show_validation(self, run: Path, case_id: str) -> None:
        path = run / "validation" / f"{case_id}.nii.gz"
        epochs = [event.epoch for event in read_history(run) if isinstance(event, Validated)]
        when = f", epoch {epochs[-1]}" if epochs else ""
        self._labels.show(case_id, path, f"{run_name(run)} validation{when}")

    def compare_runs(self) -> None:
        """Show the project's runs side by side in a window of their own."""
        if self._runs_window is None:
            # Only now: statistics take a second to load.
            from .runs_window import RunsWindow

            self._runs_window = RunsWindow(self)
            self._runs_window.wanted.connect(self._show_run)
        self._runs_window.show_runs(self.workspace.runs)
        self._runs_window.show()
        self._runs_window.raise_()

    def _show_run(self, folder: Path) -> None:
        """Show a run's curves; of a whole cross-validation those of its first fold."""
        if folder.parent == self.workspace.runs and not (folder / "run.json").is_file():
            folder = fold_folder(folder, 1)
        self.run_view.show_run(folder)

    # What is remembered

    def _memory(self) -> dict[str, Any]:
        split = self.split.choice
        return {
            **self.choices.remembered(),
            "validation_percent": split.validation_percent,
            "seed": split.seed,
            "folds": split.folds,
        }

    def _recall(self) -> None:
        values = self.workspace.settings.get(_MEMORY, {})
        self.choices.remember(values)
        usual = SplitChoice()
        percent, seed = values.get("validation_percent", usual.validation_percent), values.get("seed", usual.seed)
        folds = values.get("folds", usual.folds)
        if all(isinstance(value, int) for value in (percent, seed, folds)):
            self.split.set_choice(SplitChoice(None, percent, seed, folds))


def mixed_in(older: Path, split: Split, run: Path) -> dict[str, Any]:
    """Return what a training must know of an older dataset; cases that it learns from or keeps anyway are left out."""
    there = {case.id for case in (*split.train, *split.validation, *split.test)}
    cases = [case for case in open_dataset(older).labelled if case.id not in there]
    if not cases:
        raise DatasetError(f"{older.name} has no labelled cases besides those of this training. Choose another folder.")
    return {"older": cases, "older_dataset": relative(older, run)}


def count_in_words(count: int) -> str:
    """Write a number of parameters as people say it.

    Examples
    --------
    >>> count_in_words(3666), count_in_words(1_781_744), count_in_words(142_131_268)
    ('3,666', '1.8 M', '142 M')
    """
    if count < 100_000:
        return f"{count:,}"
    return f"{count / 1e6:.1f} M" if count < 10_000_000 else f"{count / 1e6:.0f} M"


def _plan_as_text(plan: Plan) -> str:
    """Return the plan's lines as rich text: what in bold, then the value, then the reason in italics below."""
    parts = []
    for line in plan.describe():
        reason = next((reason for reason in plan.reasons.values() if reason and line.endswith(f" ({reason})")), "")
        what, _, value = line.removesuffix(f" ({reason})").partition(": ")
        why = f"<br><i>{escape(reason)}</i>" if reason else ""
        parts.append(f'<p style="margin: 0 0 4px 0"><b>{escape(what)}</b> {escape(value)}{why}</p>')
    return "".join(parts)
