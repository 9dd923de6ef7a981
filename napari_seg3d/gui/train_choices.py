"""What to train on and how: the upper half of the Train page. Shows choices and reports them; knows no job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ..cases.case import CaseFiles
from ..cases.dataset import VALIDATION_FRACTION, Dataset, Split, fold_cases, read_split, split_cases
from ..model.networks import network_names, network_summary
from ..model.planner import PRESETS
from ..model.recipes import recipe_names, recipe_summary
from .editors import NumberBox, WheelGuard, combo
from .planning import AUTOMATIC, Choices
from .widgets import Section, duration, quiet_label

#: Seconds in the units in which a time can be given.
SECONDS = {"minutes": 60.0, "hours": 3600.0}
#: Numbers of folds that are offered; 0 is one training with a fixed division.
FOLDS = (0, 3, 5, 10)
#: Other ways to give a length, beside the planner's presets.
_EPOCHS, _PUBLISHED = "epochs", "published"
_BROWSE = "browse…"


@dataclass(frozen=True)
class SplitChoice:
    """How cases are divided: by a file, or by chance with a seed; with `folds` all of them train and validate by turns.

    A file's test cases are in no fold.
    """

    file: Path | None = None
    validation_percent: int = round(100 * VALIDATION_FRACTION)
    seed: int = 0
    folds: int = 0

    def of(self, dataset: Dataset) -> Split:
        """Divide the labelled cases; raises `DatasetError` if the file does not fit the dataset."""
        if self.file is not None:
            split = read_split(self.file, dataset)
            if self.folds:
                return self._folded((*split.train, *split.validation), split.test)
            if split.validation:
                return split
            # A file with training and test cases only: validation comes out of training, never out of the test.
            train, validation = self._drawn(split.train)
            return Split(train, split.test, validation)
        if self.folds:
            return self._folded(dataset.labelled, ())
        train, validation = self._drawn(dataset.labelled)
        return Split(train, (), validation)

    def _folded(self, cases: Sequence[CaseFiles], test: tuple[CaseFiles, ...]) -> Split:
        fold_cases(cases, self.folds, 1, seed=self.seed)  # refuses more folds than patients
        return Split(tuple(cases), test)

    def _drawn(self, cases: Sequence[CaseFiles]) -> tuple[tuple[CaseFiles, ...], tuple[CaseFiles, ...]]:
        return split_cases(cases, validation_fraction=self.validation_percent / 100, seed=self.seed)

    def in_words(self, split: Split) -> str:
        """Say what is trained on, for example "40 labelled cases: 32 train, 8 validate (drawn with seed 0)"."""
        count = len(split.train) + len(split.validation)
        if self.folds:
            kept = f"; {len(split.test)} kept for testing" if split.test else ""
            return (
                f"{count} labelled cases in {self.folds} folds, one model each: every case is judged once, by the "
                f"model that did not learn from it (drawn by patient with seed {self.seed}){kept}"
            )
        parts = [f"{len(split.train)} train", f"{len(split.validation)} validate"]
        if split.test:
            parts.append(f"{len(split.test)} kept for testing")
        origin = f"from {self.file.name}" if self.file is not None else f"drawn by patient with seed {self.seed}"
        cases = "case" if count == 1 else "cases"
        return f"{count} labelled {cases}: {', '.join(parts)} ({origin})"


class SplitWidget(QWidget):
    """What is trained on, in one line, and how it is divided, folded away."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._file: Path | None = None
        self._words = quiet_label()
        self._percent = QSpinBox()
        self._percent.setRange(0, 50)
        self._percent.setSuffix(" %")
        self._percent.setValue(20)
        self._percent.setToolTip("Share of the cases that judge the model and are not learned from")
        self._folds = combo("Cross-validation: as many models as folds, each judged by the cases it did not learn from")
        for count in FOLDS:
            self._folds.addItem(f"{count}-fold cross-validation" if count else "off", count)
        self._seed = QSpinBox()
        self._seed.setRange(0, 2**31 - 1)
        self._seed.setToolTip("Number from which the division and every random draw of the training follow")
        self._file_button = QPushButton("Choose file…")
        self._file_button.setToolTip('JSON file with lists of case ids under "train" and "test" or "validation"')
        self._file_button.clicked.connect(self._choose_file)
        self._clear = QToolButton()
        self._clear.setText("×")
        self._clear.setToolTip("Divide by chance instead of by the file")
        self._clear.clicked.connect(lambda: self.set_file(None))
        files = QHBoxLayout()
        files.addWidget(self._file_button, 1)
        files.addWidget(self._clear)
        form = _form()
        form.addRow("Validation", self._percent)
        form.addRow("Folds", self._folds)
        form.addRow("Seed", self._seed)
        form.addRow("Split file", files)
        self._fold = Section("Divided by", tooltip="How the cases are divided into training and validation")
        self._fold.body.addLayout(form)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self._words)
        layout.addWidget(self._fold)
        for box in (self._percent, self._seed):
            box.setKeyboardTracking(False)
            box.valueChanged.connect(self._refresh)
        self._folds.currentIndexChanged.connect(self._refresh)
        self._guard = WheelGuard(self)
        self._guard.watch(self)
        self._refresh()

    @property
    def choice(self) -> SplitChoice:
        """How the cases are divided."""
        return SplitChoice(self._file, self._percent.value(), self._seed.value(), self._folds.currentData())

    def set_choice(self, choice: SplitChoice) -> None:
        """Show a choice, for example a remembered one."""
        self._percent.setValue(choice.validation_percent)
        self._seed.setValue(choice.seed)
        self._folds.setCurrentIndex(max(0, self._folds.findData(choice.folds)))
        self.set_file(choice.file)

    def set_file(self, path: Path | None) -> None:
        """Divide by a file, or by chance if None."""
        self._file = path
        self._refresh()

    def say(self, text: str) -> None:
        """Say what is trained on, or what is wrong with the division."""
        self._words.setText(text)

    def _choose_file(self) -> None:
        start = str(self._file.parent) if self._file else ""
        path, _ = QFileDialog.getOpenFileName(self, "Split file", start, "JSON (*.json)")
        if path:
            self.set_file(Path(path))

    def _refresh(self) -> None:
        by_file = self._file is not None
        self._percent.setEnabled(not self._folds.currentData())
        self._file_button.setText(self._file.name if self._file else "Choose file…")
        self._clear.setVisible(by_file)
        folds = f", {self._folds.currentData()} folds" if self._folds.currentData() else ""
        self._fold.set_title(
            "Divided by " + (f"the file {self._file.name}" if self._file else "chance, seeded") + folds
        )
        self.changed.emit()


