"""A corrector who needs no sleep: how much work a label map is until it is good enough, measured without a person.

It works slice by slice as people do, the worst slice first, makes each slice equal to the truth, and stops when the
map as a whole is good enough. What it leaves is what a person in a hurry would leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cases.checked import VoxelBox
from ..errors import CorrectionError, GeometryError


@dataclass(frozen=True, eq=False)
class Simulated:
    """What the simulated corrector did to a label map.

    Parameters
    ----------
    data : (X, Y, Z) integer ndarray
        The corrected labels.
    axis : int
        Across which the slices lie.
    slices : tuple of int
        Those that were corrected, the worst first.
    right : tuple of int
        Those that are as the truth has them: corrected, or right as they were. What a person would mark as checked.
    voxels : int
        How many voxels got another label.
    dice_before, dice : float
        Mean Dice of the labels against the truth, before and after.
    """

    data: NDArray[Any]
    axis: int
    slices: tuple[int, ...]
    right: tuple[int, ...]
    voxels: int
    dice_before: float
    dice: float

    @property
    def boxes(self) -> tuple[VoxelBox, ...]:
        """The slices that are right now as boxes of voxels, for `cases.checked.write_checked`."""
        boxes: list[VoxelBox] = []
        for number in self.right:
            x, y, z = ((number, number + 1) if a == self.axis else (0, size) for a, size in enumerate(self.data.shape))
            boxes.append((x, y, z))
        return tuple(boxes)


def correct_until(
    predicted: NDArray[Any], truth: NDArray[Any], values: Sequence[int], *, goal: float = 0.9, axis: int = 2
) -> Simulated:
    """Correct a label map until its mean Dice reaches a goal.

    Parameters
    ----------
    predicted, truth : (X, Y, Z) integer ndarray
        Label values on one grid; 0 is background.
    values : sequence of int
        The labels whose Dice count. A label that is in neither has Dice 1.
    goal : float
        From 0 to 1; with 1 every slice that differs is corrected.
    axis : int
        Across which the slices lie.

    Raises
    ------
    GeometryError
        If the shapes differ.
    CorrectionError
        If there is no label, or the goal is no Dice.

    Examples
    --------
    >>> truth = np.zeros((4, 4, 3), np.uint8)
    >>> truth[1:3, 1:3] = 1
    >>> done = correct_until(np.zeros_like(truth), truth, (1,), goal=0.8)
    >>> done.slices, done.voxels, round(done.dice, 2)
    ((0, 1), 8, 0.8)
    """
    if predicted.shape != truth.shape:
        raise GeometryError(f"Expected a map of the truth's shape {truth.shape}, got {predicted.shape}.")
    if not values or not 0 <= goal <= 1:
        raise CorrectionError(f"Expected at least one label and a goal from 0 to 1, got {list(values)} and {goal}.")
    across = tuple(a for a in range(3) if a != axis)
    wrong = (predicted != truth).sum(axis=across)
    order = np.argsort(-wrong, kind="stable")[: np.count_nonzero(wrong)]
    # Dice after none, one, two … of the slices in this order: what a corrected slice adds is known beforehand.
    reached = np.ones((len(values), len(order) + 1))
    for row, value in enumerate(values):
        ours, theirs = predicted == value, truth == value
        shared, own, true = (part.sum(axis=across) for part in (ours & theirs, ours, theirs))
        common = shared.sum() + np.concatenate([[0], np.cumsum((true - shared)[order])])
        sizes = own.sum() + true.sum() + np.concatenate([[0], np.cumsum((true - own)[order])])
        reached[row] = np.divide(2 * common, sizes, out=np.ones(len(common)), where=sizes > 0)
    dice = reached.mean(axis=0)
    enough = np.flatnonzero(dice >= goal - 1e-12)
    # With every slice corrected the labels in question are those of the truth: Dice 1.
    count = int(enough[0]) if len(enough) else len(order)
    slices = order[:count]
    data = np.array(predicted, order="K")
    place: list[Any] = [slice(None)] * 3
    place[axis] = slices
    data[tuple(place)] = truth[tuple(place)]
    wrong_before = int(wrong[slices].sum())
    wrong[slices] = 0
    return Simulated(
        data,
        axis,
        tuple(int(number) for number in slices),
        tuple(int(number) for number in np.flatnonzero(wrong == 0)),
        wrong_before,
        float(dice[0]),
        float(dice[count]),
    )
