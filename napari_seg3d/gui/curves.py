"""Live curves of a training: losses above, Dice of every class below, then what a discriminator says.

Events come in as fast as the training makes them and are kept in bounded memory; the picture follows at most twice a
second (see `pacer`), so that drawing never competes with the training or the viewer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

import numpy as np
import qtpy
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QPointF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPalette
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from ..events import SHARES, EpochDone, Event, Step, Validated
from .pacer import Pacer
from .widgets import theme_colour

# pyqtgraph would choose a Qt of its own when several are installed; it must take the one that napari runs on.
os.environ["PYQTGRAPH_QT_LIB"] = qtpy.API_NAME
import pyqtgraph as pg

#: Longest series that is kept; a longer one is thinned by joining neighbours.
POINTS = 2000

#: Of the lines of a discriminator's plot, one after the other; made readable on the theme's ground.
_DETAIL_COLOURS = ("#e15759", "#edc948", "#59a14f", "#4e79a7", "#b07aa1", "#76b7b2")

Axis = Literal["epochs", "minutes"]


class Series:
    """Numbers along a training in bounded memory: when full, every two neighbours become their mean."""

    def __init__(self) -> None:
        #: Rows of epoch, minute, value; the last row is the mean of what came since, while it waits to be complete.
        self._rows = np.empty((2 * POINTS, 3))
        self._complete = 0
        self._joined = 1
        self._waiting: list[tuple[float, float, float]] = []

    def add(self, epoch: float, minute: float, value: float) -> None:
        """Append one point."""
        self._waiting.append((epoch, minute, value))
        self._rows[self._complete] = np.mean(self._waiting, axis=0)
        if len(self._waiting) < self._joined:
            return
        self._waiting.clear()
        self._complete += 1
        if self._complete == len(self._rows):
            self._rows[:POINTS] = self._rows.reshape(POINTS, 2, 3).mean(axis=1)
            self._complete = POINTS
            self._joined *= 2

    def __len__(self) -> int:
        return self._complete + bool(self._waiting)

    @property
    def epochs(self) -> NDArray[np.float64]:
        """(N,) rounds of training."""
        return self._rows[: len(self), 0]

    @property
    def minutes(self) -> NDArray[np.float64]:
        """(N,) minutes since the training began."""
        return self._rows[: len(self), 1]

    @property
    def values(self) -> NDArray[np.float64]:
        """(N,) values."""
        return self._rows[: len(self), 2]

    def along(self, axis: Axis) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return copies of places and values as (N,) arrays."""
        return (self.epochs if axis == "epochs" else self.minutes).copy(), self.values.copy()

    def nearest(self, axis: Axis, place: float) -> int | None:
        """Return the index of the point nearest to a place, None when there is no point."""
        places, _ = self.along(axis)
        return int(np.abs(places - place).argmin()) if places.size else None


@dataclass
class TrainingCurves:
    """What the events of one training add up to, without any drawing.

    Parameters
    ----------
    steps_per_epoch : float
        Places single steps between the epochs; the first finished epoch tells it exactly.
    """

    steps_per_epoch: float = 50.0
    step_loss: Series = field(default_factory=Series)
    loss: Series = field(default_factory=Series)
    validation_loss: Series = field(default_factory=Series)
    mean_dice: Series = field(default_factory=Series)
    dice: dict[str, Series] = field(default_factory=dict)
    training_dice: dict[str, Series] = field(default_factory=dict)
    details: dict[str, Series] = field(default_factory=dict)
    best: tuple[float, float, float] | None = None

    def add(self, event: Event) -> bool:
        """Take an event in; return whether there is something new to draw."""
        if isinstance(event, Step):
            # Single steps lead up to the end of their epoch.
            self.step_loss.add(event.step / self.steps_per_epoch, event.elapsed_s / 60, event.segmentation_loss)
        elif isinstance(event, EpochDone):
            if not len(self.loss):
                self.steps_per_epoch = event.steps / event.epoch
            place = (float(event.epoch), event.elapsed_s / 60)
            self.loss.add(*place, event.segmentation_loss)
            for kept, values in ((self.training_dice, event.dice), (self.details, event.details)):
                for name, value in values.items():
                    kept.setdefault(name, Series()).add(*place, value)
        elif isinstance(event, Validated):
            self._add_validation(event)
        else:
            return False
        return True

    def _add_validation(self, event: Validated) -> None:
        place = (float(event.epoch), event.elapsed_s / 60)
        self.mean_dice.add(*place, event.mean_dice)
        if event.loss is not None:
            self.validation_loss.add(*place, event.loss)
        for name, value in event.dice.items():
            self.dice.setdefault(name, Series()).add(*place, value)
        if event.best:
            self.best = (*place, event.mean_dice)


