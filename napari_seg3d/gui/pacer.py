"""Drawing that never gets in the way: as often as the screen can bear, and not at all where nobody looks.

Qt draws a whole window again when a small part of it changes beside a 3D canvas. On a graphics card that takes a
millisecond or two, with OpenGL in software a fifth of a second; so the pace follows from what a drawing costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QWidget

#: Shortest and longest time between two drawings in milliseconds.
SHORTEST_MS, LONGEST_MS = 500, 4000
#: Largest part of the window's time that drawing may take.
SHARE = 0.0125


class Pacer(QObject):
    """Calls `draw` after `want`, once for however many wishes came in between.

    Parameters
    ----------
    widget : QWidget
        What is drawn; while it is hidden nothing is, and it is drawn when it comes back.
    draw : callable
    shortest_ms, longest_ms : int
        Bounds of the time between two drawings.
    share : float
        Largest part of the window's time that drawing may take.
    """

    def __init__(
        self,
        widget: QWidget,
        draw: Callable[[], None],
        shortest_ms: int = SHORTEST_MS,
        longest_ms: int = LONGEST_MS,
        share: float = SHARE,
    ) -> None:
        super().__init__(widget)
        self._shortest_ms, self._longest_ms, self._share = shortest_ms, longest_ms, share
        self._widget = widget
        self._draw = draw
        self._missed = False
        self._began = 0.0
        self._due = QTimer(self)
        self._due.setSingleShot(True)
        self._due.setInterval(shortest_ms)
        self._due.timeout.connect(self._pay)
        self._after = QTimer(self)
        self._after.setSingleShot(True)
        self._after.setInterval(0)
        self._after.timeout.connect(self._note_cost)
        widget.installEventFilter(self)

    @property
    def interval_ms(self) -> int:
        """Milliseconds that lie between two drawings at the moment."""
        return int(self._due.interval())

    @property
    def is_due(self) -> bool:
        """Whether a drawing was asked for and has not been made."""
        return self._missed or bool(self._due.isActive())

    def want(self) -> None:
        """Ask for a drawing soon."""
        if not self._due.isActive():
            self._due.start()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 (Qt's name)
        """Draw what was missed when the widget comes back."""
        if event.type() == QEvent.Type.Show and self._missed:
            self.want()
        return False

    def _pay(self) -> None:
        self._missed = not self._widget.isVisible()
        if not self._missed:
            self._began = time.perf_counter()
            self._draw()
            # Comes after the window has been laid out and painted.
            self._after.start()

    def _note_cost(self) -> None:
        cost_ms = 1000 * (time.perf_counter() - self._began)
        self._due.setInterval(round(min(max(cost_ms / self._share, self._shortest_ms), self._longest_ms)))
