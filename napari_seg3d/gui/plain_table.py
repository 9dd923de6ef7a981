"""A table of texts and numbers to look at, as several pages show one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

#: Heights in pixels: of a row, and the least of a heading, which tells too little before it is shown.
ROW_HEIGHT, HEADING_HEIGHT = 22, 26


class PlainTable(QTableWidget):
    """A table that is quiet and narrow; nothing in it can be chosen or changed.

    Parameters
    ----------
    heads : sequence of (str, str)
        Heading and tooltip of each column.
    stretch : int
        The column that takes what the others leave; long texts in it are cut in their middle.
    numbers : collection of int
        The columns that are written to the right.
    """

    def __init__(
        self,
        heads: Sequence[tuple[str, str]],
        *,
        stretch: int,
        numbers: Collection[int] = (),
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(0, len(heads), parent)
        self._numbers = frozenset(numbers)
        for column, (name, tooltip) in enumerate(heads):
            item = QTableWidgetItem(name)
            item.setToolTip(tooltip)
            self.setHorizontalHeaderItem(column, item)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setShowGrid(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionsClickable(False)
        header.setMinimumSectionSize(30)
        # Numbers are never cut off.
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(stretch, QHeaderView.ResizeMode.Stretch)

    def write(self, row: int, column: int, text: str, tooltip: str = "") -> QTableWidgetItem:
        """Write a cell and return it; one that says this already is left alone: Qt need not lay it out again."""
        item = self.item(row, column)
        if item is None:
            item = QTableWidgetItem(text)
            if column in self._numbers:
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.setItem(row, column, item)
        elif item.text() != text:
            item.setText(text)
        if item.toolTip() != tooltip:
            item.setToolTip(tooltip)
        return item

    def fit_height(self, most: int | None = None) -> None:
        """Be as high as all rows need, or as so many of them."""
        rows = self.rowCount() if most is None else min(self.rowCount(), most)
        header = max(self.horizontalHeader().sizeHint().height(), HEADING_HEIGHT)
        self.setFixedHeight(header + ROW_HEIGHT * rows + 4)
