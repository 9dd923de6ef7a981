"""The cases of a dataset as a table: what each has, how good its prediction is, and in which state it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QObject, QSortFilterProxyModel, Qt

from ..correction.queue import State
from .widgets import duration, listen

if TYPE_CHECKING:
    from ..cases.case import CaseFiles
    from .queueing import CaseQueue
    from .workspace import Workspace

CASE, MODALITIES, TRUTH, PREDICTION, DICE, STATE = range(6)
_HEADS = (
    ("Case", "Name of the case"),
    ("Images", "How many of the dataset's modalities the case has"),
    ("Truth", "Whether there are labels to learn from and to compare with"),
    ("Pred.", "Whether there is a prediction"),
    ("Dice", "Mean Dice of the newest prediction against the truth, 0 to 1"),
    (
        "State",
        "Of the review: in progress, ✓ checked, ⚑ flagged; else open, edited (not saved), corrected, what is missing",
    ),
)
_SORT = Qt.ItemDataRole.UserRole
#: How the states of the review are shown; whatever is to do shows something more useful.
STATES = {State.IN_PROGRESS: "in progress", State.CHECKED: "✓ checked", State.FLAGGED: "⚑ flagged"}


class CaseTable(QAbstractTableModel):
    """Qt's table model of the workspace's cases; follows the workspace and the review list."""

    def __init__(self, workspace: Workspace, parent: QObject, queue: CaseQueue | None = None) -> None:
        super().__init__(parent)
        self._workspace = workspace
        self._queue = queue
        self._order = ""
        self._cases: tuple[CaseFiles, ...] = ()
        listen(self, workspace.dataset_changed, self._reset)
        for signal in (workspace.results_changed, workspace.case_changed, workspace.unsaved_changed):
            listen(self, signal, self._update)
        if queue is not None:
            listen(self, queue.changed, self._queue_changed)
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

    def _queue_changed(self) -> None:
        order = "" if self._queue is None else self._queue.order
        if self._cases and (order, self._order) != ("name", "name"):
            # The places in the list, by which the names are sorted, may be others.
            self.dataChanged.emit(self.index(0, CASE), self.index(len(self._cases) - 1, STATE))
        else:
            self._update()
        self._order = order

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
            return self._place(index.row()) if column == CASE else self._text(files, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._tooltip(files, column)
        if role == Qt.ItemDataRole.TextAlignmentRole and column in (MODALITIES, TRUTH, PREDICTION, DICE):
            return int(Qt.AlignmentFlag.AlignCenter)
        return None

    def _place(self, row: int) -> int:
        """Place of a case in the review list, which is in the order of the names unless another is chosen."""
        return row if self._queue is None or self._queue.order == "name" else self._queue.place(self._cases[row].id)

    def state_of(self, row: int) -> State:
        """Return how far the review of the case in a row is."""
        return State.TO_DO if self._queue is None else self._queue.review(self._cases[row].id).state

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
        if files.id == workspace.case_id and workspace.unsaved:
            return "edited"
        if self._queue is not None and (state := STATES.get(self._queue.review(files.id).state)):
            return state
        if files.id == workspace.case_id:
            return "open"
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
        if column == STATE and self._queue is not None:
            return self._history(files)
        return str(_HEADS[column][1])

    def _history(self, files: CaseFiles) -> str:
        if self._queue is None:
            return ""
        review, effort = self._queue.review(files.id), self._queue.efforts.get(files.id)
        lines = [str(review.state.value).capitalize()]
        if review.comment:
            lines[0] += f": {review.comment}"
        if review.date:
            lines.append(f"by {review.author or 'somebody'}, {review.date[:10]}")
        if effort is not None:
            lines.append(
                f"{effort.versions} version{'' if effort.versions == 1 else 's'}, {duration(60 * effort.minutes)}, "
                f"{effort.changed_ml:.2f} ml changed"
            )
        return "\n".join(lines)


class CaseFilter(QSortFilterProxyModel):
    """Sorts in natural order and keeps the cases whose name or state hold every word that was typed."""

    def __init__(self, table: CaseTable) -> None:
        super().__init__(table)
        self._words: list[str] = []
        self._state: State | None = None
        self.setSourceModel(table)
        self.setSortRole(_SORT)
        self.setDynamicSortFilter(True)

    def set_words(self, text: str) -> None:
        """Filter by the words of a text."""
        self._words = text.lower().split()
        self.invalidateFilter()

    def set_state(self, state: State | None) -> None:
        """Keep only cases in a state of the review; None: all."""
        self._state = state
        self.invalidateFilter()

    def filterAcceptsRow(self, row: int, parent: QModelIndex) -> bool:  # noqa: N802  # Qt's name
        """Whether a case is shown."""
        table = self.sourceModel()
        if self._state is not None and table.state_of(row) is not self._state:
            return False
        text = " ".join(str(table.data(table.index(row, column))) for column in (CASE, STATE)).lower()
        return all(word in text for word in self._words)