@dataclass(frozen=True)
class Colours:
    """Colours of napari's theme as ``#rrggbb``."""

    background: str
    text: str
    quiet: str
    accent: str
    second: str


def theme_colours() -> Colours:
    """Return the colours of the theme that napari shows now."""
    background, text, quiet = (QColor(theme_colour(name)).name() for name in ("foreground", "text", "icon"))
    is_dark = _luminance(QColor(background)) < _luminance(QColor(text))
    accent, second = ("#6f8df5", "#f08a5d") if is_dark else ("#2f55c8", "#c0501e")
    return Colours(background, text, quiet, accent, second)


def readable(color: str, background: str) -> str:
    """Return `color`, made lighter or darker until a thin line of it can be seen on `background` (contrast 2 : 1)."""
    goal = QColor("white" if _luminance(QColor(background)) < 0.4 else "black")
    ground = _luminance(QColor(background))
    for part in np.linspace(0, 1, 11):
        line = QColor(color)
        line = QColor(*(round((1 - part) * c + part * g) for c, g in zip(_rgb(line), _rgb(goal), strict=True)))
        brighter, darker = sorted((_luminance(line), ground), reverse=True)
        if (brighter + 0.05) / (darker + 0.05) >= 2:
            break
    return str(line.name())


def _rgb(color: QColor) -> tuple[int, int, int]:
    return color.red(), color.green(), color.blue()


def _luminance(color: QColor) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = np.asarray(_rgb(color)) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


