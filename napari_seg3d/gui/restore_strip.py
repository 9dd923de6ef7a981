"""Asks whether edits that were not saved shall be restored."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from .widgets import LEVEL_COLOURS, listen

if TYPE_CHECKING:
    from .keeping import Keeper
    from .kept import Offer
    from .workspace import Workspace


class RestoreStrip(QFrame):
    """Question about the edits of the open case, else of any case; hidden where there is none.

    Parameters
    ----------
    keeper : Keeper
    workspace : Workspace
    open_case : callable, optional
        Opens a case after the question about unsaved edits. Without it only the open case is asked about.
    """

    def __init__(
        self,
        keeper: Keeper,
        workspace: Workspace,
        open_case: Callable[[str], None] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("seg3d-restore")
        colour = LEVEL_COLOURS["warning"]
        self.setStyleSheet(
            f"QFrame#seg3d-restore {{ border: 1px solid {colour}; border-left-width: 4px; border-radius: 3px; }}"
        )
        self._keeper, self._workspace, self._open_case = keeper, workspace, open_case
        self._offer: Offer | None = None
        self._sure = False
        self._text = QLabel()
        self._text.setWordWrap(True)
        self._text.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.restore = self._button("Restore", "Put the edits back into the case, as one step to undo", self._restore)
        self.discard = self._button("Discard", "Delete these edits; asks once more", self._discard)
        self.later = self._button("Later", "Keep the edits on disk and ask again at the next start", self._put_off)
        line = QHBoxLayout()
        for button in (self.restore, self.discard, self.later):
            line.addWidget(button)
        line.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 6, 6)
        layout.setSpacing(4)
        layout.addWidget(self._text)
        layout.addLayout(line)
        listen(self, keeper.offers_changed, self._show)
        listen(self, workspace.case_changed, self._show)
        self._show()

    @property
    def text(self) -> str:
        """The question."""
        return self._text.text()

    def _button(self, text: str, tooltip: str, action: Callable[[], None]) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(tooltip)
        button.clicked.connect(lambda _=False: action())
        return button

    def _show(self) -> None:
        offer = self._keeper.offer_for(self._workspace.case_id)
        if offer is None and self._open_case is not None and self._keeper.offers:
            offer = self._keeper.offers[0]
        if offer != self._offer:
            self._sure = False
        self._offer = offer
        self.setVisible(offer is not None)
        if offer is None:
            return
        left = offer.pending
        readable = left.base is not None
        when = "" if left.when is None else f" The last is of {left.when.astimezone():%d %B, %H:%M}."
        if not readable:
            text = f"Edits to case {offer.case_id} were not saved and cannot be read. {left.problem}"
        elif offer.doubt:
            text = f"{offer.words} were not restored: {offer.doubt}. Restore them all the same?"
        else:
            text = f"Restore {offer.words}? They were not saved.{when} {left.problem}".rstrip()
        others = len(self._keeper.offers) - 1
        if others and self._open_case is not None:
            text += f" (and of {others} more)"
        self._text.setText(text)
        self.restore.setVisible(readable)
        self.restore.setText("Restore all the same" if offer.doubt else "Restore")
        self.discard.setText("Really discard" if self._sure else "Discard")

    def _restore(self) -> None:
        offer = self._offer
        if offer is None:
            return
        self._keeper.restore(offer)
        if offer.case_id != self._workspace.case_id and self._open_case is not None:
            self._open_case(offer.case_id)

    def _discard(self) -> None:
        if self._offer is None:
            return
        if not self._sure:
            self._sure = True
            self._show()
            return
        self._keeper.discard(self._offer)

    def _put_off(self) -> None:
        if self._offer is not None:
            self._keeper.later(self._offer)
