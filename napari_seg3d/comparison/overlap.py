"""How much two label maps share: Dice, IoU and voxel counts, all from one joint histogram.

Empty structures: where truth and prediction are both empty, Dice and IoU are 1; where only one of them is empty, they
are 0. So a false alarm on a class that is absent costs what it should, and no case drops out of a mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cases.labels import Region
from ..errors import GeometryError
from ..volumes.volume import Label


@dataclass(frozen=True)
class Overlap:
    """Voxel counts of one class, or of one region of several classes, in a prediction and its truth."""

    name: str
    values: tuple[int, ...]
    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def predicted_voxels(self) -> int:
        """Voxels that the prediction gives to the class."""
        return self.true_positives + self.false_positives

    @property
    def truth_voxels(self) -> int:
        """Voxels that the truth gives to the class."""
        return self.true_positives + self.false_negatives

    @property
    def dice(self) -> float:
        """Dice coefficient 2·TP / (2·TP + FP + FN); 1 when both are empty, 0 when one is."""
        return dice(self.true_positives, self.false_positives, self.false_negatives)

    @property
    def iou(self) -> float:
        """Intersection over union TP / (TP + FP + FN); 1 when both are empty, 0 when one is."""
        union = self.true_positives + self.false_positives + self.false_negatives
        return self.true_positives / union if union else 1.0


def dice(true_positives: int, false_positives: int, false_negatives: int) -> float:
    """Dice coefficient from voxel counts; 1 when there is nothing in truth and prediction.

    Examples
    --------
    >>> dice(6, 2, 2), dice(0, 0, 0), dice(0, 3, 0)
    (0.75, 1.0, 0.0)
    """
    sizes = 2 * true_positives + false_positives + false_negatives
    return 2 * true_positives / sizes if sizes else 1.0


def kappa(counts: NDArray[Any]) -> float:
    """Cohen's kappa of two raters, background being a class (Cohen 1960, doi:10.1177/001316446002000104).

    Parameters
    ----------
    counts : (labels, labels) integer ndarray
        Voxels by the label of the first and of the second rater.

    Returns
    -------
    float
        1 where both used one and the same label throughout: nothing could have been left to chance.

    Examples
    --------
    >>> round(kappa(np.array([[20, 5], [10, 15]])), 2)
    0.4
    """
    total = int(counts.sum())
    if not total:
        return 1.0
    agreed = float(np.trace(counts)) / total
    by_chance = float(counts.sum(axis=0) / total @ (counts.sum(axis=1) / total))
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else 1.0


def overlap(
    predicted: NDArray[Any], truth: NDArray[Any], classes: Iterable[int | Label | Region]
) -> tuple[Overlap, ...]:
    """Voxel counts of every class: one `Overlap` each, in the order given.

    Parameters
    ----------
    predicted, truth : (X, Y, Z) integer ndarray
        Label values on one grid; 0 is background.
    classes : iterable of int, Label or Region
        What to score. A region unites all its values.

    Raises
    ------
    GeometryError
        If the shapes differ.

    Examples
    --------
    >>> truth = np.array([[[1, 1, 2, 0]]])
    >>> predicted = np.array([[[1, 2, 2, 0]]])
    >>> [round(score.dice, 2) for score in overlap(predicted, truth, (1, 2))]
    [0.67, 0.67]
    """
    values, counts = joint_histogram(predicted, truth)
    return tuple(_overlap_of(*_name_and_values(c), values, counts) for c in classes)


def joint_histogram(predicted: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often each pair of values meets.

    Returns
    -------
    values : (N,) int64 ndarray
        All values that occur in either array and 0, ascending.
    counts : (N, N) int64 ndarray
        Voxels by predicted value (rows) and true value (columns).
    """
    if predicted.shape != truth.shape:
        raise GeometryError(f"Expected a prediction of the truth's shape {truth.shape}, got {predicted.shape}.")
    # Background in both is most of a study: it is counted by subtraction, so that only the structures are sorted.
    inside = (predicted != 0) | (truth != 0)
    ours, theirs = predicted[inside].astype(np.int64), truth[inside].astype(np.int64)
    values = np.unique(np.concatenate([[0], np.unique(ours), np.unique(theirs)])).astype(np.int64)
    pairs = np.searchsorted(values, ours) * len(values) + np.searchsorted(values, theirs)
    counts = np.bincount(pairs, minlength=len(values) ** 2).reshape(len(values), len(values))
    background = int(np.searchsorted(values, 0))
    counts[background, background] += truth.size - len(ours)
    return values, counts


def _name_and_values(of: int | Label | Region) -> tuple[str, tuple[int, ...]]:
    if isinstance(of, Region):
        return of.name, tuple(of.values)
    if isinstance(of, Label):
        return of.name, (of.value,)
    return f"label {of}", (int(of),)


def _overlap_of(name: str, members: tuple[int, ...], values: NDArray[np.int64], counts: NDArray[np.int64]) -> Overlap:
    member = np.isin(values, members)
    both = int(counts[np.ix_(member, member)].sum())
    return Overlap(
        name,
        members,
        true_positives=both,
        false_positives=int(counts[member].sum()) - both,
        false_negatives=int(counts[:, member].sum()) - both,
    )
