"""What was predicted, as a list: case, model, Dice where there is a truth, time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

_HEADS = (
    ("Predicted case", "Double click shows the prediction on the images of the case"),
    ("By", "Model that predicted it"),
    ("Dice", "Mean Dice against the truth, 0 to 1; – where there is no truth or a newer prediction is scored"),
    ("When", "When it was predicted"),
)
_WIDTHS = (84, 48, 54)


@dataclass(frozen=True)
class Result:
    """One predicted case."""

    case_id: str
    path: Path
    by: str
    dice: float | None


class ResultList(QTableWidget):
    """The predictions of the project, newest first."""

    #: The user double clicked a `Result`.
    wanted = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_HEADS), parent)
        self._results: tuple[Result, ...] = ()
        for column, (head, tooltip) in enumerate(_HEADS):
            item = QTableWidgetItem(head)
            item.setToolTip(tooltip)
            self.setHorizontalHeaderItem(column, item)
        self.setAccessibleName("Predicted cases")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setShowGrid(False)
        self.setMinimumHeight(120)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(24)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column, width in enumerate(_WIDTHS, start=1):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            self.setColumnWidth(column, width)
        self.cellDoubleClicked.connect(lambda row, _column: self.wanted.emit(self._results[row]))

    def show_results(self, results: Sequence[Result]) -> None:
        """List results; files that have gone meanwhile are left out."""
        there = [(result, path.stat().st_mtime) for result in results if (path := result.path).is_file()]
        there.sort(key=lambda entry: entry[1], reverse=True)
        self._results = tuple(result for result, _ in there)
        self.setRowCount(len(there))
        for row, (result, changed) in enumerate(there):
            dice = "–" if result.dice is None else f"{result.dice:.3f}"
            texts = (result.case_id, result.by, dice, _when(changed))
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(f"{result.path}\nDouble click shows it on the images of {result.case_id}")
                if column > 1:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.setItem(row, column, item)
        self.setVisible(bool(there))


def _when(seconds: float) -> str:
    """Say a time: the hour if it was today, else the day."""
    then, now = time.localtime(seconds), time.localtime()
    return time.strftime("%H:%M" if then[:3] == now[:3] else "%d %b", then)
