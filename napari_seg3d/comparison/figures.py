"""Pictures for reports, drawn without a window: a case in three planes, scores of many cases, learning curves.

What slices look like is settled in `napari_seg3d.comparison.slices`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import TYPE_CHECKING

import numpy as np

from ..events import SHARES, EpochDone, Event, Validated
from ..volumes.volume import LabelMap, LabelTable, Volume
from .canvas import INK, QUIET, new_figure, quiet_frame
from .difference import DIFFERENCE_TABLE, difference_map
from .report import Scores, Table
from .slices import PLANES, Backdrop, View, check_grids, common_table, draw_slice, row_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The second line of a plot beside one in ink.
_SECOND = "#d1495b"


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
    check_grids(truth.geometry, predicted, image)
    table = common_table(truth, predicted)
    panels = (
        ("image", None, table),
        ("truth", truth.data, table),
        ("prediction", predicted.data, table),
        ("difference", difference_map(predicted.data, truth.data), DIFFERENCE_TABLE),
    )
    backdrop = Backdrop.of(image, truth.geometry)
    inside, ours = truth.data != 0, predicted.data != 0
    view = View.of(truth.geometry, backdrop.seen | inside | ours)
    sizes = [view.size_mm(plane) for plane in PLANES]
    heights = [height for _, height in sizes]
    figure = new_figure(11.0, 11.0 * sum(heights) / (4 * max(width for width, _ in sizes)) + 1.3)
    axes = figure.subplots(3, 4, gridspec_kw={"height_ratios": heights}, squeeze=False)
    for row, plane in enumerate(PLANES):
        # The slice with most of the truth; else with most of the prediction; else the middle one.
        number = view.slice_with_most(inside if inside.any() else ours, plane)
        for column, (title, labels, colors) in enumerate(panels):
            draw_slice(axes[row, column], view, plane, number, backdrop, labels, colors)
            if row == 0:
                axes[row, column].set_title(title, fontsize=11, color=INK)
        row_label(axes[row, 0], f"{plane} · slice {number}")
    _case_legend(figure, table, scores)
    return figure


def _case_legend(figure: Figure, table: LabelTable, scores: Scores | None) -> None:
    from matplotlib.patches import Patch

    dices = {score.values: f" · Dice {score.dice:.3f}" for score in scores.by_label} if scores is not None else {}
    entries = [Patch(color=label.color, label=label.name + dices.get((label.value,), "")) for label in table]
    entries += [Patch(color=label.color, label=label.name) for label in DIFFERENCE_TABLE]
    figure.legend(handles=entries, loc="outside lower center", ncols=min(len(entries), 4), frameon=False, fontsize=9)
    if scores is not None and not isnan(scores.mean_dice):
        figure.suptitle(f"{scores.case} · mean Dice {scores.mean_dice:.3f}".lstrip(" ·"), fontsize=12, color=INK)


def overview_figure(table: Table) -> Figure:
    """Dice of every case as a dot, a row for each class and region, with the mean as a line."""
    summaries = table.summaries()
    figure = new_figure(8.0, 1.2 + 0.45 * max(len(summaries), 1))
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
        axes.scatter(dices, row + apart, s=22, color=summary.color, edgecolors=INK, linewidths=0.4, zorder=3)
        axes.vlines(summary.mean_dice, row - 0.38, row + 0.38, color=INK, linewidth=2, zorder=4)
    axes.set_yticks(range(len(summaries)), [f"{s.name}  {s.mean_dice:.3f}" for s in summaries])
    axes.set_ylim(len(summaries) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"Dice of each of {len(table.cases)} cases; the line is the mean")
    quiet_frame(axes)
    return figure


def curves_figure(history: Sequence[Event], table: LabelTable | None = None) -> Figure:
    """Loss and Dice of a training and of its validation against its minutes; what a discriminator says beside them.

    Training is thin and dotted in the plot of the Dice, where each class has its colour.

    Parameters
    ----------
    history : sequence of Event
        The `EpochDone` and `Validated` of a run; others are passed over.
    table : LabelTable, optional
        For the colours of the classes.
    """
    epochs = [event for event in history if isinstance(event, EpochDone)]
    checks = [event for event in history if isinstance(event, Validated)]
    details = list(dict.fromkeys(name for event in epochs for name in event.details))
    figure = new_figure(14.5 if details else 9.0, 3.2)
    loss, dice, *judged = figure.subplots(1, 3 if details else 2)
    trained = [event.elapsed_s / 60 for event in epochs]
    loss.plot(trained, [e.segmentation_loss for e in epochs], ".-", color=INK, linewidth=1.5, label="training")
    if any(check.loss is not None for check in checks):
        pairs = [(check.elapsed_s / 60, check.loss) for check in checks if check.loss is not None]
        loss.plot(*zip(*pairs, strict=True), "o-", markersize=3, color=_SECOND, linewidth=1.5, label="validation")
        loss.legend(frameon=False, fontsize=8, loc="upper right")
        loss.set_title("loss", fontsize=11)
    else:
        loss.set_title("training loss", fontsize=11)
    colors = {label.name: label.color for label in table or ()}
    minutes = [check.elapsed_s / 60 for check in checks]
    names = list(epochs[-1].dice) if epochs else []
    for name in names:
        values = [event.dice.get(name, float("nan")) for event in epochs]
        dice.plot(trained, values, ":", linewidth=1.3, color=colors.get(name, QUIET), label="_")
    for name in checks[-1].dice if checks else ():
        values = [check.dice.get(name, float("nan")) for check in checks]
        dice.plot(minutes, values, "o-", markersize=3, linewidth=1.5, color=colors.get(name, QUIET), label=name)
    dice.plot(minutes, [check.mean_dice for check in checks], ".--", color=INK, linewidth=1, label="mean")
    dice.set_title("Dice on validation cases" + (" (dotted: training)" if names else ""), fontsize=11)
    dice.set_ylim(0, 1)
    if checks:
        dice.legend(frameon=False, fontsize=8, loc="lower right")
    if judged:
        _draw_details(judged[0], epochs, details)
    for axes in (loss, dice, *judged):
        axes.set_xlabel("minutes")
        axes.set_xlim(left=0)
        quiet_frame(axes)
    return figure


def _draw_details(axes: Axes, epochs: Sequence[EpochDone], names: Sequence[str]) -> None:
    """Losses on the left axis; shares, dashed, on an axis of their own on the right."""
    shares = axes.twinx()
    for index, name in enumerate(names):
        values = [event.details.get(name, float("nan")) for event in epochs]
        where, style = (shares, "--") if name in SHARES else (axes, "-")
        where.plot([e.elapsed_s / 60 for e in epochs], values, style, color=f"C{index}", linewidth=1.2, label=name)
    axes.set_title("generator (G) and discriminator (D)", fontsize=11)
    shares.set_ylim(0, 1)
    shares.spines["top"].set_visible(False)
    lines = [line for part in (axes, shares) for line in part.lines]
    labels = [str(line.get_label()) + (", right" if line.axes is shares else "") for line in lines]
    shares.legend(lines, labels, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.1, 0.5))
