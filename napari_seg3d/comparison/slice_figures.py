"""Figures of chosen slices: prediction, truth and how they differ.

Background is never shown as a prediction: what is drawn are the labels, or one class or region of them, as a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cases.labels import Region
from ..volumes.volume import Label, LabelMap, LabelTable, Volume
from .canvas import INK, new_figure
from .slices import (
    Backdrop,
    Plane,
    View,
    bare,
    check_grids,
    chosen_slices,
    common_table,
    draw_slice,
    labels_legend,
    row_label,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: One class, or one region of several classes; None stands for all labels together.
Structure = Label | Region | None
#: A structure with fewer voxels than this in truth and prediction together is almost empty: there is nothing to see.
FEWEST_VOXELS = 10
_AGREE, _DISAGREE = Label(1, "agreement", "#2ca02c"), Label(2, "disagreement", "#d62728")
_WIDEST, _ONE, _MARGIN = 16.0, 2.2, 0.9


def mask_of(label_map: LabelMap, structure: Structure) -> NDArray[np.bool_]:
    """Where a structure is, (X, Y, Z)."""
    if structure is None:
        return np.asarray(label_map.data != 0)
    if isinstance(structure, Region):
        return np.isin(label_map.data, structure.values)
    return np.asarray(label_map.data == structure.value)


def name_of(structure: Structure) -> str:
    """What a structure is called in titles."""
    return "any label" if structure is None else structure.name


def table_of(structure: Label | Region) -> LabelTable:
    """Name and colour for the value 1 of a structure's mask."""
    return LabelTable((Label(1, structure.name, structure.color),))