class CurvesView(QWidget):
    """Plots with one horizontal axis, a legend that shows the values, and the values under the mouse.

    Parameters
    ----------
    parent : QWidget, optional
    """

    #: The moment for all that changes beside the curves to change with them, so that the window is drawn once.
    about_to_draw = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._is_built = False
        self._curves = TrainingCurves()
        self._label_colours: Mapping[str, str] = {}
        self._axis: Axis = "epochs"
        self._place: float | None = None
        self._pacer = Pacer(self, self._draw_in_time)
        self._reading = _line_of_text("Where the mouse is, or else the newest values")
        self._axis_box = QComboBox()
        self._axis_box.addItems(["epochs", "minutes"])
        self._axis_box.setToolTip("Draw along rounds of training or along time")
        self._axis_box.currentTextChanged.connect(self.set_axis)
        self._dice_legend = _line_of_text(
            "Mean hard Dice over whole validation cases; 1 is perfect. Dotted lines: soft Dice of training patches"
        )
        self._detail_legend = _line_of_text(
            "Generator (G) and discriminator (D): mean over each epoch. Accuracy is the share of the discriminator's "
            "answers that were right; dashed lines are shares, with their scale on the right"
        )
        self._plots = _Plots()
        self._plots.setMinimumSize(200, 220)
        self._plots.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        self._plots.setAccessibleName("Curves of loss and Dice")
        self._loss_plot = self._plots.addPlot(row=0, col=0, axisItems={"bottom": _WholeNumbers("bottom")})
        self._dice_plot = self._plots.addPlot(row=1, col=0, axisItems={"bottom": _WholeNumbers("bottom")})
        self._detail_plot = self._plots.addPlot(row=2, col=0, axisItems={"bottom": _WholeNumbers("bottom")})
        # Out of the layout, in which hidden plots keep their room, but still owned by the scene.
        self._detail_plot.hide()
        self._plots.ci.layout.removeItem(self._detail_plot)
        # The lowest plot bears the labels of the axis for all.
        self._plots.ci.layout.setRowStretchFactor(0, 4)
        self._plots.ci.layout.setRowStretchFactor(1, 5)
        self._set_up_plots()

        top = QHBoxLayout()
        top.addWidget(self._reading, 1)
        top.addWidget(self._axis_box)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addLayout(top)
        layout.addWidget(self._plots, 1)
        layout.addWidget(self._dice_legend)
        layout.addWidget(self._detail_legend)
        self._paint()
        self._draw()
        self._is_built = True

    def _set_up_plots(self) -> None:
        for plot in self._all_plots:
            plot.setMenuEnabled(False)
            plot.hideButtons()
            # The page scrolls with the wheel; the axes fit themselves.
            plot.setMouseEnabled(x=False, y=False)
            plot.showGrid(x=True, y=True, alpha=0.15)
            for side in ("left", "bottom", "right"):
                plot.getAxis(side).enableAutoSIPrefix(False)
            plot.getAxis("left").setWidth(46)
        self._dice_plot.setXLink(self._loss_plot)
        self._detail_plot.setXLink(self._loss_plot)
        self._dice_plot.setYRange(0, 1, padding=0.02)
        self._loss_plot.setLabel("left", "loss")
        self._dice_plot.setLabel("left", "Dice")
        self._detail_plot.setLabel("left", "G and D")
        # Shares have a scale of their own, or the generator's loss would press them flat.
        self._shares = pg.ViewBox(enableMenu=False)
        self._shares.setParentItem(self._detail_plot)
        self._shares.setMouseEnabled(x=False, y=False)
        self._shares.setXLink(self._detail_plot)
        self._shares.setYRange(0, 1, padding=0.02)
        self._detail_plot.vb.sigResized.connect(lambda: self._shares.setGeometry(self._detail_plot.vb.geometry()))
        for plot in self._all_plots:
            plot.getAxis("right").setWidth(30)
        self._detail_plot.getAxis("right").linkToView(self._shares)
        self._loss_plot.getAxis("bottom").setStyle(showValues=False)
        self._step_line = self._loss_plot.plot([], [])
        self._loss_line = self._loss_plot.plot([], [])
        self._validation_line = self._loss_plot.plot([], [], symbol="o", symbolSize=4, symbolPen=None)
        self._mean_line = self._dice_plot.plot([], [])
        self._best_mark = pg.ScatterPlotItem(size=12, symbol="star")
        self._dice_plot.addItem(self._best_mark)
        self._dice_lines: dict[str, Any] = {}
        self._training_lines: dict[str, Any] = {}
        self._detail_lines: dict[str, Any] = {}
        self._cursors = [pg.InfiniteLine(angle=90, movable=False) for _ in self._all_plots]
        for plot, cursor in zip(self._all_plots, self._cursors, strict=True):
            plot.addItem(cursor, ignoreBounds=True)
            cursor.setVisible(False)
        self._plots.scene().sigMouseMoved.connect(self._mouse_moved)
        self._plots.setMouseTracking(True)

    def changeEvent(self, event: QEvent) -> None:
        """Follow the theme, which arrives as a change of style."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.StyleChange and self._is_built and theme_colours() != self._colours:
            self._paint()
            self._draw()

    def _paint(self) -> None:
        """Take the theme's colours."""
        self._colours = colours = theme_colours()
        self._plots.setBackground(colours.background)
        axis = pg.mkPen(colours.quiet, width=1)
        for plot in self._all_plots:
            for side in ("left", "bottom", "right"):
                plot.getAxis(side).setPen(axis)
                plot.getAxis(side).setTextPen(colours.text)
        faint = QColor(colours.accent)
        faint.setAlpha(130)
        self._step_line.setPen(pg.mkPen(faint, width=1))
        self._loss_line.setPen(pg.mkPen(colours.accent, width=2))
        self._validation_line.setPen(pg.mkPen(colours.second, width=2))
        self._validation_line.setSymbolBrush(colours.second)
        self._mean_line.setPen(pg.mkPen(colours.text, width=2, style=Qt.PenStyle.DashLine))
        self._best_mark.setPen(pg.mkPen(colours.background))
        self._best_mark.setBrush(pg.mkBrush(colours.text))
        for cursor in self._cursors:
            cursor.setPen(pg.mkPen(colours.quiet, width=1, style=Qt.PenStyle.DotLine))
        for name, line in self._dice_lines.items():
            line.setPen(pg.mkPen(self._colour(name), width=2))
            line.setSymbolBrush(self._colour(name))
        for name, line in self._training_lines.items():
            line.setPen(self._training_pen(name))
        for name, line in self._detail_lines.items():
            line.setPen(self._detail_pen(name))

    @property
    def _all_plots(self) -> tuple[Any, ...]:
        return self._loss_plot, self._dice_plot, self._detail_plot

    def _training_pen(self, name: str) -> Any:
        return pg.mkPen(self._colour(name), width=1, style=Qt.PenStyle.DotLine)

    def _detail_pen(self, name: str) -> Any:
        style = Qt.PenStyle.DashLine if name in SHARES else Qt.PenStyle.SolidLine
        return pg.mkPen(self._detail_colour(name), width=1.5, style=style)

    def _detail_colour(self, name: str) -> str:
        index = list(self._curves.details).index(name)
        return readable(_DETAIL_COLOURS[index % len(_DETAIL_COLOURS)], self._colours.background)

    def _colour(self, name: str) -> str:
        return readable(self._label_colours.get(name, self._colours.accent), self._colours.background)

    def clear(self, label_colours: Mapping[str, str] | None = None, steps_per_epoch: float = 50.0) -> None:
        """Forget the curves; `label_colours` maps the names of the classes to come to ``#rrggbb``."""
        self._curves = TrainingCurves(steps_per_epoch)
        self._label_colours = dict(label_colours or {})
        for plot, lines in (
            (self._dice_plot, self._dice_lines),
            (self._dice_plot, self._training_lines),
        ):
            for line in lines.values():
                plot.removeItem(line)
            lines.clear()
        for name, line in self._detail_lines.items():
            (self._shares if name in SHARES else self._detail_plot).removeItem(line)
        self._detail_lines.clear()
        self._place = None
        self._draw()

    def add(self, event: Event) -> None:
        """Take an event in; it is drawn soon."""
        if self._curves.add(event):
            self._pacer.want()

    def touch(self) -> None:
        """Ask for `about_to_draw` soon, without anything new in the curves."""
        self._pacer.want()

    def _draw_in_time(self) -> None:
        self.about_to_draw.emit()
        self._draw()

    def show_history(
        self, events: Iterable[Event], label_colours: Mapping[str, str], steps_per_epoch: float = 50.0
    ) -> None:
        """Draw the curves of a training that ran before, or of the part of one that is over."""
        self.clear(label_colours, steps_per_epoch)
        for event in events:
            self._curves.add(event)
        self._draw()

    @property
    def is_empty(self) -> bool:
        """Whether no event has come yet."""
        return not (len(self._curves.step_loss) or len(self._curves.loss) or len(self._curves.mean_dice))

    def set_axis(self, axis: str) -> None:
        """Draw along ``"epochs"`` or ``"minutes"``."""
        self._axis = "minutes" if axis == "minutes" else "epochs"
        self._axis_box.setCurrentText(self._axis)
        self._place = None
        self._draw()

    def _draw(self) -> None:
        curves = self._curves
        self._step_line.setData(*curves.step_loss.along(self._axis))
        ends, losses = curves.loss.along(self._axis)
        # The mean over a round stands in the middle of it, so that it lies on the line of its steps.
        self._loss_line.setData(ends - np.diff(ends, prepend=0.0) / 2, losses)
        self._validation_line.setData(*curves.validation_loss.along(self._axis))
        self._mean_line.setData(*curves.mean_dice.along(self._axis))
        for name, series in curves.training_dice.items():
            if name not in self._training_lines:
                self._training_lines[name] = self._dice_plot.plot([], [], pen=self._training_pen(name))
            self._training_lines[name].setData(*series.along(self._axis))
        for name, series in curves.dice.items():
            if name not in self._dice_lines:
                pen, brush = pg.mkPen(self._colour(name), width=2), pg.mkBrush(self._colour(name))
                self._dice_lines[name] = self._dice_plot.plot([], [], pen=pen, symbol="o", symbolSize=5, symbolPen=None)
                self._dice_lines[name].setSymbolBrush(brush)
            places, values = series.along(self._axis)
            self._dice_lines[name].setData(places, values)
            self._dice_lines[name].setSymbol("o" if len(places) <= 60 else None)
        best = curves.best
        self._best_mark.setData(*([], []) if best is None else ([best[0 if self._axis == "epochs" else 1]], [best[2]]))
        self._draw_details()
        self._read()

    def _draw_details(self) -> None:
        curves = self._curves
        wanted = bool(curves.details)
        if wanted != self._detail_plot.isVisible():
            self._detail_plot.setVisible(wanted)
            layout = self._plots.ci.layout
            if wanted:
                layout.addItem(self._detail_plot, 2, 0)
            else:
                layout.removeItem(self._detail_plot)
            layout.setRowStretchFactor(2, 4 if wanted else 0)
            self._plots.setMinimumHeight(320 if wanted else 220)
            for plot in self._all_plots:  # all, so that their horizontal axes stay in line
                plot.showAxis("right", wanted)
                plot.getAxis("right").setStyle(showValues=plot is self._detail_plot)
        self._detail_legend.setVisible(wanted)
        for name, series in curves.details.items():
            if name not in self._detail_lines:
                self._detail_lines[name] = pg.PlotDataItem([], [], pen=self._detail_pen(name))
                (self._shares if name in SHARES else self._detail_plot).addItem(self._detail_lines[name])
            self._detail_lines[name].setData(*series.along(self._axis))
        lowest = self._detail_plot if wanted else self._dice_plot
        self._dice_plot.getAxis("bottom").setStyle(showValues=not wanted)
        self._dice_plot.setLabel("bottom", "")
        lowest.setLabel("bottom", "epoch" if self._axis == "epochs" else "time (min)")
        self._dice_plot.showLabel("bottom", not wanted)

    def _mouse_moved(self, where: QPointF) -> None:
        shown = (plot for plot in self._all_plots if plot.isVisible())
        plot = next((plot for plot in shown if plot.sceneBoundingRect().contains(where)), None)
        self._place = None if plot is None or self.is_empty else plot.vb.mapSceneToView(where).x()
        self._read()

    def leaveEvent(self, event: Any) -> None:
        """Go back to the newest values when the mouse leaves."""
        self._place = None
        self._read()
        super().leaveEvent(event)

    def _read(self) -> None:
        """Write the values at the mouse, or the newest ones, above and below the plots."""
        for cursor in self._cursors:
            cursor.setVisible(self._place is not None)
            if self._place is not None:
                cursor.setPos(self._place)
        if self.is_empty:
            self._reading.setText("The curves appear with the first step.")
            self._dice_legend.setText("")
            self._detail_legend.setText("")
            return
        loss = self._curves.loss if len(self._curves.loss) else self._curves.step_loss
        mark = f'<span style="color:{self._colours.accent}">━</span>'
        if (at := self._at(loss)) is None:
            self._reading.setText("")
        else:
            self._reading.setText(
                f"{mark} loss <b>{loss.values[at]:.3f}</b>{self._validation_words()} · epoch {loss.epochs[at]:.0f} · "
                f"{loss.minutes[at]:.1f} min"
            )
        self._dice_legend.setText(self._legend())
        self._detail_legend.setText(self._details_in_words())

    def _validation_words(self) -> str:
        series = self._curves.validation_loss
        if (at := self._at(series)) is None:
            return ""
        mark = f'<span style="color:{self._colours.second}">━</span>'
        return f" {mark}&nbsp;validation&nbsp;<b>{series.values[at]:.3f}</b>"

    def _details_in_words(self) -> str:
        parts = []
        for name, series in self._curves.details.items():
            if (at := self._at(series)) is not None:
                dash = "╌" if name in SHARES else "━"
                parts.append(
                    f'<span style="color:{self._detail_colour(name)}">{dash}</span>&nbsp;'
                    f"{escape(name).replace(' ', '&nbsp;')}&nbsp;<b>{series.values[at]:.2f}</b>"
                )
        return "&nbsp;&nbsp; ".join(parts)

    def _at(self, series: Series) -> int | None:
        if self._place is None:
            return len(series) - 1 if len(series) else None
        return series.nearest(self._axis, self._place)

    def _legend(self) -> str:
        mean = self._curves.mean_dice
        if (at := self._at(mean)) is None:
            return "Dice appears after the first validation."
        parts = [
            # Non-breaking inside an entry, so that the legend wraps between entries only.
            f'<span style="color:{self._colour(name)}">●</span>&nbsp;{escape(name).replace(" ", "&nbsp;")}'
            f"&nbsp;<b>{series.values[at]:.3f}</b>"
            for name, series in self._curves.dice.items()
            if at < len(series)
        ]
        parts.append(f"<span>╌</span>&nbsp;mean&nbsp;<b>{mean.values[at]:.3f}</b>")
        if self._curves.best is not None:
            epoch, minute, value = self._curves.best
            where = f"epoch {epoch:.0f}" if self._axis == "epochs" else f"{minute:.1f} min"
            parts.append(f"★&nbsp;best&nbsp;{value:.3f}&nbsp;at&nbsp;{where}".replace(" ", "&nbsp;"))
        return "&nbsp;&nbsp; ".join(parts)


class _WholeNumbers(pg.AxisItem):
    """An axis on which nothing smaller than one is marked: there is no half epoch to point at."""

    def tickSpacing(self, minVal: float, maxVal: float, size: float) -> list[tuple[float, float]]:  # noqa: N802, N803
        """Return distance and offset of the marks, coarse ones first."""
        return [level for level in super().tickSpacing(minVal, maxVal, size) if level[0] >= 1] or [(1, 0)]


class _Plots(pg.GraphicsLayoutWidget):
    """Plots that are content with a narrow page, and grow where there is room."""

    def sizeHint(self) -> QSize:
        """Ask for little: Qt's own hint would make the page scroll."""
        return QSize(300, 240)


def _line_of_text(tooltip: str) -> QLabel:
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.RichText)
    label.setWordWrap(True)
    label.setToolTip(tooltip)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    label.setForegroundRole(QPalette.ColorRole.WindowText)
    return label
