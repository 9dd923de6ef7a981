"""More views beside the canvas: the other two planes, or the other images, with one cursor, one brush, one history.

napari shows one plane of one set of layers. Here every further view is a viewer of napari's own (a `ViewerModel` in a
`QtViewer`) whose layers share the voxels of the main viewer's layers and follow their looks. What is painted in a view
goes into the history of the main viewer's layer: one undo, one list of edits and one journal hold it, wherever the
mouse was. The keyboard stays with the main canvas. Nothing here runs while no view is open.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Layer
from qtpy.QtCore import QEvent, QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QBoxLayout, QCheckBox, QHBoxLayout, QLabel, QPushButton, QStackedWidget, QVBoxLayout, QWidget

from .layers import PLANES
from .linked_layers import can_be_linked
from .linked_view import ARM_PIXELS, Cross, LinkedView, click, is_seen, make_current, painted_box
from .pacer import Pacer
from .widgets import quiet_label

if TYPE_CHECKING:
    from napari import Viewer
    from qtpy.QtGui import QResizeEvent


#: What the views show: the other two planes, or the other images in the same plane.
PLANES_MODE, IMAGES_MODE = "planes", "images"
#: Shortest and longest time between two drawings of the views in milliseconds, and their part of the window's time.
SHORTEST_MS, LONGEST_MS, SHARE = 20, 250, 0.5
#: Milliseconds until the window has been laid out anew.
SETTLED_MS = 300
#: Share of the window's height that the views take when they are opened.
HEIGHT_SHARE = 0.38

_NOTHING = "Nothing to show yet. Open a case on the Data page: its other planes, or its other images, appear here."
_IN_3D = "The canvas shows 3D. Go back to slices (Ctrl+Y) to see the other planes or images here."
_ONE_IMAGE = "This case has a single image: there is none to show beside it. “Other planes” shows more of it."
_HINT = "Click, or move with Shift: go there. Ctrl+wheel: slices. Wheel: zoom."


class LinkedViews(QWidget):
    """The views beside the main canvas, kept in step with it and with each other.

    Parameters
    ----------
    viewer : napari.Viewer
    images : callable
        Gives the images of the open case, of which the main canvas shows one at a time.
    held : callable
        Told the dims of the view in which the mouse is held down, and None when it is let go.
    """

    #: The dock was closed from outside.
    left = Signal()

    def __init__(
        self,
        viewer: Viewer,
        images: Callable[[], Sequence[Layer]],
        held: Callable[[Any], object],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.mode = ""
        self.views: list[LinkedView] = []
        self._viewer, self._images, self._held = viewer, images, held
        self._slots: list[tuple[Any, Callable[..., Any]]] = []
        self._of_layers: dict[Layer, list[tuple[Any, Callable[..., Any]]]] = {}
        self._stale = True
        #: What is to be drawn again, and whether the main canvas has not drawn it either.
        self._changes: list[tuple[Layer, Mapping[int, tuple[int, int]], bool]] = []
        self._stood: dict[Layer, tuple[Any, ...]] = {}
        self._point: tuple[float, ...] = ()
        self._wanted: tuple[float, ...] | None = None
        self._mouse: tuple[float, ...] | None = None
        self._mouse_in: object = None
        self._refreshing = False
        self._was_docked = False
        self._build()
        self._cross: Cross | None = Cross(viewer.window._qt_viewer)
        self._ghost: Cross | None = Cross(viewer.window._qt_viewer)
        self._pacer = Pacer(self, self._keep_up, SHORTEST_MS, LONGEST_MS, SHARE)
        self._connect()

    def _build(self) -> None:
        self._words = QLabel()
        self._words.setWordWrap(True)
        self._words.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._row = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(2)
        holder = QWidget()
        holder.setLayout(self._row)
        self._pages = QStackedWidget()
        self._pages.addWidget(self._words)
        self._pages.addWidget(holder)
        hint = quiet_label(_HINT)
        hint.setWordWrap(False)
        self.crosshair = QCheckBox("Crosshair")
        self.crosshair.setToolTip("Show lines through the point at which all views stand")
        self.crosshair.setChecked(True)
        self.crosshair.toggled.connect(lambda _: self._place_changed())
        fit = QPushButton("Fit")
        fit.setToolTip("Show the whole slice in every view")
        fit.clicked.connect(lambda _=False: self.fit())
        line = QHBoxLayout()
        line.setContentsMargins(4, 0, 4, 0)
        line.addWidget(hint, 1)
        line.addWidget(self.crosshair)
        line.addWidget(fit)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addLayout(line)
        layout.addWidget(self._pages, 1)

    def _connect(self) -> None:
        viewer = self._viewer
        dims, layers, camera = viewer.dims.events, viewer.layers.events, viewer.scene.camera.events
        for emitter, slot in (
            (layers.inserted, self._layers_changed), (layers.removed, self._layers_changed),
            (layers.reordered, self._layers_changed), (dims.ndisplay, self._layers_changed),
            (dims.order, self._layers_changed), (dims.point, self._place_changed),
            (camera.center, self._camera_moved), (camera.zoom, self._camera_moved),
            (viewer.canvas.events.size, self._camera_moved), (viewer.cursor.events.position, self._mouse_moved),
            (viewer.events.mouse_over_canvas, self._mouse_left),
            (viewer.layers.selection.events.active, self._active_changed),
        ):  # fmt: skip
            emitter.connect(slot)
            self._slots.append((emitter, slot))
        for emitter in (layers.removed, layers.end_batch):
            emitter.connect(self._before_layers_leave, position="first")
            self._slots.append((emitter, self._before_layers_leave))
        viewer.mouse_drag_callbacks.append(self._click)
        viewer.mouse_move_callbacks.append(self._move)

    # Opening and closing

    def show_mode(self, mode: str) -> None:
        """Show the other planes (`PLANES_MODE`) or the other images (`IMAGES_MODE`)."""
        if mode != self.mode:
            self._remove_views()
            self._hide_crosses()
            self.mode = mode
            self.crosshair.setVisible(mode == PLANES_MODE)
        self._layers_changed()
        self._keep_up()

    @property
    def words(self) -> str:
        """What is said instead of views; empty if there are some."""
        return str(self._words.text())

    @property
    def is_behind(self) -> bool:
        """Whether something is still to be shown."""
        return self._stale or self._pacer.is_due

    def close_views(self) -> None:
        """Give everything back and hear nothing more."""
        for emitter, slot in self._slots:
            emitter.disconnect(slot)
        self._slots.clear()
        for callbacks, one in (
            (self._viewer.mouse_drag_callbacks, self._click),
            (self._viewer.mouse_move_callbacks, self._move),
        ):
            if one in callbacks:
                callbacks.remove(one)
        for layer in list(self._of_layers):
            self._forget(layer)
        for cross in (self._cross, self._ghost):
            if cross is not None:
                cross.remove()
        self._cross = self._ghost = None
        self._remove_views()
        self.mode = ""

    def _remove_views(self, keep: int = 0) -> None:
        for view in self.views[keep:]:
            self._row.removeWidget(view)
            view.close_view()
            view.deleteLater()
        del self.views[keep:]

    def event(self, event: QEvent) -> bool:
        """Notice that the dock was closed: napari takes its widget out."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._was_docked = True
            elif self._was_docked:
                self._was_docked = False
                self.left.emit()
        return bool(super().event(event))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Stand side by side where it is wide, else one below the other."""
        super().resizeEvent(event)
        wide = self.width() >= self.height()
        self._row.setDirection(QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom)

    # What is to be shown

    def _before_layers_leave(self) -> None:
        make_current(self._viewer.window._qt_viewer)

    def _layers_changed(self) -> None:
        self._stale = True
        self._pacer.want()

    def _active_changed(self) -> None:
        active = self._viewer.layers.selection.active
        for view in self.views:
            view.set_active(active)

    def _place_changed(self) -> None:
        self._point = ()
        self._pacer.want()

    def _keep_up(self) -> None:
        """Bring all views up to date."""
        if not self.mode:
            return
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            self.go_to(wanted)
        if self._stale:
            self._stale = False
            self._arrange()
        if not self.views:
            return
        self._follow_place()
        self._draw_changes()
        if self.mode == IMAGES_MODE:
            self._follow_camera()
            self._draw_ghosts()

    def _arrange(self) -> None:
        viewer = self._viewer
        layers = [layer for layer in viewer.layers if can_be_linked(layer)]
        for layer in [one for one in self._of_layers if one not in layers]:
            self._forget(layer)
        for layer in layers:
            self._know(layer)
        images = [layer for layer in self._images() if layer in layers]
        words = _NOTHING if not layers or viewer.dims.ndim < 3 else _IN_3D if viewer.dims.ndisplay == 3 else ""
        if not words and self.mode == IMAGES_MODE and len(images) < 2:
            words = _ONE_IMAGE if images else _NOTHING
        self._words.setText(words)
        self._pages.setCurrentIndex(0 if words else 1)
        if words:
            self._remove_views()
            self._hide_crosses()
            return
        missing = self._make_views(self._wanted_views(images))
        active = viewer.layers.selection.active
        for view in self.views:
            was_empty = not view.twins
            missing += view.set_layers(layers, active, may_add=not missing)
            view.follow(self._order(), self._here())
            if was_empty and view.plane and view.twins:
                view.fit()
        self._point = ()
        if missing:
            # One at a time: between two the window answers the user.
            self._stale = True
            self._pacer.want()

    def _linked_images(self) -> Sequence[Layer]:
        return self._images() if self.mode == IMAGES_MODE else ()

    def _wanted_views(self, images: Sequence[Layer]) -> list[str]:
        """Return the planes or images of the views: all but that of the main canvas."""
        if self.mode == PLANES_MODE:
            return [plane for plane, order in PLANES.items() if order[0] != self._order()[0]]
        shown = [layer.name for layer in images if layer.visible][-1:]
        return [layer.name for layer in images if layer.name not in shown]

    def _make_views(self, wanted: Sequence[str]) -> int:
        """Make one more view if it is wanted, and return how many are still missing."""
        self._remove_views(len(wanted))
        if len(self.views) < len(wanted):
            self._add_view()
        # What goes on being shown keeps its place.
        before = [view.plane or view.image for view in self.views]
        coming = [name for name in wanted if name not in before]
        for view, name in zip(self.views, before, strict=True):
            view.plane, view.image = "", ""
            name = name if name in wanted else coming.pop(0)
            if self.mode == PLANES_MODE:
                view.plane = name
            else:
                view.image = name
        return len(wanted) - len(self.views)

    def _add_view(self) -> None:
        view = LinkedView(self._linked_images, self, has_slider=self.mode == PLANES_MODE)
        view.painted.connect(self._changed)
        view.clicked.connect(self.go_to)
        view.hovered.connect(partial(self._hovered, view))
        view.scrolled.connect(self._scrolled)
        view.zoomed.connect(partial(self._zoomed, view))
        view.pressed.connect(partial(self._pressed, view))
        self._row.addWidget(view, 1)
        self.views.append(view)

    # Place

    def _order(self) -> tuple[int, ...]:
        dims = self._viewer.dims
        before = dims.ndim - 3
        return tuple(int(axis) - before for axis in dims.order[-3:])

    def _here(self) -> tuple[float, ...]:
        return tuple(self._viewer.dims.point[-3:])

    def go_to(self, point: Sequence[float]) -> None:
        """Let all views stand at the voxel nearest to a point (3,) of the world."""
        dims = self._viewer.dims
        axes = tuple(range(dims.ndim - 3, dims.ndim))
        steps = []
        for axis, mm in zip(axes, point[-3:], strict=True):
            start, _, step = dims.range[axis]
            steps.append(int(np.clip(round((mm - start) / step), 0, dims.nsteps[axis] - 1)))
        dims.set_current_step(axes, tuple(steps))

    def _scrolled(self, axis: int, mm: float) -> None:
        self._viewer.dims.set_point(self._viewer.dims.ndim - 3 + axis, mm)

    def _follow_place(self) -> None:
        here = self._here()
        if here == self._point:
            return
        self._point = here
        crossed = self.mode == PLANES_MODE and self.crosshair.isChecked()
        for view in self.views:
            view.follow(self._order(), here)
            view.show_cross(here if crossed else None)
            if view.plane and view.is_moved:
                view.keep_in_view(here)
        if self._cross is not None:
            if crossed and self._viewer.dims.ndisplay == 2:
                down, right = self._viewer.dims.order[-2:]
                before = self._viewer.dims.ndim - 3
                self._cross.show(here[down - before], here[right - before])
            else:
                self._cross.hide()

    def _hide_crosses(self) -> None:
        for cross in (self._cross, self._ghost):
            if cross is not None:
                cross.hide()

    # Camera

    def fit(self) -> None:
        """Show the whole slice everywhere."""
        if self.mode == IMAGES_MODE:
            self._viewer.reset_view()
        for view in self.views:
            view.fit()
        self._camera_moved()

    def _camera_moved(self) -> None:
        if self.mode == IMAGES_MODE:
            self._pacer.want()

    def _zoomed(self, view: LinkedView) -> None:
        if self.mode == IMAGES_MODE and view.is_moved:
            view.is_moved = False
            own, main = view.model.scene.camera, self._viewer.scene.camera
            main.center = own.center
            main.zoom = own.zoom / view.scale_to(self._viewer)
        self._camera_moved()

    def _follow_camera(self) -> None:
        for view in self.views:
            if view.twins:
                view.follow_camera(self._viewer)

    # The mouse

    def _click(self, viewer: Viewer, event: Any) -> Iterator[None]:
        yield from click(viewer, event, self.go_to)

    def _move(self, viewer: Viewer, event: Any) -> None:
        if viewer.dims.ndisplay == 2:
            self._hovered(viewer, tuple(event.position)[-3:], "Shift" in event.modifiers and not event.is_dragging)

    def _mouse_moved(self) -> None:
        self._hovered(self._viewer, tuple(self._viewer.cursor.position)[-3:], False)

    def _mouse_left(self) -> None:
        if not self._viewer.mouse_over_canvas:
            self._hovered(self._viewer, None, False)

    def _hovered(self, where: object, point: tuple[float, ...] | None, go: bool) -> None:
        if point is not None and len(point) != 3:
            return
        if go:
            self._wanted = point
            self._pacer.want()
        if self.mode == IMAGES_MODE and (point is not None or where is self._mouse_in):
            self._mouse, self._mouse_in = point, where
            self._pacer.want()

    def _draw_ghosts(self) -> None:
        for view in self.views:
            view.show_ghost(None if view is self._mouse_in else self._mouse)
        if self._ghost is None:
            return
        if self._mouse is None or self._mouse_in is self._viewer:
            self._ghost.hide()
        else:
            down, right = self._order()[-2:]
            arm_mm = ARM_PIXELS / self._viewer.scene.camera.zoom
            self._ghost.show(self._mouse[down], self._mouse[right], arm_mm)

    def _pressed(self, view: LinkedView, down: bool) -> None:
        self._held(view.model.dims if down else None)
        if down:
            # Keys are for the main viewer, where its layers are.
            self._viewer.window._qt_viewer.canvas.native.setFocus()

    # Voxels

    def _know(self, layer: Layer) -> None:
        if layer in self._of_layers:
            return
        slots: list[tuple[Any, Callable[..., Any]]] = [(layer.events.visible, self._layers_changed)]
        if isinstance(layer, Labels):
            slots += [
                (layer.events.labels_update, partial(self._was_painted, layer)),
                (layer.events.set_data, partial(self._was_drawn, layer)),
            ]
        for emitter, slot in slots:
            emitter.connect(slot)
        self._of_layers[layer] = slots
        self._stood[layer] = self._standing()

    def _forget(self, layer: Layer) -> None:
        for emitter, slot in self._of_layers.pop(layer):
            emitter.disconnect(slot)
        self._stood.pop(layer, None)
        self._changes = [change for change in self._changes if change[0] is not layer]

    def _was_painted(self, layer: Labels, event: Any) -> None:
        self._changed(layer, painted_box(layer, event), on_canvas=True)

    def _standing(self) -> tuple[Any, ...]:
        dims = self._viewer.dims
        return (dims.point, dims.order, dims.ndisplay)

    def _was_drawn(self, layer: Labels, _event: object = None) -> None:
        """Notice what changes voxels and says no more than that a layer was drawn: undo, a map that is made anew."""
        standing = self._standing()
        moved, self._stood[layer] = self._stood.get(layer) != standing, standing
        if not moved and not self._refreshing:
            self._changed(layer, {}, on_canvas=True)

    def _changed(self, layer: Layer, box: Mapping[int, tuple[int, int]], on_canvas: bool = False) -> None:
        self._changes.append((layer, box, not on_canvas))
        self._pacer.want()

    def _draw_changes(self) -> None:
        changes, self._changes = self._changes, []
        whole: dict[Layer, tuple[Mapping[int, tuple[int, int]], bool]] = {}
        for layer, box, on_main in changes:
            before, main_before = whole.get(layer, (box, False))
            whole[layer] = _around(before, box), on_main or main_before
        self._refreshing = True
        try:
            for layer, (box, on_main) in whole.items():
                for view in self.views:
                    view.refresh_labels(layer, box)
                if on_main and layer in self._viewer.layers and layer.visible and is_seen(layer, box):
                    layer.refresh(extent=False, thumbnail=False, highlight=False)
        finally:
            self._refreshing = False


def _around(one: Mapping[int, tuple[int, int]], other: Mapping[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """Box around two changes; an axis that one of them does not limit is not limited."""
    return {
        axis: (min(one[axis][0], other[axis][0]), max(one[axis][1], other[axis][1])) for axis in one if axis in other
    }


class LinkedViewsDock(QObject):
    """Opens and closes the views of one viewer, in a dock below its canvas.

    Parameters
    ----------
    viewer : napari.Viewer
    images : callable
        As of `LinkedViews`.
    held : callable
        As of `LinkedViews`.
    """

    #: Other views are shown, or none.
    changed = Signal()

    def __init__(
        self, viewer: Viewer, images: Callable[[], Sequence[Layer]], held: Callable[[Any], object], parent: QObject
    ) -> None:
        super().__init__(parent)
        self._viewer, self._images, self._held = viewer, images, held
        self._dock: QWidget | None = None
        self._corners: dict[Any, Any] = {}
        self.views: LinkedViews | None = None

    @property
    def mode(self) -> str:
        """What is shown; empty if no view is open."""
        return "" if self.views is None else self.views.mode

    def toggle(self, mode: str) -> None:
        """Show the views of a mode, or close them if they are shown."""
        if self.mode == mode and self._dock is not None and self._dock.isVisible():
            self.close()
        else:
            self.open(mode)

    def open(self, mode: str) -> None:
        """Show the views of a mode."""
        if self.views is None:
            self._make()
        if self.views is not None and self._dock is not None:
            self._dock.show()
            self.views.show_mode(mode)
        self.changed.emit()

    def _make(self) -> None:
        window = self._viewer.window._qt_window
        self._keep_field_of_view()
        # The docks at the sides stay as high as they are: the views stand below the canvas alone.
        for corner, side in (
            (Qt.Corner.BottomLeftCorner, Qt.DockWidgetArea.LeftDockWidgetArea),
            (Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.RightDockWidgetArea),
        ):
            self._corners[corner] = window.corner(corner)
            window.setCorner(corner, side)
        self.views = LinkedViews(self._viewer, self._images, self._held)
        self._dock = self._viewer.window.add_dock_widget(self.views, name="Linked views", area="bottom")
        # A canvas that moves to a window of its own loses what it has drawn.
        self._dock.setFeatures(self._dock.features() & ~self._dock.DockWidgetFeature.DockWidgetFloatable)
        window.resizeDocks([self._dock], [round(HEIGHT_SHARE * window.height())], Qt.Orientation.Vertical)
        self.views.left.connect(self._left)

    def _keep_field_of_view(self) -> None:
        """Let the main canvas, which is given another size now, show what it shows."""
        canvas, camera = self._viewer.canvas, self._viewer.scene.camera
        before, zoom = np.array(canvas.size, float), camera.zoom

        def keep() -> None:
            camera.zoom = zoom * float(np.min(canvas.size / before))

        canvas.events.size.connect(keep)
        QTimer.singleShot(SETTLED_MS, lambda: canvas.events.size.disconnect(keep))

    def _left(self) -> None:
        # Qt is in the middle of closing the dock.
        QTimer.singleShot(0, self.close)

    def close(self) -> None:
        """Close the views and give back what they took."""
        views, dock = self.views, self._dock
        self.views = self._dock = None
        if views is None:
            return
        self._held(None)
        with contextlib.suppress(RuntimeError, AttributeError):
            self._keep_field_of_view()
        # At the end of the program Qt deletes its objects in an order of its own.
        with contextlib.suppress(RuntimeError):
            views.left.disconnect(self._left)
        with contextlib.suppress(RuntimeError):
            views.close_views()
        with contextlib.suppress(RuntimeError, LookupError, AttributeError):
            if views.parent() is not None and dock is not None:
                self._viewer.window.remove_dock_widget(dock)
        with contextlib.suppress(RuntimeError, AttributeError):
            views.deleteLater()
            for corner, area in self._corners.items():
                self._viewer.window._qt_window.setCorner(corner, area)
        with contextlib.suppress(RuntimeError):
            self.changed.emit()
