"""Pictures for reports, drawn without a window: slices with their differences, scores of many cases, learning curves.

Slices look as radiologists read them: the patient's right on the viewer's left, anterior and superior up. They are cut
along the voxel axes nearest to the anatomical ones, in true proportions, without resampling.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nibabel.orientations import apply_orientation
from numpy.typing import NDArray

from ..errors import GeometryError
from ..events import EpochDone, Event, Validated
from ..volumes.atomic import write_whole
from ..volumes.geometry import Geometry
from ..volumes.volume import LabelMap, LabelTable, Volume
from .difference import DIFFERENCE_TABLE, difference_map
from .report import Scores, Table
from .surface import boundary, common_box

if TYPE_CHECKING:
    # matplotlib takes half a second to import, which only those who draw should pay.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: With these axes a transposed slice across the third, second or first axis is an axial, coronal or sagittal picture.
_CODES = "LPI"
_PLANES = (("axial", 2), ("coronal", 1), ("sagittal", 0))
#: Opacity of a label's inside; its outline is opaque.
_FILL = 0.35
_INK, _PAPER, _QUIET = "#1a1a1a", "#ffffff", "#8a8a8a"
_DOTS_PER_INCH = 110


def case_figure(
    predicted: LabelMap, truth: LabelMap, image: Volume | None = None, scores: Scores | None = None
) -> Figure:
    """Image, truth, prediction and difference of one case, in the three planes in which there is most to see.

    Parameters
    ----------
    predicted, truth : LabelMap
        On one grid.
    image : Volume, optional
        Shown beneath, on the same grid; else the labels lie on black.
    scores : Scores, optional
        Printed in the legend.

    Raises
    ------
    GeometryError
        If the grids differ.
    """
    for other in (predicted, image):
        if other is not None and (difference := truth.geometry.difference(other.geometry)):
            raise GeometryError(f"{other.name or 'The image'} does not lie on the truth's grid ({difference}).")
    table = truth.table.covering([*predicted.table.values, *np.unique(predicted.data).tolist()])
    panels = (
        ("image", None, table),
        ("truth", truth.data, table),
        ("prediction", predicted.data, table),
        ("difference", difference_map(predicted.data, truth.data), DIFFERENCE_TABLE),
    )
    shown = _Shown.of(truth.geometry, image, truth.data != 0, predicted.data != 0)
    widths, heights = [], []
    for _, axis in _PLANES:
        across = [shown.size_mm[a] for a in range(3) if a != axis]
        widths.append(across[0])
        heights.append(across[1])
    figure = _figure(11.0, 11.0 * sum(heights) / (4 * max(widths)) + 1.3)
    axes = figure.subplots(3, 4, gridspec_kw={"height_ratios": heights}, squeeze=False)
    for row, (plane, axis) in enumerate(_PLANES):
        for column, (title, labels, colors) in enumerate(panels):
            _draw_slice(axes[row, column], shown, axis, labels, colors)
            if row == 0:
                axes[row, column].set_title(title, fontsize=11, color=_INK)
            if column == 0:
                number = shown.file_slice(axis)
                axes[row, column].set_ylabel(f"{plane} · slice {number}", fontsize=9, color=_INK)
    _case_legend(figure, table, scores)
    return figure


@dataclass(frozen=True, eq=False)
class _Shown:
    """What is on view: arrays turned to `_CODES` and cut to the head, and through which voxel the slices go."""

    geometry: Geometry
    crop: tuple[slice, slice, slice]
    image: NDArray[Any]
    window: tuple[float, float]
    centre: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def of(
        cls, geometry: Geometry, image: Volume | None, truth: NDArray[np.bool_], predicted: NDArray[np.bool_]
    ) -> _Shown:
        turn = geometry.orientation_to(_CODES)
        data = np.zeros(geometry.shape, np.uint8) if image is None else image.data
        # Where nothing is to be seen, the picture need not be: most heads fill half of their image.
        seen = common_box(apply_orientation((data > data.min()) | truth | predicted, turn))
        crop = seen or (slice(None), slice(None), slice(None))
        turned = apply_orientation(truth if truth.any() else predicted, turn)[crop]
        counts = [np.count_nonzero(turned, axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
        # The slice with most of the truth; else with most of the prediction; else the middle one.
        centre = [int(count.argmax()) if count.any() else len(count) // 2 for count in counts]
        spacing = [0.0, 0.0, 0.0]
        for axis in range(3):
            spacing[int(turn[axis, 0])] = geometry.spacing_mm[axis]
        return cls(
            geometry,
            crop,
            apply_orientation(data, turn)[crop],
            _window(data),
            (centre[0], centre[1], centre[2]),
            (spacing[0], spacing[1], spacing[2]),
        )

    @property
    def size_mm(self) -> tuple[float, float, float]:
        x, y, z = (n * mm for n, mm in zip(self.image.shape, self.spacing_mm, strict=True))
        return x, y, z

    def picture(self, array: NDArray[Any], axis: int) -> NDArray[Any]:
        """The slice of an array in `_CODES` order, rows downwards and columns to the right."""
        return np.asarray(array.take(self.centre[axis], axis=axis)).T

    def turned(self, array: NDArray[Any]) -> NDArray[Any]:
        turned: NDArray[Any] = apply_orientation(array, self.geometry.orientation_to(_CODES))[self.crop]
        return turned

    def file_slice(self, axis: int) -> int:
        """The number of the slice in the file's own order, from 0."""
        turn = self.geometry.orientation_to(_CODES)
        own = int(np.flatnonzero(turn[:, 0] == axis)[0])
        number = self.centre[axis] + (self.crop[axis].start or 0)
        return number if turn[own, 1] > 0 else self.geometry.shape[own] - 1 - number


