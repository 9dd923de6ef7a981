"""The table of scores on the Review page; without a truth, of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

from napari.settings import get_settings
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QFont
from qtpy.QtWidgets import QTableWidgetItem, QWidget

from ..comparison.surface import DEFINITIONS
from .plain_table import PlainTable
from .widgets import shortened

if TYPE_CHECKING:
    from ..comparison.live import LiveScore, LiveVolumes
    from ..comparison.report import LabelScores, Scores

_HEADS = (
    ("Label", "The class, or the region of several classes"),
    ("Dice", "Overlap, 0 to 1; 1 where both are empty"),
    ("IoU", "Intersection over union, 0 to 1"),
    ("HD95\nmm", "95th percentile of the Hausdorff distance in mm"),
    ("Mean\nmm", "Mean distance of the surfaces in mm"),
    ("Pred.\nml", "Predicted volume in ml"),
    ("Truth\nml", "True volume in ml"),
    ("Δ\nml", "Predicted minus true volume in ml"),
)
_NAME, _DICE, _IOU, _HD95, _MEAN, _VOLUME, _OTHER, _CHANGE = range(len(_HEADS))
#: Columns that only a comparison has.
_COMPARED = (_DICE, _IOU, _HD95, _MEAN, _OTHER)


class ScoresTable(PlainTable):
    """One line for each label and region; a long name stands whole in its tooltip."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(_HEADS, stretch=_NAME, numbers=range(1, len(_HEADS)), parent=parent)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setStyleSheet(f"font-size: {get_settings().appearance.font_size - 1}pt;")
        self.setIconSize(QSize(10, 10))
        #: Number of lines, and which of them is that of the means.
        self._lines = (0, 0)

    def show_scores(self, scores: Scores) -> None:
        """Show the scores of a comparison: labels, their mean, regions."""
        rows = [*scores.by_label, *scores.by_region]
        of_means = len(scores.by_label)
        self._set_lines(len(rows) + 1, of_means)
        for place, score in enumerate(rows):
            # Regions stand below the mean of the labels.
            row = place + score.is_region
            for column, text in enumerate(_texts(score)):
                self._write(row, column, text, score)
        bold = QFont(self.font())
        bold.setBold(True)
        for column in range(len(_HEADS)):
            text = {_NAME: "Mean", _DICE: number_text(scores.mean_dice, 2)}.get(column, "")
            cell = self.write(of_means, column, text)
            if not cell.font().bold():
                cell.setFont(bold)
        self.setToolTip(DEFINITIONS)
        self.fit_height()

    def show_volumes(self, volumes: LiveVolumes) -> None:
        """Show what there is to say without a truth."""
        rows = volumes.volumes()
        self._set_lines(len(rows), len(rows))
        for row, score in enumerate(rows):
            texts = {
                _NAME: score.name,
                _VOLUME: volume_text(score.volume_ml),
                _CHANGE: volume_text(score.change_ml, signed=True),
            }
            for column in range(len(_HEADS)):
                self._write(row, column, texts.get(column, ""), score)
        self.setToolTip("Volumes follow every stroke")
        self.fit_height()

    def name_columns(self, raters: Sequence[str] | None, *, volumes_only: bool) -> None:
        """Head the columns for prediction and truth, for two raters, or for volumes without a truth."""
        heads = dict(enumerate(_HEADS))
        if volumes_only:
            heads[_VOLUME] = ("Volume\nml", "Volume in ml")
            heads[_CHANGE] = ("Change\nml", "How much more that is than when the layer was loaded, in ml")
        elif raters is not None:
            mine, other = raters
            heads[_VOLUME] = (f"{shortened(mine, 6)}\nml", f"Volume in ml in {mine}")
            heads[_OTHER] = (f"{shortened(other, 6)}\nml", f"Volume in ml in {other}")
            heads[_CHANGE] = ("Δ\nml", f"Volume in {mine} minus that in {other}, in ml")
        for column, (name, tooltip) in heads.items():
            item = self.horizontalHeaderItem(column)
            if item.text() != name:
                item.setText(name)
            item.setToolTip(tooltip)
            self.setColumnHidden(column, volumes_only and column in _COMPARED)

    def _set_lines(self, count: int, of_means: int) -> None:
        if (count, of_means) != self._lines:
            # The line of the means stands elsewhere; it is bold and has no square.
            self._lines = (count, of_means)
            self.clearContents()
            self.setRowCount(count)

    def _write(self, row: int, column: int, text: str, score: LabelScores | LiveScore) -> QTableWidgetItem:
        if column != _NAME:
            return self.write(row, column, text)
        values = ", ".join(str(value) for value in score.values)
        item = self.write(row, column, text, f"{score.name} ({values})")
        # Qt draws a colour as a square before the text.
        if item.data(Qt.ItemDataRole.DecorationRole) != QColor(score.color):
            item.setData(Qt.ItemDataRole.DecorationRole, QColor(score.color))
        return item


def _texts(score: LabelScores) -> tuple[str, ...]:
    return (
        score.name,
        number_text(score.dice, 2),
        number_text(score.iou, 2),
        number_text(score.hd95_mm, 1),
        number_text(score.mean_surface_mm, 1 if score.mean_surface_mm >= 10 else 2),
        volume_text(score.predicted_ml),
        volume_text(score.truth_ml),
        volume_text(score.difference_ml, signed=True),
    )


def number_text(value: float, digits: int) -> str:
    """A number with so many decimals, none where there are three digits before the point: columns are narrow."""
    return "–" if isnan(value) else f"{value:.{0 if abs(value) >= 99.5 else digits}f}"


def volume_text(ml: float, *, signed: bool = False) -> str:
    """Volume with as many digits as fit a narrow column."""
    digits = 2 if abs(ml) < 10 else 1 if abs(ml) < 100 else 0
    return f"{ml:+.{digits}f}" if signed else f"{ml:.{digits}f}"
