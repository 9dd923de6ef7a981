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
from ..correction.masks import Where
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


@dataclass(frozen=True, eq=False)
class Deed:
    """Something that was done and changed no voxel, such as a mark on a place; it has its place among the edits.

    Parameters
    ----------
    what : str
        What was done.
    undo, redo : callable
        Take it back, and do it again; called when it is undone and redone like an edit.
    """

    what: str
    undo: Callable[[], object]
    redo: Callable[[], object]


class _NotedAtom(tuple[Any, ...]):
    """A piece of napari's history that changes no voxel and leads to a deed."""

    deed: Deed


class LayerEdits:
    """The edits of one labels layer that stands on a case's grid.

    Parameters
    ----------
    layer : napari.layers.Labels
    as_it_is : (I, P, L) integer ndarray, optional
        A copy of its labels, in the layer's axes, that never changes. Until the first edit none other is made.
    """

    #: `Edit`: after a stroke, a tool's change, an undo or a redo.
    made = Signal(object)
    #: `done` or `undone` has changed: after an edit, or something that was noted.
    listed = Signal()
    #: The layer got an array of another shape, so that nothing can be compared.
    replaced = Signal()
    #: int: so many voxels of a stroke were put back, because they may not change.
    held_back = Signal(int)

    def __init__(self, layer: Labels, as_it_is: NDArray[Any] | None = None) -> None:
        self.layer = layer
        self._geometry: Geometry = origin_of(layer, Labels).geometry
        self._is_shared = as_it_is is not None
        if as_it_is is None:
            self._before = np.array(self.labels, order="K")
        else:
            self._before = stored(as_it_is, self._geometry)
        #: What was done, in step with napari's history: what can be undone, and what redone, the newest last.
        self.done: list[str] = [STROKE] * len(self._undo)
        self.undone: list[str] = [STROKE] * len(self._redo)
        #: What strokes of napari's own tools may change; tools have a rule of their own.
        self.rule: Callable[[], Where | None] | None = None
        # Steps of napari's history that were seen, and the first piece of each that can be redone.
        self._items: list[Any] = list(self._undo)
        self._redoable: list[Any] = [item[0] for item in self._redo]
        self._doing = STROKE
        self._is_putting_back = False
        # A stroke tells each of its parts by an update, and at its end that it was painted.
        layer.events.paint.connect(self._painted)
        layer.events.data.connect(self._look)
        # After the picture has followed: it would be drawn over what is put back.
        layer.events.labels_update.connect(self._updated, position="last")
        layer.events.set_data.connect(self.look)

    def close(self) -> None:
        """Stop listening; the layer stays as it is."""
        self.layer.events.paint.disconnect(self._painted)
        self.layer.events.data.disconnect(self._look)
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
        self._catch_up()
        self._doing = change.what
        try:
            self._put(change)
            self._catch_up()
        finally:
            self._doing = STROKE
        return True

    def note(self, deed: Deed) -> None:
        """Take down what was done without changing a voxel: undo and redo come to it in its turn."""
        self._catch_up()
        # Without its history, napari knows of no steps at all.
        save = getattr(self.layer, "_save_history", None)
        if save is None:
            return
        nowhere = np.zeros(0, np.intp)
        nothing = np.zeros(0, self.layer.data.dtype)
        atom = _NotedAtom(((nowhere,) * self.layer.ndim, nothing, nothing))
        atom.deed = deed
        self._doing = deed.what
        try:
            save(atom)
            self._catch_up()
        finally:
            self._doing = STROKE

    def is_newest(self, deed: Deed) -> bool:
        """Whether the next undo takes back this one."""
        self._catch_up()
        return bool(self._items) and _deed_of(self._items[-1]) is deed

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
            if not self.layer.visible:
                self.layer.visible = True
            with self.layer.block_history():
                yield self._put
            self._look()
        finally:
            self._doing = STROKE

    def _put(self, change: Change) -> None:
        if len(change):
            # A hidden layer has no picture of the slice that is shown, and napari would write beside it.
            if not self.layer.visible:
                self.layer.visible = True
            self.layer.data_setitem(on_layer(change, self._geometry), change.values)

    def look(self) -> None:
        """Notice an undo or redo, which announces nothing but a redraw as scrolling does, and nothing when hidden."""
        # A stroke that is being drawn also forgets what could be redone; it is noticed as a whole, at its end.
        if (len(self._undo), len(self._redo)) != (len(self._items), len(self._redoable)):
            self._updated()

    @property
    def _undo(self) -> Sequence[Any]:
        return getattr(self.layer, "_undo_history", ())

    @property
    def _redo(self) -> Sequence[Any]:
        return getattr(self.layer, "_redo_history", ())

    def _catch_up(self) -> None:
        """Notice steps that nothing has announced; without them nothing is compared."""
        if self._steps_moved():
            self._look()

    def _updated(self) -> None:
        if not getattr(self.layer, "_block_history", False):
            self._look()

    def _painted(self) -> None:
        # napari announces some changes to its history before it makes them: another call follows.
        self._look(announced=True)

    def _look(self, *_: object, announced: bool = False) -> None:
        if self._is_putting_back:
            return
        labels = self.labels
        if labels.shape != self._before.shape:
            self._before, self._is_shared = np.array(labels, order="K"), False
            self._keep_in_step()
            self.replaced.emit()
            return
        places = _different(labels, self._before)
        if len(places[0]) and self.rule is not None and self._doing == STROKE:
            places = self._keep_to_the_rule(places, self.rule())
        if len(places[0]):
            if self._is_shared:
                self._before, self._is_shared = self._before.copy(order="K"), False
            old, new = self._before[places], labels[places]
            self._before[places] = new
            what = self._keep_in_step()
            self.made.emit(Edit(Change(places, new, what), old))
        elif announced or not self._steps_moved():
            return
        else:
            self._keep_in_step()
        self.listed.emit()

    # Names in step with napari's history

    def _steps_moved(self) -> bool:
        # The newest tells: of a hundred steps that are kept the oldest leaves for a new one.
        undo, newest = self._undo, self._items[-1] if self._items else None
        return len(self._redo) != len(self._redoable) or (undo[-1] if undo else None) is not newest

    def _moved(self) -> tuple[str, list[Any]]:
        """Return whether steps were undone or redone, and which; else those that are new."""
        undo, redo = self._undo, self._redo
        by = len(redo) - len(self._redoable)
        if by > 0:
            return "Undo", list(redo)[-by:]
        # A step that is redone comes back as the same objects in reverse.
        if by < 0 and len(undo) and undo[-1][-1] is self._redoable[by]:
            return "Redo", list(undo)[by:]
        known = {id(item) for item in self._items}
        return "", [item for item in undo if id(item) not in known]

    def _keep_in_step(self) -> str:
        """Keep the names in step with napari's history, take noted deeds back or do them again; say what was done."""
        how, items = self._moved()
        what = self._doing
        if how == "Undo":
            for _ in items:
                self.undone.append(self.done.pop() if self.done else STROKE)
            what = f"Undo: {self.undone[-1]}"
        elif how == "Redo":
            for _ in items:
                self.done.append(self.undone.pop() if self.undone else STROKE)
            what = f"Redo: {self.done[-1]}"
        else:
            names = {id(item): name for item, name in zip(self._items, self.done, strict=False)}
            self.done[:] = [names.get(id(item), self._doing) for item in self._undo]
            del self.undone[: max(0, len(self.undone) - len(self._redo))]
        self._items, self._redoable = list(self._undo), [item[0] for item in self._redo]
        for deed in filter(None, map(_deed_of, items if how else ())):
            (deed.undo if how == "Undo" else deed.redo)()
        return what

    # What may change

    def _keep_to_the_rule(self, places: Indices, where: Where | None) -> Indices:
        """Put back what a stroke may not change, within its own step, and return what it has changed then."""
        how, items = self._moved()
        if where is None or how or not items:
            return places
        old = self._before[places]
        allowed = where.allows(places, old, self.labels[places])
        if allowed.all():
            return places
        x, y, z = (along[~allowed] for along in places)
        layer: Any = self.layer
        blocked, staged = layer._block_history, layer._staged_history
        layer._block_history, layer._staged_history = True, []
        self._is_putting_back = True
        try:
            back = Change((x, y, z), old[~allowed], "Put back")
            layer.data_setitem(on_layer(back, self._geometry), back.values, refresh=False)
            items[-1].extend(layer._staged_history)
            if not allowed.any():
                # A step that changes nothing is none.
                layer._undo_history.pop()
            layer._block_history, layer._staged_history = blocked, staged
            layer.refresh(extent=False, thumbnail=False, highlight=False)
        finally:
            layer._block_history, layer._staged_history = blocked, staged
            self._is_putting_back = False
        self.held_back.emit(len(back))
        x, y, z = (along[allowed] for along in places)
        return x, y, z


def _deed_of(item: Any) -> Deed | None:
    return item[0].deed if item and isinstance(item[0], _NotedAtom) else None


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
