"""Learning from corrections on the Review page: begin it, and see whether the new model is better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QWidget,
)

from ..errors import Seg3dError
from ..training.lesson import change_in_words
from .editors import combo
from .keys import bind_keys, with_key
from .plain_table import PlainTable
from .session import session_for
from .widgets import Section, listen, quiet_label

if TYPE_CHECKING:
    from napari import Viewer

    from ..training.lesson import Lesson
    from .workspace import Workspace

_HEADS = (
    ("Case", "Held out: the model has never learned from it"),
    ("Label", "The class or region"),
    ("Before", "Dice of the model before"),
    ("After", "Dice of the new model"),
    ("Δ", "After minus before"),
)
_ROWS = 8
_MINUTES = "learn_minutes"
#: Better and worse, readable on napari's light and dark themes.
_COLOURS = {"better": QColor("#2e9e5b"), "worse": QColor("#d05050")}


class LearnSection(Section):
    """Lets the current model learn from what was checked.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    """

    def __init__(self, workspace: Workspace, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(
            "Learn from corrections", tooltip="Train the model on with the cases and slices you checked", parent=parent
        )
        session = session_for(viewer)
        self._workspace, self._teacher = workspace, session.teacher
        self._build()
        for signal in (
            workspace.dataset_changed,
            workspace.results_changed,
            workspace.jobs_changed,
            session.queue.changed,
            session.teacher.ended,
        ):
            listen(self, signal, self.refresh)
        listen(self, session.teacher.ended, self._show_lesson)
        bind_keys(viewer, self, {"learn": LearnSection.learn})
        self.toggled.connect(lambda _: self.refresh())
        self.refresh()

    def _build(self) -> None:
        self.model_box = combo("The model that learns on; it stays as it is, a better one stands beside it")
        self.model_box.activated.connect(lambda _: self._choose())
        #: A model that the user has chosen; else the newest one counts.
        self._chosen: Path | None = None
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.2, 24 * 60)
        self.minutes.setDecimals(1)
        self.minutes.setSuffix(" min")
        self.minutes.setValue(float(self._workspace.settings.get(_MINUTES, 5.0)))
        self.minutes.setToolTip("How long to learn; you can go on correcting meanwhile")
        self.minutes.valueChanged.connect(lambda value: self._workspace.settings.set(_MINUTES, float(value)))
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Model", self.model_box)
        form.addRow("For", self.minutes)
        self.body.addLayout(form)
        self.predict_after = QCheckBox("Then predict the cases to do")
        self.predict_after.setChecked(True)
        self.predict_after.setToolTip("If the new model is better, predict all cases that nobody has begun to correct")
        self.body.addWidget(self.predict_after)
        self._words = quiet_label()
        self._words.setToolTip("What the model would learn from, and by which cases it would be judged")
        self.body.addWidget(self._words)
        self.button = QPushButton("Learn from corrections")
        self.button.setToolTip(
            with_key(
                "Train on with the checked cases and slices in the background; the new model is kept only if it is "
                "better on checked cases that are held out",
                "learn",
            )
        )
        self.button.clicked.connect(lambda _=False: self.learn())
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("End the lesson; the model stays as it is")
        self.stop_button.clicked.connect(lambda _=False: self._teacher.stop())
        line = QHBoxLayout()
        line.addWidget(self.button, 1)
        line.addWidget(self.stop_button)
        self.body.addLayout(line)
        self.verdict = quiet_label()
        self.body.addWidget(self.verdict)
        self.table = PlainTable(_HEADS, stretch=1, numbers=(2, 3, 4))
        self.body.addWidget(self.table)
        self._show_lesson()

    @property
    def model(self) -> Path | None:
        """The chosen model."""
        path: Path | None = self.model_box.currentData()
        return path

    def _choose(self) -> None:
        self._chosen = self.model
        self.refresh()

    def refresh(self) -> None:
        """Look again what there is to learn from."""
        self.setVisible(self._workspace.dataset is not None)
        if not self.is_open:
            return  # which cases were checked is read from disk
        offered = self._teacher.models()
        with QSignalBlocker(self.model_box):
            self.model_box.clear()
            for name, path in offered:
                self.model_box.addItem(name, path)
            paths = [path for _, path in offered]
            self.model_box.setCurrentIndex(paths.index(self._chosen) if self._chosen in paths else 0)
        busy = self._teacher.job is not None
        material = self._teacher.material(self.model)
        self.button.setEnabled(not busy and not material.problem)
        self.stop_button.setVisible(busy)
        self._words.setText(self._in_words(len(material.cases), len(material.held_out), material.problem))

    def _in_words(self, checked: int, held_out: int, problem: str) -> str:
        if self._teacher.job is not None:
            return "Learning … you can go on correcting."
        count = f"{checked} case{'s' * (checked != 1)} checked"
        if problem:
            return f"{count}. {problem}" if checked else problem
        return f"{count}: {checked - held_out} to learn from, {held_out} held out to judge by."

    def learn(self) -> None:
        """Begin to learn, with what is chosen."""
        self.set_open(True)
        self.refresh()
        if self.model is None or self._teacher.job is not None:
            return
        try:
            self._teacher.start(self.model, 60 * self.minutes.value(), predict_after=self.predict_after.isChecked())
        except Seg3dError as error:
            self._workspace.say("error", str(error))
        self.refresh()

    def _show_lesson(self) -> None:
        lesson, failure = self._teacher.lesson, self._teacher.failure
        self.verdict.setText("" if lesson is None else lesson.summary())
        self.verdict.setVisible(lesson is not None)
        self.table.setVisible(lesson is not None)
        if lesson is not None:
            if lesson.run is not None:
                self._chosen = None
            self._fill(lesson)
            self._workspace.say("info", lesson.summary())
        elif failure is not None:
            self._workspace.say("error", failure.message, failure.details)

    def _fill(self, lesson: Lesson) -> None:
        rows = lesson.rows()
        self.table.setRowCount(len(rows))
        for number, (case_id, label, before, after) in enumerate(rows):
            texts = (case_id, label, f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
            for column, text in enumerate(texts):
                self.table.write(number, column, text, label if column == 1 else "")
            word = change_in_words(before, after)
            last = self.table.write(number, len(texts) - 1, texts[-1], word)
            last.setForeground(_COLOURS.get(word, QBrush()))
        self.table.fit_height(_ROWS)
