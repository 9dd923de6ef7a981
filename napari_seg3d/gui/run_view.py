"""One training run on the screen: its curves, how it stands, and its newest validation predictions to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import Qt, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QApplication, QHBoxLayout, QLabel, QMenu, QPushButton, QToolButton, QVBoxLayout, QWidget

from ..errors import Seg3dError
from ..events import EpochDone, Event, Progress, Step, Validated, details_in_words
from ..model.plan import Plan
from ..training.cross_validation import is_cross_validation, read_cross_validation
from ..training.run import RunFacts, RunFolder, list_runs, looks_overfitted, read_history, run_name
from ..training.tracking import TENSORBOARD, command
from .curves import CurvesView
from .editors import WheelGuard, combo
from .widgets import duration, quiet_label

#: States in which a run can go on.
RESUMABLE = ("stopped", "interrupted", "failed")


@dataclass(frozen=True)
class RunEntry:
    """A run as the list shows it. `state` is that of its folder, but "interrupted" where nobody trains any more."""

    folder: Path
    state: str
    facts: RunFacts

    @property
    def name(self) -> str:
        """What it is called; a fold after its cross-validation."""
        return run_name(self.folder)

    @property
    def text(self) -> str:
        """Name and state."""
        return f"{self.name} · {self.state}"

    @property
    def whole(self) -> Path | None:
        """The cross-validation whose fold it is, as long as that is not finished."""
        folder = self.folder.parent
        try:
            unfinished = is_cross_validation(folder) and not read_cross_validation(folder).finished
        except Seg3dError:
            return None
        return folder if unfinished else None

    @property
    def may_learn_more(self) -> bool:
        """Whether it is done and can be given more time or cases; a fold cannot, for it would not match the others."""
        return self.state == "finished" and self.facts.fold is None

    @property
    def resumable(self) -> bool:
        """Whether it, or the cross-validation that it is part of, can go on."""
        return self.state in RESUMABLE or (self.state == "finished" and self.whole is not None)


def runs_in(folder: Path, running: Path | None) -> list[RunEntry]:
    """Return the runs in a folder, newest first; damaged ones are left out. `running` is the one that trains now."""
    entries = []
    for run in list_runs(folder):
        try:
            facts = RunFolder.open(run).facts()
        except Seg3dError:
            continue
        # A run that says of itself that it runs, but is not ours, was killed.
        state = "interrupted" if facts.state == "running" else facts.state
        entries.append(RunEntry(run, "running" if run == running else state, facts))
    return entries


def output_colours(plan: Plan) -> dict[str, str]:
    """Return the colours of what a plan learns, by the names under which its Dice is reported."""
    outputs = plan.regions if plan.targets == "regions" else plan.labels
    return {output.name: output.color for output in outputs}


def memory_in_words(megabytes: float) -> str:
    """Say an amount of memory: "830 MB", "7.1 GB"."""
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1024:.1f} GB"


class RunView(QWidget):
    """The runs of the project, the curves of the chosen one, and its validation predictions."""

    #: Another run is shown, or none.
    chosen = Signal()
    #: Run folder and case whose newest validation prediction the user wants to see.
    validation_wanted = Signal(object, str)
    #: The user wants to see the runs side by side.
    comparison_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._entries: list[RunEntry] = []
        self._running: Path | None = None
        self._shown: Path | None = None
        self._facts: Mapping[str, str] = {}
        self._newest: Step | EpochDone | Progress | None = None
        self._box = combo("The training whose curves are shown; earlier ones of this project are in the list")
        self._box.activated.connect(lambda index: self.show_run(self._box.itemData(index)))
        self._status = quiet_label()
        self._history: dict[tuple[type[Event], int], EpochDone | Validated] = {}
        self._hint = quiet_label("The validation loss rises while the training loss falls: it may be over-fitting.")
        self._hint.setToolTip(
            "The network begins to learn the training cases by heart. The best model so far is kept all the same. "
            "More cases, stronger augmentation or a smaller network help; so does stopping here."
        )
        self._hint.hide()
        self._board = self._tensorboard_button()
        self.curves = CurvesView()
        self.curves.about_to_draw.connect(self._say_status)
        self._case = combo("Validation case; its newest prediction by this run is shown beside the truth")
        self._look = QPushButton("Show validation prediction")
        self._look.setToolTip("Add the newest prediction of the case as a label layer; the case is opened if needed")
        self._look.clicked.connect(self._ask_for_validation)
        top = QHBoxLayout()
        top.addWidget(QLabel("Run"))
        top.addWidget(self._box, 1)
        self._compare = QPushButton("Compare…")
        self._compare.setToolTip("All runs side by side in a window of their own: Dice by label, differences by case")
        self._compare.clicked.connect(self.comparison_wanted.emit)
        top.addWidget(self._compare)
        standing = QHBoxLayout()
        standing.addWidget(self._status, 1)
        standing.addWidget(self._board, 0, Qt.AlignmentFlag.AlignTop)
        looking = QHBoxLayout()
        looking.addWidget(self._case, 1)
        looking.addWidget(self._look)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(top)
        layout.addLayout(standing)
        layout.addWidget(self._hint)
        layout.addWidget(self.curves, 1)
        layout.addLayout(looking)
        self._guard = WheelGuard(self)
        self._guard.watch(self)
        self.refresh(None, None)

    @property
    def entry(self) -> RunEntry | None:
        """The run that is shown."""
        return next((entry for entry in self._entries if entry.folder == self._shown), None)

    @property
    def running(self) -> Path | None:
        """The run that trains now, once its folder is there."""
        return self._running

    @property
    def count(self) -> int:
        """How many runs there are."""
        return len(self._entries)

    def refresh(self, folder: Path | None, running: Path | None) -> None:
        """Look again which runs there are in `folder`; `running` is the one that trains now."""
        self._running = running
        self._entries = [] if folder is None else runs_in(folder, running)
        self._box.clear()
        for entry in self._entries:
            self._box.addItem(entry.text, entry.folder)
        folders = [entry.folder for entry in self._entries]
        if self._shown not in folders:
            self.show_run(folders[0] if folders else None)
        else:
            self._box.setCurrentIndex(folders.index(self._shown))
            self._show_facts()
        self.setVisible(bool(self._entries))

    def show_run(self, folder: Path | None) -> None:
        """Show a run's curves so far."""
        self._shown = folder
        self._newest = None
        self._history = {}
        entry = self.entry
        if entry is None:
            self.curves.clear()
        else:
            self._box.setCurrentIndex(self._entries.index(entry))
            try:
                plan = RunFolder.open(entry.folder).plan
                history = read_history(entry.folder)
                self._history = {(type(event), event.epoch): event for event in history}
                self.curves.show_history(history, output_colours(plan), plan.steps_per_epoch)
            except Seg3dError as error:
                self.curves.clear()
                self._status.setText(str(error))
        self._show_facts()
        self.chosen.emit()

    def take(self, run: Path, event: Event) -> None:
        """Take an event of the training that runs now in `run`."""
        if run != self._shown:
            return
        self.curves.add(event)
        if isinstance(event, EpochDone | Validated):
            key = (type(event), event.epoch)
            self._history.pop(key, None)  # a round that was gone through again
            self._history[key] = event
            self._board.setEnabled(True)
        if isinstance(event, Validated):
            self._enable_look(True)
            self._hint_at_overfitting()
        if isinstance(event, Step | EpochDone | Progress):
            self._newest = event
            self.curves.touch()

    def _say_status(self) -> None:
        event = self._newest
        if event is None:
            return
        if isinstance(event, Progress):
            done = f" {event.done:.0f} of {event.total:.0f}" if event.total else ""
            parts = [f"{event.what}{done}"]
        else:
            epoch = event.epoch + 1 if isinstance(event, Step) else event.epoch
            step = event.step if isinstance(event, Step) else event.steps
            parts = [f"epoch {epoch}", f"step {step}"]
            parts += details_in_words(event.details).split(" · ") if event.details else [f"loss {event.loss:.3f}"]
        if event.seconds_left is not None:
            parts.append(f"{duration(event.seconds_left)} left")
        entry = self.entry
        if entry is not None:
            parts.append(entry.facts.device)
        if isinstance(event, Step) and event.memory_mb is not None:
            parts.append(memory_in_words(event.memory_mb))
        # Lines break between the parts only.
        self._status.setText(" · ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts))

    def _hint_at_overfitting(self) -> None:
        self._hint.setVisible(looks_overfitted(list(self._history.values())))

    def _tensorboard_button(self) -> QToolButton:
        button = QToolButton()
        button.setText("TensorBoard …")
        button.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        button.setToolTip(
            "The run keeps its curves as TensorBoard files too: copy the command that shows them in a browser (after "
            "pip install tensorboard), or open their folder"
        )
        menu = QMenu(button)
        menu.addAction("Copy command", self._copy_command)
        menu.addAction("Open folder", self._open_folder)
        button.setMenu(menu)
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        return button

    def _copy_command(self) -> None:
        if self._shown is not None:
            QApplication.clipboard().setText(command(self._shown))

    def _open_folder(self) -> None:
        if self._shown is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._shown / TENSORBOARD)))

    def _show_facts(self) -> None:
        entry = self.entry
        cases = () if entry is None else entry.facts.validation_ids
        if [self._case.itemText(i) for i in range(self._case.count())] != list(cases):
            self._case.clear()
            self._case.addItems(list(cases))
        self._case.setVisible(bool(cases))
        self._look.setVisible(bool(cases))
        self._enable_look(entry is not None and any((entry.folder / "validation").glob("*.nii*")))
        self._board.setVisible(entry is not None)
        self._board.setEnabled(entry is not None and (entry.folder / TENSORBOARD).is_dir())
        self._hint_at_overfitting()
        if entry is None:
            self._status.setText("")
        elif entry.state != "running":
            self._newest = None
            learned = f"{len(entry.facts.train_ids)} cases trained on, {len(cases)} validated"
            self._status.setText(f"{entry.state} · {learned} · {entry.facts.device}")

    def _enable_look(self, there: bool) -> None:
        self._look.setEnabled(there)
        self._case.setEnabled(there)

    def _ask_for_validation(self) -> None:
        if self._shown is not None:
            self.validation_wanted.emit(self._shown, self._case.currentText())
