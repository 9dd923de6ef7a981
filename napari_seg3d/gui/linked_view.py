"""One further view of the main viewer's layers: a viewer of napari's own, its crosshair, and what is drawn in it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.components.overlays import TextOverlay
from napari.layers import Labels, Layer
from napari.qt import QtViewer
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget
from vispy.scene.visuals import Line

from .case_view import CAMERA, bring_into_view, show_letters
from .layers import PLANES
from .linked_layers import Twin

#: Colour of the crosshair; half the length of the cursor's cross in pixels; more mm than any line needs.
CROSS_COLOUR, ARM_PIXELS, FAR_MM = (1.0, 0.84, 0.25, 0.75), 9.0, 1e4
#: Seconds within which the camera follows the mouse.
TOUCH_S = 0.5
#: Pixels by which the mouse may move in a click.
CLICK_PIXELS = 3


class Cross:
    """Thin lines through a point of a canvas.

    Parameters
    ----------
    canvas : QtViewer
    """

    def __init__(self, canvas: QtViewer) -> None:
        self._line = Line(
            pos=np.zeros((4, 2), np.float32), connect="segments", color=CROSS_COLOUR, parent=canvas.canvas.view.scene
        )
        self._line.order = 1_000_000
        self._line.set_gl_state("translucent", depth_test=False)
        self._line.visible = False

    def show(self, down: float, right: float, arm_mm: float = FAR_MM) -> None:
        """Show it at a point of the world, along the axes that run down and to the right."""
        ends = [(right - arm_mm, down), (right + arm_mm, down), (right, down - arm_mm), (right, down + arm_mm)]
        self._line.set_data(pos=np.array(ends, np.float32))
        self._line.visible = True

    @property
    def is_shown(self) -> bool:
        """Whether it is to be seen."""
        return bool(self._line.visible)

    def hide(self) -> None:
        """Hide it."""
        if self._line.visible:
            self._line.visible = False

    def remove(self) -> None:
        """Take it out of the canvas."""
        self._line.parent = None


class LinkedView(QWidget):
    """One further view of the main viewer's layers.

    Parameters
    ----------
    images : callable
        Gives the layers of the main viewer of which only `image` is shown.
    has_slider : bool
        Whether it has a slider for its slices.
    """

    #: Voxels (start, stop) along the axes 0 to 2 that were painted here, on which layer of the main viewer.
    painted = Signal(object, object)
    #: A point (3,) of the world that was clicked.
    clicked = Signal(object)
    #: Where the mouse is in the world (3,), and whether the views shall go there; None: it has left.
    hovered = Signal(object, bool)
    #: The slice was moved here: axis and place in mm.
    scrolled = Signal(int, float)
    #: The camera was moved here.
    zoomed = Signal()
    #: A button of the mouse went down (True), or up again.
    pressed = Signal(bool)

    def __init__(
        self, images: Callable[[], Sequence[Layer]], parent: QWidget | None = None, *, has_slider: bool = False
    ) -> None:
        super().__init__(parent)
        #: Key of `layers.PLANES` that it shows; empty: that of the main canvas.
        self.plane = ""
        self._images = images
        #: Name of the one image that it shows; empty: those that the main canvas shows.
        self.image = ""
        self.twins: dict[Layer, Twin] = {}
        self.model = ViewerModel()
        self.model.scene.camera.orientation = CAMERA
        self.canvas = QtViewer(self.model)
        self.canvas.setAcceptDrops(False)
        # Keys go to the main canvas, whose layers they are for.
        for widget in (self.canvas, self.canvas.canvas.native):
            widget.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.canvas.dims.setVisible(has_slider)
        self.cross, self.ghost = Cross(self.canvas), Cross(self.canvas)
        #: Whether the camera was moved by hand; until then the whole slice is shown.
        self.is_moved = False
        self._quiet = 0
        self._camera: tuple[Any, ...] = ()
        self._touched = float("-inf")
        self._title = TextOverlay(position="top_left", font_size=9, box=False, visible=True)
        self.model.canvas.overlays["seg3d_title"] = self._title
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.canvas)
        camera, dims = self.model.scene.camera.events, self.model.dims.events
        self._slots = (
            (dims.point, self._dims_moved), (dims.order, self._turned), (camera.zoom, self._camera_moved),
            (camera.center, self._camera_moved), (self.model.canvas.events.size, self._resized),
            (self.model.cursor.events.position, self._mouse_moved),
            (self.model.events.mouse_over_canvas, self._mouse_left),
        )  # fmt: skip
        for emitter, slot in self._slots:
            emitter.connect(slot)
        self.model.mouse_drag_callbacks.append(self._press)
        for callbacks in (self.model.mouse_wheel_callbacks, self.model.mouse_double_click_callbacks):
            callbacks.append(self.touch)
        self.model.mouse_move_callbacks.append(self._move)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Take what happens meanwhile for no act of the user."""
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    def close_view(self) -> None:
        """Give everything back; the widget can be deleted."""
        for emitter, slot in self._slots:
            emitter.disconnect(slot)
        for callbacks in (
            self.model.mouse_drag_callbacks,
            self.model.mouse_move_callbacks,
            self.model.mouse_wheel_callbacks,
            self.model.mouse_double_click_callbacks,
        ):
            callbacks.clear()
        for twin in self.twins.values():
            twin.close()
        self.twins.clear()
        self.cross.remove()
        self.ghost.remove()
        self.canvas.close()

    # Layers

    def shows(self, layer: Layer) -> bool:
        """Whether a layer of the main viewer is seen here."""
        if self.image and layer in self._images():
            return layer.name == self.image
        return bool(layer.visible)

    def set_layers(self, layers: Sequence[Layer], active: Layer | None, *, may_add: bool) -> int:
        """Have a copy of each of the main viewer's layers that is seen, in their order.

        Parameters
        ----------
        layers : sequence of napari.layers.Layer
            Those that can be linked.
        active : napari.layers.Layer or None
            The one that the mouse is for.
        may_add : bool
            Whether one more copy may be made, which takes some time.

        Returns
        -------
        int
            How many copies are still missing.
        """
        with self.quiet():
            self._remove([layer for layer in self.twins if layer not in layers])
            missing = [layer for layer in layers if layer not in self.twins and self.shows(layer)]
            if missing and may_add:
                self._add(missing.pop(0))
            for twin in self.twins.values():
                twin.show_or_hide()
            for place, layer in enumerate([layer for layer in layers if layer in self.twins]):
                now = self.model.layers.index(self.twins[layer].copy)
                if now != place:
                    self.model.layers.move(now, place)
            # napari makes a layer active that comes.
            self.set_active(active)
        return len(missing)

    def _add(self, layer: Layer) -> None:
        first = not self.twins
        twin = self.twins[layer] = Twin(layer, self.shows)
        if isinstance(layer, Labels):
            twin.copy.events.labels_update.connect(partial(self._was_painted, layer))
        self.model.layers.append(twin.copy)
        if first:
            self.is_moved = False
            show_letters(self.model, font_size=10)

    def _remove(self, layers: Sequence[Layer]) -> None:
        # napari looks for garbage after each layer that leaves, after a batch once.
        if layers:
            make_current(self.canvas)
        with self.model.layers.batched_update() if layers else contextlib.nullcontext():
            for layer in layers:
                twin = self.twins.pop(layer)
                twin.close()
                self.model.layers.remove(twin.copy)

    def set_active(self, layer: Layer | None) -> None:
        """Let the mouse be for the copy of a layer."""
        twin = None if layer is None else self.twins.get(layer)
        self.model.layers.selection.active = None if twin is None else twin.copy

    def _was_painted(self, layer: Labels, event: Any) -> None:
        copy = self.twins[layer].copy
        self.painted.emit(layer, painted_box(copy, event))

    def refresh_labels(self, layer: Layer, box: Mapping[int, tuple[int, int]]) -> None:
        """Draw labels again if what has changed, see `painted_box`, can be seen here."""
        twin = self.twins.get(layer)
        if twin is not None and twin.copy.visible and is_seen(twin.copy, box):
            twin.copy.refresh(extent=False, thumbnail=False, highlight=False)

    # Place and camera

    def follow(self, order: tuple[int, ...], point: Sequence[float]) -> None:
        """Show the slice through a point (3,) of the world; `order` is that of the main canvas's axes."""
        dims = self.model.dims
        if dims.ndim != 3:
            return
        with self.quiet():
            wanted = PLANES[self.plane] if self.plane else order
            turned = dims.order != wanted
            if turned:
                dims.order = wanted
            axis = dims.order[0]
            # What Ctrl+wheel moves.
            dims.last_used = axis
            if abs(dims.point[axis] - point[axis]) > 1e-6:
                dims.set_point(axis, point[axis])
            self._title.text = self._words()
        if turned:
            self.fit()

    def _words(self) -> str:
        step = self.model.dims.current_step[self.model.dims.order[0]]
        return f"{self.plane} {step}" if self.plane else self.image

    def _turned(self) -> None:
        show_letters(self.model, font_size=10)

    def show_cross(self, point: Sequence[float] | None) -> None:
        """Show the crosshair at a point (3,) of the world, or none."""
        if point is None or self.model.dims.ndim != 3:
            self.cross.hide()
        else:
            down, right = self.model.dims.displayed
            self.cross.show(point[down], point[right])

    def show_ghost(self, point: Sequence[float] | None) -> None:
        """Show where the mouse is in another view."""
        if point is None or self.model.dims.ndim != 3:
            self.ghost.hide()
        else:
            down, right = self.model.dims.displayed
            self.ghost.show(point[down], point[right], ARM_PIXELS / self.model.scene.camera.zoom)

    def fit(self) -> None:
        """Show the whole slice."""
        with self.quiet():
            self.is_moved = False
            self.model.reset_view()
            self._camera = self._camera_now()

    def follow_camera(self, main: ViewerModel) -> None:
        """Show the same place as another canvas, as large as either is: whole where that shows the whole slice."""
        with self.quiet():
            own = self.model.scene.camera
            own.center = main.scene.camera.center
            own.zoom = main.scene.camera.zoom * self.scale_to(main)
            self._camera = self._camera_now()

    def scale_to(self, main: ViewerModel) -> float:
        """How much larger the whole slice can be here than on another canvas."""
        extent = self.model.layers.extent
        slice_mm = (extent.world[1] - extent.world[0] + extent.step)[list(self.model.dims.displayed)]
        here, there = (float(np.min(np.divide(one.canvas.size, slice_mm))) for one in (self.model, main))
        return here / there

    def keep_in_view(self, point: Sequence[float]) -> None:
        """Move the camera if a point (3,) of the world is not inside the canvas."""
        with self.quiet():
            bring_into_view(self.model, point, 0.5)

    def _camera_now(self) -> tuple[Any, ...]:
        camera = self.model.scene.camera
        return (*camera.center[-2:], camera.zoom)

    def _camera_moved(self) -> None:
        now = self._camera_now()
        # A canvas that gets another size moves its camera, too, and drawing sends back what was set, in fewer digits.
        by_hand = not self._quiet and time.monotonic() - self._touched < TOUCH_S
        if by_hand and not (self._camera and np.allclose(now, self._camera, rtol=1e-3, atol=1e-2)):
            self.is_moved = True
            self._camera = now
            self.zoomed.emit()

    def _resized(self) -> None:
        if not self.is_moved and self.plane:
            self.fit()
        elif not self.plane:
            self.zoomed.emit()

    # The mouse

    def touch(self, *_: object) -> None:
        """Take what the camera does in the next moment for the user's doing."""
        self._touched = time.monotonic()

    def _dims_moved(self) -> None:
        axis = self.model.dims.order[0]
        if not self._quiet and self.model.dims.ndim == 3:
            self.scrolled.emit(axis, float(self.model.dims.point[axis]))

    def _press(self, model: ViewerModel, event: Any) -> Iterator[None]:
        self.pressed.emit(True)
        for _ in click(model, event, self.clicked.emit):
            self.touch()
            yield
        # The layer hears of it after the viewer: a tool may only now take what was drawn.
        QTimer.singleShot(0, self._let_go)

    def _let_go(self) -> None:
        with contextlib.suppress(RuntimeError):
            # The view may have been closed meanwhile.
            self.pressed.emit(False)

    def _move(self, _model: ViewerModel, event: Any) -> None:
        if "Shift" in event.modifiers and not event.is_dragging:
            self.hovered.emit(tuple(event.position), True)

    def _mouse_moved(self) -> None:
        self.hovered.emit(self.model.cursor.position, False)

    def _mouse_left(self) -> None:
        if not self.model.mouse_over_canvas:
            self.hovered.emit(None, False)


