"""Figures of a whole case: all modalities beside the labels, and prediction and truth without their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..cases.labels import Region
from ..volumes.volume import LabelMap, LabelTable, Volume
from .canvas import INK, new_figure
from .slice_figures import mask_of, table_of
from .slices import PLANES, Backdrop, Plane, View, check_grids, common_table, draw_slice, labels_legend, row_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDEST, _ONE, _MARGIN = 16.0, 2.4, 0.9


def panels_figure(
    images: Mapping[str, Volume],
    labels: LabelMap | None = None,
    *,
    regions: Sequence[Region] = (),
    planes: Sequence[Plane] = PLANES,
    slices: Mapping[Plane, int] | None = None,
    title: str = "",
) -> Figure:
    """All modalities and the labels side by side, a row for each plane.

    Parameters
    ----------
    images : mapping of str to Volume
        Name -> modality, at least one, on one grid.
    labels : LabelMap, optional
        Shown on the first modality.
    regions : sequence of Region
        Each gets a panel of its own: what a network is taught that learns overlapping regions.
    planes : sequence of {"axial", "coronal", "sagittal"}
    slices : mapping of plane to int, optional
        Numbers in the file's order, from 0; by default the slice with most of the labels, else the middle one.
    title : str

    Raises
    ------
    GeometryError
        If the grids differ, or there is no such slice.
    """
    geometry = next(iter(images.values())).geometry
    check_grids(geometry, *images.values(), labels)
    backdrops = {name: Backdrop.of(volume, geometry) for name, volume in images.items()}
    inside = np.zeros(geometry.shape, bool) if labels is None else mask_of(labels, None)
    view = View.of(geometry, np.logical_or.reduce([inside, *(backdrop.seen for backdrop in backdrops.values())]))
    columns: list[_Column] = [(name, backdrop, None, None) for name, backdrop in backdrops.items()]
    table = LabelTable()
    if labels is not None:
        table, beneath = common_table(labels), next(iter(backdrops.values()))
        columns.append(("labels", beneath, labels.data, table))
        for region in regions:
            columns.append((region.name, beneath, mask_of(labels, region).astype(np.uint8), table_of(region)))
    numbers = {plane: view.slice_with_most(inside, plane) for plane in planes} | dict(slices or {})
    figure = _draw(view, planes, numbers, columns, title)
    labels_legend(figure, table)
    return figure


def blind_figure(
    predicted: LabelMap,
    truth: LabelMap,
    image: Volume | None = None,
    *,
    case: str = "",
    seed: int = 0,
    revealed: bool = False,
) -> Figure:
    """Prediction and truth side by side as A and B, in three planes: which one is the truth?

    The slices lie in the middle of what both label, so that they tell nothing. `truth_is_first` tells the answer.

    Parameters
    ----------
    predicted, truth : LabelMap
        On one grid.
    image : Volume, optional
        Shown beneath both.
    case : str
        Name of the case; the order is drawn for each case anew.
    seed : int
        From which the order follows, together with the case.
    revealed : bool
        Whether the names stand above.

    Raises
    ------
    GeometryError
        If the grids differ.
    """
    check_grids(truth.geometry, predicted, image)
    backdrop = Backdrop.of(image, truth.geometry)
    inside = mask_of(truth, None) | mask_of(predicted, None)
    view = View.of(truth.geometry, backdrop.seen | inside)
    table = common_table(truth, predicted)
    maps = [("truth", truth), ("prediction", predicted)]
    if not truth_is_first(case, seed):
        maps.reverse()
    columns: list[_Column] = [
        (f"{letter}: {name}" if revealed else letter, backdrop, label_map.data, table)
        for letter, (name, label_map) in zip("AB", maps, strict=True)
    ]
    numbers = {plane: view.middle(inside, plane) for plane in PLANES}
    question = "" if revealed else "Which one is the truth?"
    figure = _draw(view, PLANES, numbers, columns, " · ".join(part for part in (case, question) if part), one=3.0)
    labels_legend(figure, table)
    return figure


def truth_is_first(case: str, seed: int) -> bool:
    """Whether A is the truth in `blind_figure` with this case and seed."""
    return bool(np.random.default_rng((seed, crc32(case.encode()))).integers(2))


#: Title, image, labels and their table.
_Column = tuple[str, Backdrop, NDArray[Any] | None, LabelTable | None]


def _draw(
    view: View,
    planes: Sequence[Plane],
    numbers: Mapping[Plane, int],
    columns: Sequence[_Column],
    title: str,
    one: float = _ONE,
) -> Figure:
    """Draw a row for each plane; `one` is the width of a picture in inches."""
    sizes = [view.size_mm(plane) for plane in planes]
    heights = [height for _, height in sizes]
    width = min(max(one * len(columns), 5.0), _WIDEST)
    inch_per_mm = width / len(columns) / max(across for across, _ in sizes)
    figure = new_figure(width, inch_per_mm * sum(heights) + _MARGIN)
    axes = figure.subplots(len(planes), len(columns), gridspec_kw={"height_ratios": heights}, squeeze=False)
    for row, plane in enumerate(planes):
        for column, (name, backdrop, labels, table) in enumerate(columns):
            draw_slice(axes[row, column], view, plane, numbers[plane], backdrop, labels, table)
            if row == 0:
                axes[row, column].set_title(name, fontsize=10, color=INK)
        row_label(axes[row, 0], f"{plane} · slice {numbers[plane]}")
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure
