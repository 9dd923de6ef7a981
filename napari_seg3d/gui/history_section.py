"""What was done to a layer, in words, and going back to any point of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QAbstractItemView, QComboBox, QListWidget, QListWidgetItem, QWidget

from ..errors import Seg3dError
from .widgets import Section, listen

if TYPE_CHECKING:
    from .case_view import CaseView
    from .edits import LayerEdits

#: The first line of the list.
BEGINNING = "As it was"
_ROWS = 6


class HistorySection(Section):
    """The edits of the layer that is chosen in a box, newest last; a click goes back to one, or forward again.

    Parameters
    ----------
    view : CaseView
    choice : QComboBox
        Its current data is the layer to correct.
    """

    def __init__(self, view: CaseView, choice: QComboBox, parent: QWidget | None = None) -> None:
        super().__init__("History", tooltip="Show or hide what was done to the labels", parent=parent)
        self._view, self._choice = view, choice
        self._edits: LayerEdits | None = None
        self._going = False
        self.list = QListWidget()
        self.list.setToolTip("Click a line to go back to it, or forward again; Ctrl+Z and Ctrl+Shift+Z go step by step")
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.list.itemClicked.connect(lambda item: self.go_to(self.list.row(item)))
        self.body.addWidget(self.list)
        # A box that is filled anew shows many layers one after the other.
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(0)
        self._later.timeout.connect(self._follow_choice)
        choice.currentIndexChanged.connect(lambda _: self._later.start())
        listen(self, self._view.edited, self._look_again)
        self.toggled.connect(lambda _: self._list())
        self._later.start()
        self._list()

    def _look_again(self, _layer: Labels) -> None:
        self._later.start()

    def _follow_choice(self) -> None:
        layer = self._choice.currentData()
        try:
            edits = None if layer is None else self._view.edits_of(layer)
        except Seg3dError:
            edits = None
        if edits is self._edits:
            return
        if self._edits is not None:
            self._edits.listed.disconnect(self._after_edit)
        self._edits = edits
        if edits is not None:
            edits.listed.connect(self._after_edit)
        self._list()

    def _after_edit(self) -> None:
        if not self._going:
            self._list()

    def _list(self) -> None:
        edits = self._edits
        done = [] if edits is None else edits.done
        undone = [] if edits is None else edits.undone[::-1]
        self.set_title(f"History ({len(done)})" if done else "History")
        if not self.is_open:
            return
        self.list.clear()
        self.list.setEnabled(edits is not None)
        for place, name in enumerate([BEGINNING, *done, *undone]):
            item = QListWidgetItem(name if place == 0 else f"{place}  {name}")
            item.setToolTip(name)
            if place > len(done):
                item.setText(f"{item.text()} (undone)")
                font = item.font()
                font.setItalic(True)
                item.setFont(font)
                item.setToolTip(f"{name}: undone; click to do it again")
            self.list.addItem(item)
        self.list.setCurrentRow(len(done))
        self.list.scrollToItem(self.list.item(len(done)))
        rows = min(max(self.list.count(), 2), _ROWS)
        self.list.setFixedHeight(rows * max(self.list.sizeHintForRow(0), 18) + 6)

    def go_to(self, count: int) -> None:
        """Undo or redo until so many edits are done."""
        edits = self._edits
        if edits is None:
            return
        self._going = True
        try:
            while len(edits.done) > count:
                before = len(edits.done)
                edits.layer.undo()
                edits.look()
                if len(edits.done) == before:
                    break
            while len(edits.done) < count and edits.undone:
                before = len(edits.done)
                edits.layer.redo()
                edits.look()
                if len(edits.done) == before:
                    break
        finally:
            self._going = False
            self._list()
