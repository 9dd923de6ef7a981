"""What changes in a labels layer, voxel by voxel, whoever changes it; and changing some voxels as one step to undo.

napari tells that somebody painted, filled or undid, not where. A copy of the labels as they were before tells it:
comparing 240 × 240 × 155 voxels takes some milliseconds, and misses nothing, whatever tool or plugin made the change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from psygnal import Signal

from ..correction.change import Change, Indices
from .layers import SCREEN, origin_of, stored

if TYPE_CHECKING:
    from ..volumes.geometry import Geometry

#: What is said of an edit that none of our tools made.
STROKE = "Painted"


@dataclass(frozen=True, eq=False)
class Edit:
    """Voxels of a layer that have changed just now.

    Parameters
    ----------
    change : Change
        Where along X, Y, Z of the case's own array, and the new labels.
    old : (voxels,) integer ndarray
        The labels before.
    """

    change: Change
    old: NDArray[Any]

    @property
    def what(self) -> str:
        """What was done."""
        return self.change.what


class LayerEdits:
    """The edits of one labels layer that stands on a case's grid.

    Parameters
    ----------
    layer : napari.layers.Labels
    """

    #: `Edit`: after a stroke, a tool's change, an undo or a redo.
    made = Signal(object)

    def __init__(self, layer: Labels) -> None:
        self.layer = layer
        self._geometry: Geometry = origin_of(layer, Labels).geometry
        self._before = np.array(self.labels, order="K")
        self._steps = len(self._undo), len(self._redo)
        #: What was done, in step with napari's history: what can be undone, and what redone, the newest last.
        self.done: list[str] = [STROKE] * len(self._undo)
        self.undone: list[str] = [STROKE] * len(self._redo)
        self._next_redone: object = None
        self._doing = STROKE
        # A stroke tells each of its parts by an update, and at its end that it was painted.
        for event in (layer.events.paint, layer.events.data):
            event.connect(self._look)
        layer.events.labels_update.connect(self._updated)
        layer.events.set_data.connect(self.look)

    def close(self) -> None:
        """Stop listening; the layer stays as it is."""
        for event in (self.layer.events.paint, self.layer.events.data):
            event.disconnect(self._look)
        self.layer.events.labels_update.disconnect(self._updated)
        self.layer.events.set_data.disconnect(self.look)

    @property
    def labels(self) -> NDArray[Any]:
        """The labels (X, Y, Z) as the case's own array has them: a view, for reading."""
        return stored(self.layer.data, self._geometry)

    def make(self, change: Change) -> bool:
        """Change voxels as one step to undo; tell whether any did change."""
        if not len(change):
            return False
        self._look()
        self._doing = change.what
        try:
            self._put(change)
            self._look()
        finally:
            self._doing = STROKE
        return True

    @contextmanager
    def as_one(self, what: str) -> Iterator[Callable[[Change], None]]:
        """Change voxels little by little, as a stroke does: one step to undo, told once at its end.

        Yields
        ------
        callable
            Makes a `Change` at once, on the screen too.
        """
        self._look()
        self._doing = what
        try:
            self.layer.visible = True
            with self.layer.block_history():
                yield self._put
            self._look()
        finally:
            self._doing = STROKE

    def _put(self, change: Change) -> None:
        if len(change):
            # A hidden layer has no picture of the slice that is shown, and napari would write beside it.
            self.layer.visible = True
            self.layer.data_setitem(on_layer(change, self._geometry), change.values)

    def look(self) -> None:
        """Notice an undo or redo, which announces nothing but a redraw as scrolling does, and nothing when hidden."""
        # A stroke that is being drawn also forgets what could be redone; it is noticed as a whole, at its end.
        if (len(self._undo), len(self._redo)) != self._steps:
            self._updated()

    @property
    def _undo(self) -> Sequence[Any]:
        return getattr(self.layer, "_undo_history", ())

    @property
    def _redo(self) -> Sequence[Any]:
        return getattr(self.layer, "_redo_history", ())

    def _updated(self) -> None:
        if not getattr(self.layer, "_block_history", False):
            self._look()

    def _look(self) -> None:
        labels = self.labels
        if labels.shape != self._before.shape:
            self._before = np.array(labels, order="K")
            return
        places = _different(labels, self._before)
        if not len(places[0]):
            # napari announces a change to its history before it makes it: another call follows.
            return
        old, new = self._before[places], labels[places]
        self._before[places] = new
        self.made.emit(Edit(Change(places, new, self._what()), old))

    def _what(self) -> str:
        """Return what was done, and keep the names in step with napari's history."""
        undo, redo, (_, redo_before) = len(self._undo), len(self._redo), self._steps
        self._steps = undo, redo
        if redo > redo_before:
            for _ in range(redo - redo_before):
                self.undone.append(self.done.pop() if self.done else STROKE)
            what = f"Undo: {self.undone[-1]}"
        elif self._next_redone is not None and undo and self._undo[-1][-1] is self._next_redone:
            self.done.append(self.undone.pop() if self.undone else STROKE)
            what = f"Redo: {self.done[-1]}"
        else:
            self.undone.clear()
            self.done.append(self._doing)
            what = self._doing
        # napari forgets the oldest steps.
        del self.done[: max(0, len(self.done) - undo)]
        # A step that is redone comes back as the same objects in reverse.
        self._next_redone = self._redo[-1][0] if redo else None
        return what


def _different(one: NDArray[Any], other: NDArray[Any]) -> Indices:
    """Return where two arrays differ: as `numpy.nonzero`, which takes 20 times as long to look at three axes."""
    order: Literal["C", "F"] = "F" if one.flags.f_contiguous and not one.flags.c_contiguous else "C"
    flat = np.flatnonzero(one.ravel(order) != other.ravel(order))
    x, y, z = np.unravel_index(flat, one.shape, order)
    return x, y, z


def on_layer(change: Change, geometry: Geometry) -> tuple[NDArray[np.intp], ...]:
    """Return where a change is in a layer's array (I, P, L)."""
    places: list[NDArray[np.intp]] = [change.indices[0]] * 3
    for index, size, (axis, flip) in zip(change.indices, geometry.shape, geometry.orientation_to(SCREEN), strict=True):
        places[int(axis)] = index if flip > 0 else size - 1 - index
    return tuple(places)
