"""What the mouse does on a labels layer while one of our tools is chosen: strokes, outlines, clicks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Layer
from numpy.typing import NDArray

from ..correction.change import Change
from ..errors import Seg3dError
from .layers import origin_of
from .tool_runs import voxel_in_file

if TYPE_CHECKING:
    from napari import Viewer

    from .edits import LayerEdits

#: As napari's own: called with layer and event when a button goes down, goes on with every move until it is let go.
Drag = Callable[[Any, Any], Iterator[None]]
#: A place along (X, Y, Z) of the case's own array, in voxels.
Place = tuple[float, float, float]
#: Points of an outline nearer than this many voxels to the one before are left out.
_STEP = 1.0


class Pointer:
    """Hands the mouse on a layer to one tool at a time, as a mode of the layer does, and gives it back.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._layer: Layer | None = None
        self._drag: Drag | None = None
        self._ended: Callable[[], object] | None = None
        self._held = False
        viewer.layers.selection.events.active.connect(self._look)

    @property
    def layer(self) -> Layer | None:
        """The layer on which a tool waits for the mouse."""
        return self._layer

    def arm(self, layer: Layer, drag: Drag, ended: Callable[[], object], *, diameter_mm: float = 0.0) -> None:
        """Hand the mouse on a layer to a tool; `ended` is called when it is given back.

        `diameter_mm` is that of the circle around the mouse; a cross if it is 0.
        """
        self.disarm()
        self._viewer.layers.selection.active = layer
        layer.mode = "pan_zoom"
        self._layer, self._drag, self._ended = layer, drag, ended
        layer.mouse_drag_callbacks.append(drag)
        layer.mouse_pan = False
        self.set_diameter(diameter_mm)
        layer.events.mode.connect(self._mode_chosen)

    def set_diameter(self, diameter_mm: float) -> None:
        """Change the circle around the mouse."""
        if self._layer is not None:
            self._layer.cursor = "circle" if diameter_mm else "cross"
            if diameter_mm:
                self._layer.cursor_size = diameter_mm

    def disarm(self) -> None:
        """Give the mouse back."""
        self._end(restore=True)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Stay armed although layers come and go; the same layer is active afterwards."""
        active = self._viewer.layers.selection.active
        self._held = True
        try:
            yield
            self._viewer.layers.selection.active = active if active in self._viewer.layers else None
        finally:
            self._held = False

    def _look(self) -> None:
        if not self._held and self._layer is not None and self._viewer.layers.selection.active is not self._layer:
            self.disarm()

    def _mode_chosen(self) -> None:
        # The user chose one of napari's own tools.
        self._end(restore=False)

    def _end(self, *, restore: bool) -> None:
        layer, drag, ended = self._layer, self._drag, self._ended
        self._layer = self._drag = self._ended = None
        if layer is None:
            return
        layer.events.mode.disconnect(self._mode_chosen)
        if drag in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.remove(drag)
        if isinstance(layer, Labels):
            show_outline(layer, [])
        if restore:
            layer.cursor = "standard"
            layer.mouse_pan = True
        if ended is not None:
            ended()


def painting(
    edits: LayerEdits,
    what: str,
    paint: Callable[[Sequence[Place], bool], Change],
    refuse: Callable[[str], object],
) -> Drag:
    """Return a brush: every stroke is one step to undo.

    Parameters
    ----------
    edits : LayerEdits
    what : str
        What a stroke is called.
    paint : callable
        Gives the change for a part of a stroke and whether it erases (Shift is held).
    refuse : callable
        Told why nothing can be painted.
    """

    def drag(layer: Labels, event: Any) -> Iterator[None]:
        if not _is_meant(event):
            return
        erase = "Shift" in event.modifiers
        last = place_of(layer, event)
        with edits.as_one(f"{what}, erased" if erase else what) as put:
            part = [last]
            while True:
                try:
                    put(paint(part, erase))
                except Seg3dError as error:
                    refuse(str(error))
                    return
                yield
                if event.type != "mouse_move":
                    return
                here = place_of(layer, event)
                part, last = [last, here], here

    return drag


def clicking(take: Callable[[Place], object]) -> Drag:
    """Return a tool that takes the voxel of a click; dragging is none."""

    def drag(layer: Labels, event: Any) -> Iterator[None]:
        if not _is_meant(event):
            return
        place, dragged = place_of(layer, event), False
        yield
        while event.type == "mouse_move":
            dragged = dragged or float(np.abs(np.subtract(place, place_of(layer, event))).max()) > 1
            yield
        if not dragged:
            take(place)

    return drag


def drawing(take: Callable[[list[Place]], object], *, straight: bool = False) -> Drag:
    """Return a tool that draws an outline, or a straight line, and takes its points when the button is let go."""

    def drag(layer: Labels, event: Any) -> Iterator[None]:
        if not _is_meant(event):
            return
        drawn = [_on_layer(layer, event)]
        yield
        while event.type == "mouse_move":
            here = _on_layer(layer, event)
            if straight:
                drawn = [drawn[0], here]
            elif np.abs(here - drawn[-1]).max() >= _STEP:
                drawn.append(here)
            show_outline(layer, drawn)
            yield
        show_outline(layer, [])
        geometry = origin_of(layer, Labels).geometry
        take([voxel_in_file(point.tolist(), geometry) for point in drawn])

    return drag


def show_outline(layer: Labels, points: Sequence[NDArray[np.float64]]) -> None:
    """Show points (3,) of a layer as an outline, or none, with what napari's polygon tool draws."""
    overlay = getattr(layer, "_overlays", {}).get("polygon")
    # It is no part of napari's promises: without it the tools work on.
    if overlay is not None and (len(points) or len(overlay.points)):
        overlay.visible = True
        overlay.points = [tuple(point.tolist()) for point in points]


def through_voxels(points: Sequence[Place], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Voxels (voxels, 3) of an array of `shape` that a line through points goes through."""
    places = [np.asarray(points[0], np.float64)[None]]
    for start, end in pairwise(points):
        count = int(np.ceil(np.abs(np.subtract(end, start)).max())) + 1
        places.append(np.linspace(start, end, count))
    voxels = np.unique(np.floor(np.concatenate(places) + 0.5).astype(np.intp), axis=0)
    inside: NDArray[np.intp] = voxels[np.all((voxels >= 0) & (voxels < shape), axis=1)]
    return inside


def place_of(layer: Labels, event: Any) -> Place:
    """Where the mouse is, in the case's own voxels."""
    return voxel_in_file(_on_layer(layer, event).tolist(), origin_of(layer, Labels).geometry)


def _on_layer(layer: Labels, event: Any) -> NDArray[np.float64]:
    return np.asarray(layer.world_to_data(event.position), np.float64)


def _is_meant(event: Any) -> bool:
    """Whether it is the left button, on a slice."""
    return event.button == 1 and len(event.dims_displayed) == 2
