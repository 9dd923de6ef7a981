"""A window of its own in which training runs stand side by side: sorted, chosen, compared."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QHeaderView,
    QLabel,
    QPushButton,
    QSplitter,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ..cases.names import natural_key
from ..errors import Seg3dError
from ..training.compare_runs import (
    DIFFERENCE_HEAD,
    SIGNIFICANT,
    Comparison,
    RunSummary,
    compare_runs,
    difference_cells,
    summarise_runs,
)
from .widgets import duration, quiet_label

#: Fixed columns with their tooltips; those of the labels follow.
_HEADS = (
    ("Run", "Name of the run; a fold stands with its cross-validation. Double click shows its curves"),
    ("Network", "The kind of network"),
    ("Recipe", "The published recipe, or the automatic plan"),
    ("State", "running, interrupted (it was killed), stopped, finished or failed"),
    ("Cases", "How many cases it learned from"),
    ("Judged by", "How many cases it was judged by and did not learn from"),
    ("Steps", "Steps of the optimiser so far"),
    ("Time", "Time spent on it so far"),
    ("Mean Dice", "Over labels and cases, of the model that is kept; 0 to 1"),
)
_HINT = "Choose two or more runs (Ctrl or Shift and click) to compare them case by case."
_TEST = "p: Wilcoxon's signed-rank test on the pairs of cases, two-sided. Dice of the second run minus the first."


#: Text and what it is sorted by.
Entry = tuple[str, Any]


class _Cell(QTableWidgetItem):
    """A cell that is sorted by its value, not by its text; `key` stays with its row when rows are sorted."""

    def __init__(self, text: str, value: Any, key: int) -> None:
        super().__init__(text)
        self.value = value
        self.key = key

    def __lt__(self, other: QTableWidgetItem) -> bool:
        return bool(self.value < other.value)


class RunsWindow(QDialog):
    """The runs of a project side by side."""

    #: Folder of the run that was double clicked.
    wanted = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Training runs")
        self.resize(980, 620)
        self._runs: list[RunSummary] = []
        self.comparison: Comparison | None = None
        self.table = _table("Training runs")
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.table.itemSelectionChanged.connect(self._compare)
        self.table.cellDoubleClicked.connect(lambda row, _column: self.wanted.emit(self._run_in(row).folder))
        self.verdict = quiet_label(_HINT)
        self.verdict.setTextFormat(Qt.TextFormat.RichText)
        self.differences = _table("Differences between the chosen runs")
        self.cases = _table("Mean Dice of each case")
        below = QWidget()
        layout = QVBoxLayout(below)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.verdict)
        layout.addWidget(self.differences, 1)
        self._cases_head = QLabel("Mean Dice of each case")
        layout.addWidget(self._cases_head)
        layout.addWidget(self.cases, 1)
        layout.addStretch(0)
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.addWidget(self.table)
        parts.addWidget(below)
        parts.setSizes([240, 380])
        parts.setChildrenCollapsible(False)
        self._refresh_button = QPushButton("Refresh")
        self._refresh_button.setAutoDefault(False)
        self._refresh_button.setToolTip("Read the runs again, for example while one is training")
        self._refresh_button.clicked.connect(self.refresh)
        whole = QVBoxLayout(self)
        whole.addWidget(parts, 1)
        whole.addWidget(self._refresh_button, 0, Qt.AlignmentFlag.AlignRight)
        self._folder: Path | None = None
        self._show_comparison(None)

    def show_runs(self, folder: Path) -> None:
        """Show the runs in a folder."""
        self._folder = folder
        self.refresh()

    def refresh(self) -> None:
        """Read the runs again; those that were chosen stay chosen."""
        chosen = {run.name for run in self.chosen()}
        try:
            self._runs = [] if self._folder is None else summarise_runs(self._folder)
        except Seg3dError as error:
            self._runs = []
            self.verdict.setText(escape(str(error)))
        labels = list(dict.fromkeys(name for run in self._runs for name in run.dice))
        heads = [*_HEADS, *((name, f"Dice of {name}, mean over the cases") for name in labels)]
        _fill(self.table, heads, [_cells(run, labels) for run in self._runs])
        for row in range(self.table.rowCount()):
            if self._run_in(row).name in chosen:
                for column in range(self.table.columnCount()):
                    self.table.item(row, column).setSelected(True)

    def chosen(self) -> list[RunSummary]:
        """Return the runs that are selected, from the top of the table."""
        rows = sorted({index.row() for index in self.table.selectedIndexes()})
        return [self._run_in(row) for row in rows]

    def _run_in(self, row: int) -> RunSummary:
        # Rows move when they are sorted.
        return self._runs[self.table.item(row, 0).key]

    def _compare(self) -> None:
        runs = self.chosen()
        self._show_comparison(compare_runs(runs) if len(runs) > 1 else None)

    def _show_comparison(self, comparison: Comparison | None) -> None:
        self.comparison = comparison
        lines = [] if comparison is None else [f"⚠ <b>Not comparable:</b> {escape(x)}" for x in comparison.problems]
        if comparison is not None:
            lines += [f"⚠ {escape(caution)}" for caution in comparison.cautions]
            lines += [_TEST] if comparison.differences else []
        self.verdict.setText("<br>".join(lines) or _HINT)
        comparable = comparison is not None and bool(comparison.differences)
        for part in (self.differences, self._cases_head, self.cases):
            part.setVisible(comparable)
        if comparison is None or not comparable:
            return
        tooltips = (
            "Which run minus which",
            "Label, or the mean over all",
            "Mean difference of Dice",
            "Cases",
            "How probable so large a difference is by chance",
            f"More than chance: p below {SIGNIFICANT}",
        )
        rows: list[list[Entry]] = []
        for each in comparison.differences:
            texts = difference_cells(each)
            sorted_by = (texts[0], texts[1], each.mean, each.n, each.p, texts[5])
            rows.append(list(zip(texts, sorted_by, strict=True)))
        _fill(self.differences, list(zip(DIFFERENCE_HEAD, tooltips, strict=True)), rows)
        heads = [
            ("Case", "Double click on a head sorts"),
            *((name, f"Mean Dice by {name}") for name in comparison.names),
        ]
        if len(comparison.names) == 2:
            heads.append(("Difference", "Second run minus the first"))
        cells = []
        for case_id, values in comparison.by_case.items():
            row: list[Entry] = [(case_id, natural_key(case_id)), *((f"{x:.3f}", x) for x in values)]
            if len(values) == 2:
                row.append((f"{values[1] - values[0]:+.3f}", values[1] - values[0]))
            cells.append(row)
        _fill(self.cases, heads, cells)


def _cells(run: RunSummary, labels: Sequence[str]) -> list[Entry]:
    """Return texts and what they are sorted by."""
    mean = run.mean_dice
    name = f"{run.name} ({run.folds} folds)" if run.folds else run.name
    return [
        (name, natural_key(run.name)),
        (run.network, run.network),
        (run.recipe, run.recipe),
        (run.state, run.state),
        (str(len(run.train_ids)), len(run.train_ids)),
        (str(len(run.validation_ids)), len(run.validation_ids)),
        (str(run.steps), run.steps),
        (duration(run.seconds) if run.seconds else "–", run.seconds),
        ("–" if mean is None else f"{mean:.3f}", -1.0 if mean is None else mean),
        *((f"{run.dice[label]:.3f}", run.dice[label]) if label in run.dice else ("–", -1.0) for label in labels),
    ]


def _table(name: str) -> QTableWidget:
    table = QTableWidget(0, 0)
    table.setAccessibleName(name)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setShowGrid(False)
    table.setMinimumHeight(90)
    table.verticalHeader().hide()
    table.verticalHeader().setDefaultSectionSize(24)
    table.horizontalHeader().setHighlightSections(False)
    return table


def _fill(table: QTableWidget, heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[Entry]]) -> None:
    """Fill a table; `heads` are texts and tooltips."""
    # Else rows would move away while they are being filled.
    table.setSortingEnabled(False)
    blocked = table.blockSignals(True)
    table.clear()
    table.setRowCount(len(rows))
    table.setColumnCount(len(heads))
    for column, (head, tooltip) in enumerate(heads):
        item = QTableWidgetItem(head)
        item.setToolTip(tooltip)
        table.setHorizontalHeaderItem(column, item)
    for number, row in enumerate(rows):
        for column, (text, value) in enumerate(row):
            cell = _Cell(text, value, number)
            if column and not isinstance(value, str):
                cell.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
            table.setItem(number, column, cell)
    table.blockSignals(blocked)
    header = table.horizontalHeader()
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    # In the order in which they come, until somebody sorts.
    header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
    table.setSortingEnabled(True)