def _window(data: NDArray[Any]) -> tuple[float, float]:
    """Grey values from black to white: most of what differs from the darkest value, usually the background."""
    inside = data[data > data.min()]
    if not inside.size:
        return 0.0, 1.0
    low, high = np.percentile(inside, (1, 99.5))
    return float(low), float(high) if high > low else float(low) + 1.0


def _draw_slice(axes: Axes, shown: _Shown, axis: int, labels: NDArray[Any] | None, table: LabelTable) -> None:
    columns_mm, rows_mm = (shown.spacing_mm[a] for a in range(3) if a != axis)
    picture = shown.picture(shown.image, axis)
    low, high = shown.window
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=rows_mm / columns_mm, interpolation="nearest")
    if labels is not None:
        overlay = label_colors(shown.picture(shown.turned(labels), axis), table)
        axes.imshow(overlay, aspect=rows_mm / columns_mm, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def label_colors(labels: NDArray[Any], table: LabelTable) -> NDArray[np.float32]:
    """Colours of a slice of labels: (rows, columns) integers become (rows, columns, 4) RGBA from 0 to 1.

    The inside of a label is translucent, its outline opaque, background transparent.
    """
    colors = np.zeros((*labels.shape, 4), np.float32)
    for label in table:
        inside = labels == label.value
        if inside.any():
            colors[inside] = (*label.rgb, _FILL)
            colors[boundary(inside)] = (*label.rgb, 1.0)
    return colors


def _case_legend(figure: Figure, table: LabelTable, scores: Scores | None) -> None:
    from matplotlib.patches import Patch

    dices = {score.values: f" · Dice {score.dice:.3f}" for score in scores.by_label} if scores is not None else {}
    entries = [Patch(color=label.color, label=label.name + dices.get((label.value,), "")) for label in table]
    entries += [Patch(color=label.color, label=label.name) for label in DIFFERENCE_TABLE]
    figure.legend(handles=entries, loc="outside lower center", ncols=min(len(entries), 4), frameon=False, fontsize=9)
    if scores is not None and not isnan(scores.mean_dice):
        figure.suptitle(f"{scores.case} · mean Dice {scores.mean_dice:.3f}".lstrip(" ·"), fontsize=12, color=_INK)


def overview_figure(table: Table) -> Figure:
    """Dice of every case as a dot, a row for each class and region, with the mean as a line."""
    summaries = table.summaries()
    figure = _figure(8.0, 1.2 + 0.45 * max(len(summaries), 1))
    axes = figure.subplots()
    for row, summary in enumerate(summaries):
        dices = [
            score.dice
            for case in table.cases
            for score in (case.by_region if summary.is_region else case.by_label)
            if score.values == summary.values and score.name == summary.name
        ]
        # Dots that fall on one another are moved apart, evenly and the same way each time.
        apart = ((np.arange(len(dices)) * 0.618) % 1 - 0.5) * 0.5
        axes.scatter(dices, row + apart, s=22, color=summary.color, edgecolors=_INK, linewidths=0.4, zorder=3)
        axes.vlines(summary.mean_dice, row - 0.38, row + 0.38, color=_INK, linewidth=2, zorder=4)
    axes.set_yticks(range(len(summaries)), [f"{s.name}  {s.mean_dice:.3f}" for s in summaries])
    axes.set_ylim(len(summaries) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"Dice of each of {len(table.cases)} cases; the line is the mean")
    _quiet_frame(axes)
    return figure


def curves_figure(history: Sequence[Event], table: LabelTable | None = None) -> Figure:
    """Loss and validation Dice of a training against its minutes.

    Parameters
    ----------
    history : sequence of Event
        The `EpochDone` and `Validated` of a run; others are passed over.
    table : LabelTable, optional
        For the colours of the classes.
    """
    epochs = [event for event in history if isinstance(event, EpochDone)]
    checks = [event for event in history if isinstance(event, Validated)]
    figure = _figure(9.0, 3.2)
    loss, dice = figure.subplots(1, 2)
    loss.plot([e.elapsed_s / 60 for e in epochs], [e.loss for e in epochs], ".-", color=_INK, linewidth=1.5)
    loss.set_title("training loss", fontsize=11)
    colors = {label.name: label.color for label in table or ()}
    minutes = [check.elapsed_s / 60 for check in checks]
    for name in checks[-1].dice if checks else ():
        values = [check.dice.get(name, float("nan")) for check in checks]
        dice.plot(minutes, values, "o-", markersize=3, linewidth=1.5, color=colors.get(name, _QUIET), label=name)
    dice.plot(minutes, [check.mean_dice for check in checks], ".--", color=_INK, linewidth=1, label="mean")
    dice.set_title("Dice on validation cases", fontsize=11)
    dice.set_ylim(0, 1)
    if checks:
        dice.legend(frameon=False, fontsize=8, loc="lower right")
    for axes in (loss, dice):
        axes.set_xlabel("minutes")
        axes.set_xlim(left=0)
        _quiet_frame(axes)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    file = io.BytesIO()
    # No date and no program version: the same figure gives the same bytes.
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def save_figure(path: Path, figure: Figure) -> Path:
    """Write the figure as a PNG file, whole or not at all; an older file of that name is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        temporary.write_bytes(png_bytes(figure))
    return path


def _figure(width: float, height: float) -> Figure:
    # Not through pyplot: it keeps every figure and chooses a window system, both for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, facecolor=_PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _quiet_frame(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, color="#e4e4e4", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