def slice_grid_figure(
    predicted: LabelMap,
    truth: LabelMap,
    image: Volume | None = None,
    *,
    structure: Structure = None,
    plane: Plane = "axial",
    slices: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """Three rows of slices: truth, prediction, and their difference from -1 (missed) to 1 (added).

    Parameters
    ----------
    predicted, truth : LabelMap
        On one grid.
    image : Volume, optional
        Shown beneath the labels.
    structure : Label or Region, optional
        What is drawn; all labels by default, in which case a wrong class is no difference.
    plane : {"axial", "coronal", "sagittal"}
    slices : sequence of int, optional
        Numbers in the file's order, from 0; by default five, evenly spaced through what is labelled.
    title : str
        Before the name of the structure.

    Raises
    ------
    GeometryError
        If the grids differ, or there is no such slice.
    """
    pair = _Pair.of(predicted, truth, image, structure)
    view, numbers = pair.view, chosen_slices(pair.view, plane, slices, pair.labelled)
    figure, axes = _grid(view, plane, 3, len(numbers), title, f"{name_of(structure)}, {plane}")
    difference = pair.ours.astype(np.int8) - pair.theirs
    for column, number in enumerate(numbers):
        for row, labels in enumerate((pair.shown_truth, pair.shown_prediction)):
            draw_slice(axes[row, column], view, plane, number, pair.backdrop, labels, pair.table)
        picture = view.picture(difference, plane, number)
        drawn = axes[2, column].imshow(
            picture, cmap="coolwarm", vmin=-1, vmax=1, aspect=view.aspect(plane), interpolation="nearest"
        )
        bare(axes[2, column])
        axes[0, column].set_title(f"slice {number}", fontsize=10, color=INK)
    for row, name in enumerate(("truth", "prediction", "difference")):
        row_label(axes[row, 0], name)
    # Beside the last picture and as high as it, so that it takes no room from the others.
    beside = axes[2, -1].inset_axes((1.04, 0, 0.05, 1))
    bar = figure.colorbar(drawn, cax=beside, ticks=(-1, 0, 1))
    bar.ax.set_yticklabels(("-1 missed", "0", "1 added"), fontsize=8)
    labels_legend(figure, pair.table)
    return figure


def agreement_figure(
    predicted: LabelMap,
    truth: LabelMap,
    image: Volume | None = None,
    *,
    structure: Structure = None,
    plane: Plane = "axial",
    slices: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """Four rows of slices: image, prediction, truth, and where both agree (green) or not (red).

    Without an image there is no row for it. Of all labels, voxels agree that have the same class. Parameters and errors
    are those of `slice_grid_figure`.
    """
    pair = _Pair.of(predicted, truth, image, structure)
    view, numbers = pair.view, chosen_slices(pair.view, plane, slices, pair.labelled)
    same = pair.shown_truth == pair.shown_prediction
    agreement = np.where(pair.labelled, np.where(same, _AGREE.value, _DISAGREE.value), 0).astype(np.uint8)
    verdict = LabelTable((_AGREE, _DISAGREE))
    rows: list[tuple[str, NDArray[Any] | None, LabelTable]] = [
        ("prediction", pair.shown_prediction, pair.table),
        ("truth", pair.shown_truth, pair.table),
        ("agreement green,\ndisagreement red", agreement, verdict),
    ]
    if image is not None:
        rows.insert(0, (image.name or "image", None, pair.table))
    figure, axes = _grid(view, plane, len(rows), len(numbers), title, f"{name_of(structure)}, {plane}")
    for column, number in enumerate(numbers):
        for row, (_, labels, table) in enumerate(rows):
            draw_slice(axes[row, column], view, plane, number, pair.backdrop, labels, table)
        axes[0, column].set_title(f"slice {number}", fontsize=10, color=INK)
    for row, (name, _, _) in enumerate(rows):
        row_label(axes[row, 0], name)
    labels_legend(figure, pair.table)
    return figure


def triples_figure(
    predicted: LabelMap,
    truth: LabelMap,
    image: Volume | None = None,
    *,
    structure: Structure = None,
    plane: Plane = "axial",
    slices: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """A row for each slice: prediction, truth, image. Labels lie on black, the image has the bone colours.

    Parameters and errors are those of `slice_grid_figure`.
    """
    pair = _Pair.of(predicted, truth, image, structure)
    view, numbers = pair.view, chosen_slices(pair.view, plane, slices, pair.labelled)
    black = Backdrop.of(None, truth.geometry)
    columns = [("prediction", pair.shown_prediction), ("truth", pair.shown_truth)]
    what = f"{name_of(structure)}, {plane}"
    figure, axes = _grid(view, plane, len(numbers), len(columns) + (image is not None), title, what)
    for row, number in enumerate(numbers):
        for column, (name, labels) in enumerate(columns):
            draw_slice(axes[row, column], view, plane, number, black, labels, pair.table)
            axes[row, column].set_title(f"{name}, slice {number}", fontsize=9, color=INK)
        if image is not None:
            draw_slice(axes[row, 2], view, plane, number, pair.backdrop, cmap="bone")
            axes[row, 2].set_title(f"{image.name or 'image'}, slice {number}", fontsize=9, color=INK)
    labels_legend(figure, pair.table)
    return figure


def classes_figure(
    predicted: LabelMap,
    truth: LabelMap,
    image: Volume | None = None,
    *,
    regions: Sequence[Region] = (),
    plane: Plane = "axial",
    title: str = "",
) -> Figure:
    """A column for each class and region: prediction above truth, on the middle slice of what the truth labels.

    A structure with fewer than `FEWEST_VOXELS` voxels is left out, and the figure says so.

    Raises
    ------
    GeometryError
        If the grids differ.
    """
    check_grids(truth.geometry, predicted, image)
    table = common_table(truth, predicted)
    sizes = {
        structure: int(np.count_nonzero(mask_of(truth, structure)) + np.count_nonzero(mask_of(predicted, structure)))
        for structure in (*table, *regions)
    }
    shown = [structure for structure, size in sizes.items() if size >= FEWEST_VOXELS]
    pair = _Pair.of(predicted, truth, image, None)
    number = pair.view.middle(pair.theirs if pair.theirs.any() else pair.labelled, plane)
    figure, axes = _grid(pair.view, plane, 2, max(1, len(shown)), title, f"{plane} slice {number}")
    for column, structure in enumerate(shown):
        one = table_of(structure)
        for row, label_map in enumerate((predicted, truth)):
            mask = mask_of(label_map, structure).astype(np.uint8)
            draw_slice(axes[row, column], pair.view, plane, number, pair.backdrop, mask, one)
        axes[0, column].set_title(structure.name, fontsize=10, color=INK)
    for axis in axes[:, len(shown) :].ravel().tolist():
        bare(axis)
    row_label(axes[0, 0], "prediction")
    row_label(axes[1, 0], "truth")
    if left_out := [f"{x.name} ({size} voxels)" for x, size in sizes.items() if size < FEWEST_VOXELS]:
        figure.supxlabel(f"Left out, almost empty: {', '.join(left_out)}", fontsize=9, color=INK)
    return figure


@dataclass(frozen=True, eq=False)
class _Pair:
    """Prediction and truth of one structure, ready to be drawn."""

    view: View
    backdrop: Backdrop
    table: LabelTable
    ours: NDArray[np.bool_]
    theirs: NDArray[np.bool_]
    shown_prediction: NDArray[Any]
    shown_truth: NDArray[Any]

    @classmethod
    def of(cls, predicted: LabelMap, truth: LabelMap, image: Volume | None, structure: Structure) -> _Pair:
        check_grids(truth.geometry, predicted, image)
        ours, theirs = mask_of(predicted, structure), mask_of(truth, structure)
        backdrop = Backdrop.of(image, truth.geometry)
        view = View.of(truth.geometry, backdrop.seen | ours | theirs)
        if structure is None:
            return cls(view, backdrop, common_table(truth, predicted), ours, theirs, predicted.data, truth.data)
        return cls(view, backdrop, table_of(structure), ours, theirs, ours.astype(np.uint8), theirs.astype(np.uint8))

    @property
    def labelled(self) -> NDArray[np.bool_]:
        return self.ours | self.theirs


def _grid(
    view: View, plane: Plane, rows: int, columns: int, title: str, what: str
) -> tuple[Figure, NDArray[np.object_]]:
    """Return a figure of rows and columns of slices of one plane in true proportions, and its axes (rows, columns)."""
    width_mm, height_mm = view.size_mm(plane)
    width = min(max(_ONE * columns, 5.0), _WIDEST)
    # Pictures that are much higher than wide would make a figure that fits no screen.
    height = min(width / columns * height_mm / width_mm * rows, 1.6 * _WIDEST) + _MARGIN
    figure = new_figure(width, height)
    axes: NDArray[np.object_] = figure.subplots(rows, columns, squeeze=False)
    figure.suptitle(" · ".join(part for part in (title, what) if part), fontsize=11, color=INK)
    return figure, axes
