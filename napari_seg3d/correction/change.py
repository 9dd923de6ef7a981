"""What an edit does to a label map: the voxels that change, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CorrectionError

#: The smallest box around something, as three slices along X, Y, Z with a start and a stop.
Box = tuple[slice, slice, slice]
#: Places of voxels: ``array[indices]`` picks them.
Indices = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True, eq=False)
class Change:
    """New labels for some voxels: one edit, one step to undo.

    Parameters
    ----------
    indices : tuple of three (voxels,) intp ndarrays
        Where, along X, Y, Z; each voxel at most once, and only voxels whose label becomes another.
    values : (voxels,) integer ndarray
        The new labels, in the label map's type.
    what : str
        What was done, for a list of edits: "Fill holes".

    Raises
    ------
    CorrectionError
        If there are not as many places along each axis as values.

    Examples
    --------
    >>> labels = np.zeros((2, 3, 4), np.uint8)
    >>> change = Change((np.array([1]), np.array([2]), np.array([0])), np.array([5], np.uint8), "Paint")
    >>> len(change), int(change.applied_to(labels)[1, 2, 0]), int(labels.sum())
    (1, 5, 0)
    """

    indices: Indices = field(repr=False)
    values: NDArray[Any] = field(repr=False)
    what: str

    def __post_init__(self) -> None:
        sizes = [len(places) for places in (*self.indices, self.values)]
        if len(sizes) != 4 or len(set(sizes)) > 1:
            raise CorrectionError(f"Expected as many places along X, Y, Z as values, got {sizes}.")
        x, y, z = (np.asarray(places, np.intp) for places in self.indices)
        object.__setattr__(self, "indices", (x, y, z))

    @classmethod
    def nothing(cls, what: str, dtype: Any = np.uint8) -> Change:
        """Return a change of no voxel."""
        none = np.zeros(0, np.intp)
        return cls((none, none, none), np.zeros(0, dtype), what)

    def __len__(self) -> int:
        """Number of voxels that change."""
        return len(self.values)

    @property
    def box(self) -> Box | None:
        """The smallest box that holds every change; None if nothing changes."""
        if not len(self):
            return None
        x, y, z = (slice(int(places.min()), int(places.max()) + 1) for places in self.indices)
        return x, y, z

    def applied_to(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return a copy of `labels` (X, Y, Z) with the change made."""
        changed = labels.copy(order="K")
        changed[self.indices] = self.values
        return changed


def joined(changes: Iterable[Change], what: str, dtype: Any = np.uint8) -> Change:
    """Return changes of different voxels as one, so that they are one step to undo."""
    parts = [change for change in changes if len(change)]
    if not parts:
        return Change.nothing(what, dtype)
    x, y, z = (np.concatenate([part.indices[axis] for part in parts]) for axis in range(3))
    return Change((x, y, z), np.concatenate([part.values for part in parts]), what)