class ChoicesWidget(QWidget):
    """Plan or recipe, network, start, length, device and name of a training."""

    changed = Signal()
    name_edited = Signal()
    #: The user wants to start from a model that is not in the list.
    model_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._recipe = combo("What decides the settings: a plan made for these cases, or a published recipe")
        self._recipe.addItem("Automatic plan", AUTOMATIC)
        self._describe_last(self._recipe, "Spacing, patch, batch and depth follow from the cases and the memory")
        for name in recipe_names():
            if name != AUTOMATIC:
                self._recipe.addItem(f"Recipe {name}", name)
                self._describe_last(self._recipe, recipe_summary(name))
        self._network = combo("The kind of network that learns")
        for name in network_names():
            self._network.addItem(name, name)
            self._describe_last(self._network, network_summary(name))
        self._start = combo("Start with fresh weights, or fine-tune a model that was trained before")
        self._older = combo(
            "Fine-tuning: cases of the dataset that the model learned from, mixed in so that it does not forget them"
        )
        self._length = NumberBox()
        self._length.setRange(0.1, 100_000)
        self._length.setValue(10)
        self._unit = combo("How long to train. With a time, the learning rate follows the clock and fits into it")
        self._length.setToolTip(self._unit.toolTip())
        self._device = combo("What computes: automatic takes the first GPU, or else the CPU")
        self._name = QLineEdit()
        self._name.setToolTip("Name of the run: its folder, and the model's name on the Predict page")
        self._folder = QToolButton()
        self._folder.setText("…")
        self._folder.setToolTip("Choose another project folder")
        self._lay_out()
        self.set_models([])
        self.set_older([])
        self.set_devices(())
        self._refresh()
        for box in (self._recipe, self._network, self._unit, self._device):
            box.activated.connect(self._edited)
        self._start.activated.connect(self._start_chosen)
        self._older.activated.connect(self._older_chosen)
        self._name.textEdited.connect(lambda: self.name_edited.emit())
        self._length.valueChanged.connect(self._edited)
        self._guard = WheelGuard(self)
        self._guard.watch(self)

    def _lay_out(self) -> None:
        length = _side_by_side(self._length, self._unit)
        name = _side_by_side(self._name, self._folder)
        form = _form(self)
        form.addRow("Plan", self._recipe)
        form.addRow("Network", self._network)
        form.addRow("Start from", self._start)
        form.addRow("Mix in", self._older)
        form.addRow("Length", length)
        form.addRow("Device", self._device)
        form.addRow("Run name", name)
        self._network_label = form.labelForField(self._network)
        self._older_label = form.labelForField(self._older)

    @staticmethod
    def _describe_last(box: QComboBox, text: str) -> None:
        box.setItemData(box.count() - 1, text, Qt.ItemDataRole.ToolTipRole)

    @property
    def folder_button(self) -> QToolButton:
        """Opens the choice of the project folder."""
        return self._folder

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self._name.text()).strip()

    def suggest_name(self, name: str) -> None:
        """Show a free name, unless the user typed one."""
        if not self._name.isModified() or not self.name:
            self._name.setText(name)

    def forget_name(self) -> None:
        """Let the next suggestion replace the name, also one that was typed."""
        self._name.setModified(False)

    def choices(self, seed: int, changes: Mapping[str, object]) -> Choices:
        """Return what is chosen, with what other parts of the page know."""
        unit, length = self._unit.currentData(), float(self._length.value())
        return Choices(
            recipe=self._recipe.currentData(),
            network=self._network.currentData(),
            preset=unit if unit in PRESETS else "balanced",
            budget_s=length * SECONDS[unit] if unit in SECONDS else None,
            epochs=max(1, round(length)) if unit == _EPOCHS else None,
            start=self._start.currentData(),
            device=self._device.currentData(),
            seed=seed,
            changes=changes,
        )

    def set_models(self, models: Sequence[tuple[str, Path]]) -> None:
        """Offer trained models to start from; what was chosen stays chosen if it is still there."""
        chosen = self._start.currentData()
        self._start.clear()
        self._start.addItem("scratch", None)
        for name, path in models:
            self._start.addItem(f"model {name}", path)
            self._describe_last(self._start, f"Fine-tune: weights and plan of {path}")
        self._start.addItem(_BROWSE, _BROWSE)
        paths = [path for _, path in models]
        self._start.setCurrentIndex(paths.index(chosen) + 1 if chosen in paths else 0)

    def start_from(self, path: Path) -> None:
        """Choose a model that is offered."""
        for index in range(self._start.count()):
            if self._start.itemData(index) == path:
                self._start.setCurrentIndex(index)
        self._edited()

    @property
    def older(self) -> Path | None:
        """The dataset whose cases are mixed in; None without a start model."""
        chosen: Path | None = self._older.currentData()
        return None if self._start.currentData() is None else chosen

    def set_older(self, datasets: Sequence[Path]) -> None:
        """Offer datasets that can be mixed in; what was chosen stays chosen if it is still there."""
        chosen = self._older.currentData()
        self._older.clear()
        self._older.addItem("no older cases", None)
        for path in datasets:
            self._older.addItem(f"cases of {path.name}", path)
            self._describe_last(self._older, str(path))
        self._older.addItem(_BROWSE, _BROWSE)
        self._older.setCurrentIndex(datasets.index(chosen) + 1 if chosen in datasets else 0)

    def set_devices(self, devices: Sequence[str]) -> None:
        """Offer devices besides the automatic choice."""
        chosen = self._device.currentData()
        self._device.clear()
        for name in ("auto", *(devices or ("cpu",))):
            self._device.addItem({"auto": "automatic", "cpu": "CPU"}.get(name, name), name)
        self._device.setCurrentIndex(max(0, self._device.findData(chosen)))

    def remembered(self) -> dict[str, Any]:
        """Return the choices as plain values, for the window's settings."""
        return {
            "recipe": self._recipe.currentData(),
            "network": self._network.currentData(),
            "length": self._length.value(),
            "unit": self._unit.currentData(),
            "device": self._device.currentData(),
        }

    def remember(self, values: Mapping[str, Any]) -> None:
        """Show remembered choices; what no longer exists is passed over."""
        boxes = {"recipe": self._recipe, "network": self._network, "unit": self._unit, "device": self._device}
        for key, box in boxes.items():
            # Which lengths are offered depends on the recipe.
            self._refresh()
            if (index := box.findData(values.get(key))) >= 0:
                box.setCurrentIndex(index)
        if isinstance(length := values.get("length"), int | float):
            self._length.setValue(length)
        self._refresh()

    def _start_chosen(self) -> None:
        if self._start.currentData() == _BROWSE:
            self._start.setCurrentIndex(0)
            self.model_wanted.emit()
        self._edited()

    def _older_chosen(self) -> None:
        if self._older.currentData() == _BROWSE:
            self._older.setCurrentIndex(0)
            if folder := QFileDialog.getExistingDirectory(self, "Older dataset"):
                known = [self._older.itemData(i) for i in range(1, self._older.count() - 1)]
                self.set_older([*known, Path(folder)])
                self._older.setCurrentIndex(self._older.count() - 2)
        self._edited()

    def _edited(self, *_: object) -> None:
        self._refresh()
        self.changed.emit()

    def _refresh(self) -> None:
        """Show only what counts: a start model brings its plan, a recipe its network."""
        from_model = self._start.currentData() is not None
        planned = self._recipe.currentData() == AUTOMATIC
        self._recipe.setEnabled(not from_model)
        for part in (self._network, self._network_label):
            part.setVisible(planned and not from_model)
        for part in (self._older, self._older_label):
            part.setVisible(from_model)
        self._offer_lengths(published=not planned and not from_model)
        unit = self._unit.currentData()
        self._length.setVisible(unit in (*SECONDS, _EPOCHS))
        self._length.setDecimals(0 if unit == _EPOCHS else 12)

    def _offer_lengths(self, published: bool) -> None:
        """Offer times, epochs, and either the planner's presets or the length that a recipe's article states."""
        offered = {unit: (unit, "Time for everything") for unit in SECONDS}
        offered[_EPOCHS] = (_EPOCHS, "Rounds of training")
        if published:
            offered[_PUBLISHED] = ("as published", "As long as the article of the recipe says")
        else:
            for preset, (cpu_s, gpu_s) in PRESETS.items():
                offered[preset] = (f"preset {preset}", f"{duration(cpu_s)} on a CPU, {duration(gpu_s)} on a GPU")
        if [self._unit.itemData(i) for i in range(self._unit.count())] == list(offered):
            return
        chosen = self._unit.currentData()
        self._unit.clear()
        for unit, (text, tooltip) in offered.items():
            self._unit.addItem(text, unit)
            self._describe_last(self._unit, tooltip)
        fallback = _PUBLISHED if published and chosen in PRESETS else next(iter(SECONDS))
        self._unit.setCurrentIndex(self._unit.findData(chosen if chosen in offered else fallback))


def _form(parent: QWidget | None = None) -> QFormLayout:
    form = QFormLayout() if parent is None else QFormLayout(parent)
    form.setContentsMargins(0, 0, 0, 0)
    form.setSpacing(5)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def _side_by_side(wide: QWidget, narrow: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(4)
    row.addWidget(wide, 1)
    row.addWidget(narrow)
    wide.setMinimumWidth(80)
    wide.setSizePolicy(QSizePolicy.Policy.Ignored, wide.sizePolicy().verticalPolicy())
    return row
