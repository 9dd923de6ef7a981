"""The cases of a dataset as a table: what each has, how good its prediction is, and in which state it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, QSortFilterProxyModel, Qt

from .widgets import listen

if TYPE_CHECKING:
    from ..cases.case import CaseFiles
    from .workspace import Workspace

CASE, MODALITIES, TRUTH, PREDICTION, DICE, STATE = range(6)
_HEADS = (
    ("Case", "Name of the case"),
    ("Images", "How many of the dataset's modalities the case has"),
    ("Truth", "Whether there are labels to learn from and to compare with"),
    ("Pred.", "Whether there is a prediction"),
    ("Dice", "Mean Dice of the newest prediction against the truth, 0 to 1"),
    ("State", "open, edited (not saved), corrected, or what is missing"),
)
_SORT = Qt.ItemDataRole.UserRole


class CaseTable(QAbstractTableModel):
    """Qt's table model of the workspace's cases; follows the workspace."""

    def __init__(self, workspace: Workspace, parent: QObject) -> None:
        super().__init__(parent)
        self._workspace = workspace
        self._cases: tuple[CaseFiles, ...] = ()
        listen(self, workspace.dataset_changed, self._reset)
        for signal in (workspace.results_changed, workspace.case_changed, workspace.unsaved_changed):
            listen(self, signal, self._update)
        self._reset()

    def _reset(self) -> None:
        self.beginResetModel()
        dataset = self._workspace.dataset
        self._cases = () if dataset is None else dataset.cases
        self.endResetModel()

    def _update(self) -> None:
        if self._cases:
            # Not the names: then a table in their order need not be sorted again.
            self.dataChanged.emit(self.index(0, TRUTH), self.index(len(self._cases) - 1, STATE))

    def case_id(self, row: int) -> str:
        """Return the id of the case in a row."""
        return self._cases[row].id

    def row_of(self, case_id: str | None) -> int | None:
        """Return the row of a case."""
        return next((row for row, files in enumerate(self._cases) if files.id == case_id), None)

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: N802, B008  # Qt's name and Qt's default
        """Return the number of cases."""
        return 0 if parent.isValid() else len(self._cases)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: N802, B008  # Qt's name and Qt's default
        """Return the number of columns."""
        return 0 if parent.isValid() else len(_HEADS)

    def headerData(self, section: int, orientation: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:  # noqa: N802
        """Return the heading of a column, or its tooltip."""
        if orientation == Qt.Orientation.Horizontal and role in (
            Qt.ItemDataRole.DisplayRole,
            Qt.ItemDataRole.ToolTipRole,
        ):
            return _HEADS[section][role == Qt.ItemDataRole.ToolTipRole]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows, its tooltip, its alignment, or by what it is sorted."""
        files, column = self._cases[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(files, column)
        if role == _SORT:
            return index.row() if column == CASE else self._text(files, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tooltip(files, column)
        if role == Qt.ItemDataRole.TextAlignmentRole and column in (MODALITIES, TRUTH, PREDICTION, DICE):
            return int(Qt.AlignmentFlag.AlignCenter)
        return None

    def _text(self, files: CaseFiles, column: int) -> str:
        workspace = self._workspace
        if column == DICE:
            dice = workspace.scores.get(files.id)
            return "" if dice is None else f"{dice:.2f}"
        return {
            CASE: files.id,
            MODALITIES: f"{len(files.modalities)} of {len(self._modalities)}",
            TRUTH: "✓" if workspace.with_correction(files).best_truth else "–",
            PREDICTION: "✓" if files.id in workspace.predictions else "–",
            STATE: self._state(files),
        }[column]

    @property
    def _modalities(self) -> tuple[str, ...]:
        dataset = self._workspace.dataset
        return () if dataset is None else dataset.modalities

    def _state(self, files: CaseFiles) -> str:
        workspace = self._workspace
        if files.id == workspace.case_id:
            return "edited" if workspace.unsaved else "open"
        missing = [name for name in self._modalities if name not in files.modalities]
        if missing:
            return f"no {missing[0]}"
        return "corrected" if workspace.with_correction(files).corrected else ""

    def _tooltip(self, files: CaseFiles, column: int) -> str:
        workspace = self._workspace
        if column == CASE:
            return f"{files.id}: double click or Enter opens it"
        if column == MODALITIES:
            return "\n".join(f"{name}: {file.path.name}" for name, file in files.modalities.items())
        if column == TRUTH:
            truth = workspace.with_correction(files).best_truth
            return "No truth" if truth is None else truth.name
        if column == PREDICTION:
            return "\n".join(path.name for path in workspace.predictions.get(files.id, [])) or "Not predicted yet"
        return str(_HEADS[column][1])


class CaseFilter(QSortFilterProxyModel):
    """Sorts in natural order and keeps the cases whose name or state hold every word that was typed."""

    def __init__(self, table: CaseTable) -> None:
        super().__init__(table)
        self._words: list[str] = []
        self.setSourceModel(table)
        self.setSortRole(_SORT)
        self.setDynamicSortFilter(True)

    def set_words(self, text: str) -> None:
        """Filter by the words of a text."""
        self._words = text.lower().split()
        self.invalidateFilter()

    def filterAcceptsRow(self, row: int, parent: QModelIndex) -> bool:  # noqa: N802  # Qt's name
        """Whether a case is shown."""
        table = self.sourceModel()
        text = " ".join(str(table.data(table.index(row, column))) for column in (CASE, STATE)).lower()
        return all(word in text for word in self._words)
