"""Where along the slices prediction and truth disagree: a strip of bars to click on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter
from qtpy.QtWidgets import QSizePolicy, QWidget

from ..comparison.difference import DIFFERENCE_TABLE
from .widgets import theme_colour

if TYPE_CHECKING:
    from qtpy.QtGui import QMouseEvent, QPaintEvent

    from ..volumes.volume import LabelTable


class ProfileStrip(QWidget):
    """One column a slice, as high as the slice has disagreeing voxels: missed, added, wrong class, one above the other.

    Without a truth it can show uncertain voxels instead. Clicking or dragging asks for a slice with `slice_wanted`.
    """

    slice_wanted = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._counts: NDArray[Any] = np.zeros((0, 3), np.int64)
        self._table = DIFFERENCE_TABLE
        self._current = 0
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMouseTracking(True)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def set_profile(self, counts: NDArray[Any], table: LabelTable = DIFFERENCE_TABLE) -> None:
        """Show counts in the order of the slice slider.

        Parameters
        ----------
        counts : (slices, kinds) integer ndarray
            Voxels of each kind in each slice.
        table : LabelTable
            Names and colours of the kinds; by default missed, added and wrong class.
        """
        self._counts, self._table = counts, table
        what = "Disagreeing" if len(table) == len(DIFFERENCE_TABLE) else "Uncertain"
        self.setToolTip(f"{what} voxels by slice; click to go to a slice")
        self.update()

    def set_current(self, index: int) -> None:
        """Mark the slice that the viewer shows."""
        if index != self._current:
            self._current = index
            self.update()

    def sizeHint(self) -> QSize:
        """Ask for a strip of a fixed height."""
        return QSize(320, 48)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the bars and the mark of the current slice."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(theme_colour("background")))
        slices, height = len(self._counts), self.height() - 2
        highest = self._counts.sum(axis=1).max() if slices else 0
        if highest:
            width = self.width() / slices
            # Square root, so that a slice with a few voxels can still be seen beside one with thousands.
            scale = height / np.sqrt(highest)
            for index in np.flatnonzero(self._counts.sum(axis=1)):
                total = self._counts[index].sum()
                bottom = float(self.height())
                for count, label in zip(self._counts[index], self._table, strict=True):
                    part = np.sqrt(total) * scale * count / total
                    painter.fillRect(QRectF(index * width, bottom - part, max(width, 1.0), part), QColor(label.color))
                    bottom -= part
        if slices:
            x = (self._current + 0.5) * self.width() / slices
            painter.fillRect(QRectF(x - 1, 0, 2, self.height()), QColor(theme_colour("text")))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Ask for the slice under the mouse."""
        self._ask(event)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Say what a slice holds; ask for slices while dragging."""
        index = self._slice_at(event)
        if index is not None:
            parts = [
                f"{count} {label.name}" for count, label in zip(self._counts[index], self._table, strict=True) if count
            ]
            self.setToolTip(f"Slice {index}: {', '.join(parts) + ' (voxels)' if parts else 'nothing'}")
        if event.buttons():
            self._ask(event)

    def _slice_at(self, event: QMouseEvent) -> int | None:
        slices = len(self._counts)
        if not slices:
            return None
        return int(np.clip(event.pos().x() * slices / max(1, self.width()), 0, slices - 1))

    def _ask(self, event: QMouseEvent) -> None:
        index = self._slice_at(event)
        if index is not None:
            self.slice_wanted.emit(index)