def make_current(canvas: QtViewer) -> None:
    """Let OpenGL's next commands be for a canvas.

    napari sends some when layers leave, to whichever canvas was drawn last: with several of them it would delete what
    another one draws with, which crashes.
    """
    canvas.canvas._scene_canvas.set_current()


def click(model: ViewerModel, event: Any, take: Callable[[tuple[float, ...]], object]) -> Iterator[None]:
    """Take where the mouse was clicked, if the click is for no tool; a callback for the mouse in napari."""
    active = model.layers.selection.active
    free = active is None or (str(active.mode) == "pan_zoom" and active.mouse_pan)
    meant = free and event.button == 1 and not event.modifiers and len(event.dims_displayed) == 2
    start, position, dragged = np.asarray(event.pos), tuple(event.position), False
    yield
    while event.type == "mouse_move":
        dragged = dragged or bool(np.abs(np.asarray(event.pos) - start).max() > CLICK_PIXELS)
        yield
    if meant and not dragged:
        take(position[-3:])


def painted_box(layer: Labels, event: Any) -> dict[int, tuple[int, int]]:
    """Voxels (start, stop) by axis of a `labels_update` of a layer; axes without an entry may be touched anywhere."""
    displayed = layer._slice_input.displayed
    return {
        int(axis): (int(start), int(start) + int(length))
        for axis, start, length in zip(displayed, event.offset, event.data.shape, strict=False)
    }


def shown_slice(layer: Layer) -> dict[int, int]:
    """Index of the slice that a layer shows, by axis."""
    point = np.round(layer.world_to_data(layer._slice_input.world_slice.point)).astype(int)
    return {int(axis): int(point[axis]) for axis in layer._slice_input.not_displayed}


def is_seen(layer: Layer, box: Mapping[int, tuple[int, int]]) -> bool:
    """Whether a change can be seen in the slice that a layer shows."""
    return all(box[axis][0] <= index < box[axis][1] for axis, index in shown_slice(layer).items() if axis in box)
