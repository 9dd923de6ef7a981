"""What all panels share: the page with messages and footer, the empty page, the folding section, the main button."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from napari.settings import get_settings
from napari.utils.theme import get_theme
from napari.viewer import current_viewer
from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer, Signal, SignalInstance
from qtpy.QtGui import QBrush, QColor, QPainter
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from ..events import EpochDone, Event, Progress, Step

if TYPE_CHECKING:
    from napari import Viewer
    from qtpy.QtGui import QPaintEvent, QResizeEvent

    from .work import Job
    from .workspace import Workspace

#: Width in pixels that every page must live with.
NARROW = 360
#: Milliseconds after which quick work is shown in the footer.
PATIENCE_MS = 400
#: Colours of the message strip that are the same in all themes.
LEVEL_COLOURS = {"info": "#3d7edb", "warning": "#e3a21a", "error": "#d9534f"}
LEVEL_SIGNS = {"info": "i", "warning": "!", "error": "!"}


def listen(widget: QObject, signal: Any, slot: Callable[..., Any]) -> None:
    """Connect a bound method of `widget` to a signal of psygnal, napari or Qt for as long as Qt keeps the widget.

    Both hold the method weakly, but the Python half of a widget may outlive what Qt has deleted, for example in a
    closed dock; a signal that still reached it would raise.
    """
    signal.connect(slot)
    if isinstance(signal, SignalInstance):
        # Qt's own signals end with either side; to disconnect one that is gone would crash.
        return
    widget.destroyed.connect(partial(_stop_listening, signal, weakref.WeakMethod(slot)))


def _stop_listening(signal: Any, method: weakref.WeakMethod[Callable[..., Any]], *_: object) -> None:
    slot = method()
    if slot is not None:
        # psygnal and napari say it differently when a method is not connected any more.
        with contextlib.suppress(ValueError, TypeError, KeyError):
            signal.disconnect(slot)


def theme_colour(name: str) -> str:
    """Return a colour of the current viewer's theme ("background", "foreground", "text", "current" …), ``#rrggbb``."""
    viewer = current_viewer()
    theme = get_settings().appearance.theme if viewer is None else viewer.theme
    return str(getattr(get_theme(theme), name).as_hex())


def duration(seconds: float) -> str:
    """Say a time in words that do not flicker: "8 s", "4 min", "2 h 10 min"."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def shortened(text: str, most: int = 14) -> str:
    """Return a text of at most so many letters, cut in its middle: a button is no place for a whole file name."""
    if len(text) <= most:
        return text
    first = (most - 1) // 2
    return f"{text[:first]}…{text[len(text) - (most - 1 - first) :]}"


def quiet_label(text: str = "") -> QLabel:
    """Return a label for explanations: wrapped, selectable, a little fainter than the rest."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def swatches(entries: Iterable[tuple[str, str]]) -> str:
    """Return rich text of names, each behind a square of its colour."""
    parts = [f'<span style="color:{colour}">■</span>&nbsp;{_unbroken(name)}' for name, colour in entries]
    return " &nbsp; ".join(parts)


def _unbroken(text: str) -> str:
    """Return a name as rich text that is not broken at its spaces and hyphens."""
    return escape(text).replace(" ", "&nbsp;").replace("-", "\N{NON-BREAKING HYPHEN}")


