"""Which class is taken for which, over all voxels of one or many cases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DatasetError
from ..volumes.volume import LabelMap
from .canvas import INK, new_figure
from .overlap import joint_histogram
from .slices import check_grids, common_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Confusion:
    """Voxels by true class (rows) and predicted class (columns).

    Parameters
    ----------
    names : mapping of int to str
        Value -> name, background (0) first.
    counts : (N, N) int64 ndarray
        In the order of `names`.
    cases : int
        How many cases were counted.
    """

    names: dict[int, str]
    counts: NDArray[np.int64]
    cases: int = 1

    @property
    def accuracy(self) -> float:
        """Part of all voxels that have the right class; worth little without `background_accuracy` beside it."""
        return float(np.trace(self.counts) / self.counts.sum())

    @property
    def background_accuracy(self) -> float:
        """The accuracy that calling every voxel background would have."""
        return float(self.counts[0].sum() / self.counts.sum())

    @property
    def shares(self) -> NDArray[np.float64]:
        """Counts as part of each true class: rows sum to 1, or are NaN for a class that does not occur."""
        sums = self.counts.sum(axis=1, keepdims=True)
        return np.where(sums > 0, self.counts / np.maximum(sums, 1), np.nan)


def confusion(predicted: LabelMap, truth: LabelMap) -> Confusion:
    """Count the voxels of one case.

    Raises
    ------
    GeometryError
        If the two do not lie on one grid.
    """
    check_grids(truth.geometry, predicted)
    values, counts = joint_histogram(predicted.data, truth.data)
    table = common_table(truth, predicted)
    names = {0: "background", **{label.value: label.name for label in table}}
    whole = np.zeros((len(names), len(names)), np.int64)
    places = [list(names).index(value) for value in values.tolist()]
    whole[np.ix_(places, places)] = counts.T
    return Confusion(names, whole)


def total_confusion(parts: Iterable[Confusion]) -> Confusion:
    """Add up the counts of many cases; classes that only some of them know are kept.

    Raises
    ------
    DatasetError
        If there is no case.
    """
    parts = list(parts)
    if not parts:
        raise DatasetError("There is no case to count. Give predictions and truths of the same cases.")
    names = dict(sorted({value: name for part in reversed(parts) for value, name in part.names.items()}.items()))
    order = list(names)
    counts = np.zeros((len(names), len(names)), np.int64)
    for part in parts:
        places = [order.index(value) for value in part.names]
        counts[np.ix_(places, places)] += part.counts
    return Confusion(names, counts, sum(part.cases for part in parts))


def confusion_figure(of: Confusion, title: str = "") -> Figure:
    """The matrix twice: as parts of each true class, coloured, and as voxels.

    The accuracy stands in the title beside that of calling everything background, which is often as high.
    """
    count = len(of.names)
    side = max(2.4, 0.75 * count + 1.2)
    figure = new_figure(2 * side + 1.6, side + 1.1)
    left, right = figure.subplots(1, 2)
    shares = of.shares
    drawn = left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    right.imshow(np.full((count, count, 3), 0.96))
    left.set_title("part of the true class", fontsize=10, color=INK)
    right.set_title("voxels", fontsize=10, color=INK)
    for row in range(count):
        for column in range(count):
            share = shares[row, column]
            text = "–" if np.isnan(share) else f"{share:.3f}" if 0 < share < 1 else f"{share:.0f}"
            colour = "white" if share > 0.5 else INK
            left.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
            right.text(column, row, f"{of.counts[row, column]:,}", ha="center", va="center", fontsize=8, color=INK)
    for axes in (left, right):
        axes.set_xticks(range(count), list(of.names.values()), rotation=30, ha="right", fontsize=9)
        axes.set_yticks(range(count), list(of.names.values()), fontsize=9)
        axes.set_xlabel("predicted")
        axes.set_ylabel("truth")
    figure.colorbar(drawn, ax=left, fraction=0.046)
    cases = f"{of.cases} case{'' if of.cases == 1 else 's'}"
    accuracy = f"voxel accuracy {of.accuracy:.4f}, all background {of.background_accuracy:.4f}"
    figure.suptitle(" · ".join(part for part in (title, cases, accuracy) if part), fontsize=11, color=INK)
    return figure