class MainButton(QPushButton):
    """The one button of a page that leads on; filled with the theme's accent colour."""

    def __init__(self, text: str, tooltip: str, parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self.setToolTip(tooltip)
        self._style = ""
        self._restyle()

    def changeEvent(self, event: QEvent) -> None:  # Qt's name
        """Follow the theme."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.StyleChange:
            self._restyle()

    def _restyle(self) -> None:
        accent, text, faint = theme_colour("current"), theme_colour("text"), theme_colour("foreground")
        style = (
            f"QPushButton {{ background-color: {accent}; color: {text}; font-weight: bold; padding: 6px 14px; }}"
            f"QPushButton:disabled {{ background-color: {faint}; color: {theme_colour('secondary')}; }}"
        )
        # Setting a style sheet is itself a change of style.
        if style != self._style:
            self._style = style
            self.setStyleSheet(style)


class Section(QWidget):
    """A heading that shows or hides what is below it.

    Parameters
    ----------
    title : str
    open_ : bool
        Whether it starts unfolded.
    """

    toggled = Signal(bool)

    def __init__(self, title: str, *, open_: bool = False, tooltip: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._button = QToolButton()
        self._button.setText(title)
        self._button.setToolTip(tooltip or f"Show or hide: {title.lower()}")
        self._button.setCheckable(True)
        self._button.setChecked(open_)
        self._button.setAutoRaise(True)
        self._button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._button.setStyleSheet("QToolButton { background: transparent; border: none; padding: 2px 0px; }")
        self._button.toggled.connect(self._toggle)
        self.content = QWidget()
        self.body = QVBoxLayout(self.content)
        self.body.setContentsMargins(12, 2, 0, 4)
        self.body.setSpacing(6)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._button)
        layout.addWidget(self.content)
        self._toggle(open_)

    def _toggle(self, open_: bool) -> None:
        self._button.setArrowType(Qt.ArrowType.DownArrow if open_ else Qt.ArrowType.RightArrow)
        self.content.setVisible(open_)
        self.toggled.emit(open_)

    def set_title(self, title: str) -> None:
        """Change the heading."""
        self._button.setText(title)

    def set_open(self, open_: bool) -> None:
        """Unfold or fold."""
        self._button.setChecked(open_)

    @property
    def is_open(self) -> bool:
        """Whether it is unfolded."""
        return self._button.isChecked()


class MessageStrip(QFrame):
    """One message where it happened: a sentence, its details to unfold, a cross to take it away."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("seg3d-message")
        self._sign = QLabel()
        self._sign.setFixedSize(16, 16)
        self._sign.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._text = QLabel()
        self._text.setWordWrap(True)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._text.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._close = _flat_button("×", "Take this message away", self.clear)
        self._details = QPlainTextEdit()
        self._details.setReadOnly(True)
        self._details.setMaximumHeight(110)
        self._details.setLineWrapMode(QPlainTextEdit.LineWrapMode.WidgetWidth)
        self._unfold = Section("Details", tooltip="Show the details for a report")
        self._unfold.body.addWidget(self._details)
        line = QHBoxLayout()
        line.setSpacing(8)
        line.addWidget(self._sign, 0, Qt.AlignmentFlag.AlignTop)
        line.addWidget(self._text, 1)
        line.addWidget(self._close, 0, Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 6, 6)
        layout.setSpacing(2)
        layout.addLayout(line)
        layout.addWidget(self._unfold)
        self.clear()

    @property
    def text(self) -> str:
        """What it says now."""
        return self._text.text()

    def show_message(self, level: str, text: str, details: str = "") -> None:
        """Show a message; `level` is "info", "warning" or "error"."""
        colour = LEVEL_COLOURS[level]
        self.setStyleSheet(
            f"QFrame#seg3d-message {{ border: 1px solid {colour}; border-left-width: 4px; border-radius: 3px; }}"
        )
        self._sign.setText(LEVEL_SIGNS[level])
        self._sign.setStyleSheet(
            f"background: {colour}; color: #ffffff; font-weight: bold; border-radius: 8px; padding: 0px;"
        )
        self._text.setText(text)
        self._details.setPlainText(details)
        self._unfold.set_open(False)
        self._unfold.setVisible(bool(details))
        self.show()

    def clear(self) -> None:
        """Take the message away."""
        self._text.clear()
        self.hide()


class EmptyState(QWidget):
    """What an empty page says: what to do first, with the buttons to do it.

    Parameters
    ----------
    title, text : str
    actions : sequence of (text, tooltip, callable)
        The first is the main button.
    """

    def __init__(
        self,
        title: str,
        text: str,
        actions: Sequence[tuple[str, str, Callable[[], object]]] = (),
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        heading = QLabel(title)
        heading.setAlignment(Qt.AlignmentFlag.AlignCenter)
        heading.setWordWrap(True)
        heading.setStyleSheet("font-size: 15px; font-weight: bold;")
        words = QLabel(text)
        words.setAlignment(Qt.AlignmentFlag.AlignCenter)
        words.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(16, 24, 16, 24)
        layout.setSpacing(12)
        layout.addStretch(1)
        layout.addWidget(heading)
        layout.addWidget(words)
        self.buttons: list[QPushButton] = []
        for place, (name, tooltip, action) in enumerate(actions):
            button = MainButton(name, tooltip) if place == 0 else QPushButton(name)
            button.setToolTip(tooltip)
            button.clicked.connect(lambda _=False, action=action: action())
            layout.addWidget(button, 0, Qt.AlignmentFlag.AlignHCenter)
            self.buttons.append(button)
        layout.addStretch(2)


def _flat_button(text: str, tooltip: str, action: Callable[[], object]) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setToolTip(tooltip)
    button.setAutoRaise(True)
    button.setStyleSheet("QToolButton { background: transparent; border: none; padding: 0px 4px; font-size: 15px; }")
    button.clicked.connect(lambda _=False: action())
    return button


class ThinBar(QWidget):
    """A progress bar that is drawn again only when it grows by a pixel, and stands still where Qt's runs to and fro.

    Beside a 3D canvas every redraw of a small widget draws the whole window again, which makes it stutter where OpenGL
    is done in software.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._part: float | None = None
        self.setFixedHeight(6)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_part(self, part: float | None) -> None:
        """Show a part from 0 to 1; None: unknown."""
        before, self._part = self._filled(), None if part is None else min(max(part, 0.0), 1.0)
        if self._filled() != before:
            self.update()

    def _filled(self) -> int | None:
        return None if self._part is None else round(self._part * self.width())

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the bar; hatched while nothing is known."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(theme_colour("foreground")))
        filled = self._filled()
        colour = QColor(theme_colour("current"))
        if filled is None:
            painter.fillRect(self.rect(), QBrush(colour, Qt.BrushStyle.BDiagPattern))
        else:
            painter.fillRect(0, 0, filled, self.height(), colour)
        painter.end()


class Footer(QFrame):
    """What is running, how far it is, how long it will take; pause and stop; what waits behind it."""

    def __init__(self, workspace: Workspace, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._workspace = workspace
        self._title = QLabel()
        self._title.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._left = QLabel()
        self._bar = ThinBar()
        self._pause = QPushButton("Pause")
        self._pause.setToolTip("Let the work wait after its next step; nothing is lost")
        self._pause.clicked.connect(self._toggle_pause)
        self._stop = QPushButton("Stop")
        self._stop.setToolTip("Save what there is and end the work")
        self._stop.clicked.connect(workspace.stop)
        self._queue = QToolButton()
        self._queue.setToolTip("What waits for its turn; click to take something out of the queue")
        self._queue.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._queue.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self._queue.setMenu(QMenu(self._queue))
        self._queue.menu().aboutToShow.connect(self._list_queue)
        top = QHBoxLayout()
        top.addWidget(self._title, 1)
        top.addWidget(self._left)
        bottom = QHBoxLayout()
        bottom.addWidget(self._bar, 1)
        bottom.addWidget(self._queue)
        bottom.addWidget(self._pause)
        bottom.addWidget(self._stop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 6, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(top)
        layout.addLayout(bottom)
        self._shown: Job | None = None
        self._awaited: Job | None = None
        self._what = ""
        # Quick work is shown only if it takes a while: else the page would jump at every click.
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(PATIENCE_MS)
        self._patience.timeout.connect(self._refresh)
        for signal in (workspace.job_started, workspace.job_ended, workspace.jobs_changed):
            listen(self, signal, self._refresh)
        listen(self, workspace.job_event, self._show_event)
        self._refresh()

    def _refresh(self) -> None:
        job = self._workspace.jobs.current or self._workspace.quick.current
        if job is not None and job.quick and job is not self._shown:
            if job is not self._awaited:
                self._awaited = job
                self._patience.start()
            if self._patience.isActive():
                job = None
        if job is not self._shown:
            self._shown = job
            self._what = ""
            self._left.clear()
            self._bar.show_part(None)
        self.setVisible(job is not None)
        if job is None:
            return
        self._pause.setText("Resume" if self._workspace.jobs.paused else "Pause")
        self._show_title(job)
        for button in (self._pause, self._stop):
            button.setVisible(not job.quick)
        waiting = len(self._workspace.jobs.queue)
        self._queue.setText(f"+{waiting} waiting")
        self._queue.setVisible(waiting > 0)

    def _show_title(self, job: Job) -> None:
        title = f"{job.title}: {self._what}" if self._what else job.title
        self._title.setText(f"{title} (paused)" if self._workspace.jobs.paused and not job.quick else title)
        self._title.setToolTip(title)

    def _show_event(self, job: Job, event: Event) -> None:
        if job is not self._shown:
            return
        seconds_left = getattr(event, "seconds_left", None)
        if isinstance(event, Progress | Step | EpochDone):
            self._left.setText("" if seconds_left is None else f"{duration(seconds_left)} left")
        if isinstance(event, Progress):
            self._what = event.what
            self._show_title(job)
            self._bar.show_part(event.done / event.total if event.total else None)
        elif isinstance(event, Step) and seconds_left is not None:
            what = f"epoch {event.epoch + 1}"
            if what != self._what:
                self._what = what
                self._show_title(job)
            self._bar.show_part(event.elapsed_s / max(event.elapsed_s + seconds_left, 1e-6))

    def _toggle_pause(self) -> None:
        if self._workspace.jobs.paused:
            self._workspace.resume()
        else:
            self._workspace.pause()

    def _list_queue(self) -> None:
        menu = self._queue.menu()
        menu.clear()
        for job in self._workspace.jobs.queue:
            menu.addAction(f"Do not do: {job.title}").triggered.connect(
                lambda _=False, job=job: self._workspace.jobs.drop(job)
            )


class Panel(QWidget):
    """One page: an empty state or its content, which scrolls only upright; messages and footer below.

    Subclasses fill `body` and say with `show_empty` when there is nothing to show.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    """

    def __init__(self, workspace: Workspace, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.workspace = workspace
        self.viewer = viewer
        content = QWidget()
        self.body = QVBoxLayout(content)
        self.body.setContentsMargins(0, 0, 4, 0)
        self.body.setSpacing(8)
        self._pages = QStackedWidget()
        self._pages.addWidget(_UprightScroll(content))
        self.messages = MessageStrip()
        self.footer = Footer(workspace)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.setSpacing(6)
        layout.addWidget(self._pages, 1)
        layout.addWidget(self.messages)
        layout.addWidget(self.footer)
        self.setMinimumWidth(NARROW - 20)
        listen(self, workspace.message, self._take_message)

    def set_empty_state(self, empty: EmptyState) -> None:
        """Set what the page shows while it is empty."""
        self._pages.addWidget(empty)

    def show_empty(self, empty: bool) -> None:
        """Show the empty state, or the content."""
        self._pages.setCurrentIndex(1 if empty and self._pages.count() > 1 else 0)

    @property
    def is_empty(self) -> bool:
        """Whether the empty state shows."""
        return self._pages.currentIndex() == 1

    def sizeHint(self) -> QSize:  # Qt's name
        """Ask for the width that the page is made for."""
        return QSize(400, 720)

    def _take_message(self, level: str, text: str, details: str) -> None:
        # The page that the user sees shows it; the others would only repeat it later.
        if self.isVisible():
            self.messages.show_message(level, text, details)


class _UprightScroll(QScrollArea):
    """A scroll area whose content always has the width of the page."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def resizeEvent(self, event: QResizeEvent) -> None:  # Qt's name
        """Keep the content as wide as the page."""
        super().resizeEvent(event)
        self.widget().setMaximumWidth(self.viewport().width())
