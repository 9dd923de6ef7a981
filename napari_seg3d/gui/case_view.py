"""The open case in the viewer: its layers come and go with it, and edits that are not saved are noticed."""

from __future__ import annotations

import contextlib
import gc
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components.overlays import TextOverlay
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QTimer
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QShortcut

from ..errors import LabelError
from ..volumes.volume import LabelMap
from .edits import LayerEdits
from .keys import HELP, KeyMapWindow, bind_keys
from .layers import (
    PLANES,
    TRUTH,
    can_show,
    image_layer,
    label_map_of,
    on_screen,
    origin_of,
    origin_or_none,
    prediction_layer,
    show_image_instead,
    show_truth_instead,
    stored,
    truth_layer,
)

if TYPE_CHECKING:
    from napari import Viewer
    from napari.components import Dims, ViewerModel

    from ..cases.case import Case
    from .workspace import Workspace

#: Edge of the canvas and the letter there, by the layer axis that runs down or to the right.
LETTERS = {
    "top": ("top_center", "SAR"),
    "bottom": ("bottom_center", "IPL"),
    "left": ("middle_left", "SAR"),
    "right": ("middle_right", "IPL"),
}
#: Milliseconds between two layers of a case that is being shown: time for a picture and a click.
STEP_MS = 15
#: Milliseconds without a stroke after which an edit counts as made.
PAUSE_MS = 300
#: Longest time between two strokes that counts as work.
LONGEST_PAUSE_S = 60.0
#: Axes of the world point into the screen, down and right, as `layers.SCREEN` expects.
CAMERA = ("towards", "down", "right")


class CaseView:
    """Shows the workspace's open case in a viewer and watches what is painted.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    """

    #: A labels layer was changed and the user has paused; also after undo.
    edited = Signal(object)
    #: A labels layer has another name.
    renamed = Signal()
    #: All layers of a newly opened case are there.
    shown = Signal()

    def __init__(self, workspace: Workspace, viewer: Viewer) -> None:
        self._workspace = workspace
        self._viewer = viewer
        #: Plane and slice in which the mouse is held down, if it is in a view beside the canvas.
        self.dims_in_hand: Dims | None = None
        self._watched: dict[Labels, _Watch] = {}
        self._steps: Iterator[None] = iter(())
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._take_step)
        self._garbage = _Garbage()
        viewer.layers.events.removing.connect(self._garbage.all)
        workspace.case_changed.connect(self._show_case)
        viewer.layers.events.inserted.connect(self._watch_all)
        viewer.layers.events.removed.connect(self._watch_all)
        viewer.dims.events.order.connect(self._show_letters)
        viewer.dims.events.ndisplay.connect(self._show_letters)
        self._bind_keys()
        self._watch_all()

    def _bind_keys(self) -> None:
        planes = {plane: lambda view, plane=plane: view.show_plane(plane) for plane in PLANES}
        self._free_keys = bind_keys(self._viewer, self, planes)
        window = getattr(self._viewer, "window", None)
        if window is not None:
            shortcut = QShortcut(QKeySequence(HELP), window._qt_window)
            this = weakref.ref(self)

            def show() -> None:
                view = this()
                if view is not None:
                    view.show_keys()

            shortcut.activated.connect(show)

    def show_keys(self) -> None:
        """Show all keys in a window of their own."""
        parent = self._viewer.window._qt_window
        for shown in parent.findChildren(KeyMapWindow):
            shown.close()
        KeyMapWindow(parent).show()

    def stop_steps(self) -> None:
        """Add no more layers of a case that is still appearing."""
        # At the end of the program Qt deletes its objects in an order of its own.
        with contextlib.suppress(RuntimeError):
            self._timer.stop()
        self._steps = iter(())
        self._garbage.all()

    def close(self) -> None:
        """Stop watching; the layers stay as they are."""
        self.stop_steps()
        self._free_keys()
        for watch in self._watched.values():
            watch.close()
        self._watched.clear()
        self._viewer.layers.events.inserted.disconnect(self._watch_all)
        self._viewer.layers.events.removed.disconnect(self._watch_all)
        self._viewer.layers.events.removing.disconnect(self._garbage.all)
        self._viewer.dims.events.order.disconnect(self._show_letters)
        self._viewer.dims.events.ndisplay.disconnect(self._show_letters)

    # Showing

    def _show_case(self) -> None:
        case = self._workspace.case
        kept = {} if case is None else self._layers_to_keep(case)
        staying = list(kept.values())
        leaving = [layer for layer in self._viewer.layers if _belongs_to_a_case(layer) and layer not in staying]
        with self._garbage.only_new():
            if leaving:
                with self._viewer.layers.batched_update():
                    # At its end napari frees what nobody holds.
                    while leaving:
                        self._viewer.layers.remove(leaving.pop())
        if case is None:
            self._garbage.all()
        self._steps = iter(()) if case is None else self._add_layers(case, kept)
        self._take_step()

    def _layers_to_keep(self, case: Case) -> dict[str, Layer]:
        """Layers of the case before that can go on, by name: those of all images in their order, or none; the truth."""
        contents = dict(case.modalities)
        found: dict[str, Layer] = {}
        layers = iter(self._viewer.layers)
        for name, volume in contents.items():
            layer = next((one for one in layers if can_show(one, volume, name)), None)
            if layer is None:
                return {}
            found[name] = layer
        truth = next((one for one in layers if case.truth is not None and can_show(one, case.truth, TRUTH)), None)
        return found if truth is None or TRUTH in found else {**found, TRUTH: truth}

    def _take_step(self) -> None:
        # One layer at a time: between two the window answers the user.
        for _ in self._steps:
            self._timer.start(STEP_MS)
            return

    def _add_layers(self, case: Case, kept: Mapping[str, Layer]) -> Iterator[None]:
        displays = self._workspace.displays
        for place, (name, volume) in enumerate(case.modalities.items()):
            display, visible, layer = displays.get(name), place == 0, kept.get(name)
            if isinstance(layer, Image):
                show_image_instead(layer, volume, case_id=case.id, display=display, visible=visible)
                continue
            layer = image_layer(volume, name=name, case_id=case.id, display=display, visible=visible)
            self._viewer.add_layer(layer)
            if place == 0:
                self.show_plane("axial")
            yield
        truth = kept.get(TRUTH)
        if case.truth is not None and isinstance(truth, Labels):
            show_truth_instead(truth, case.truth, case_id=case.id)
        if kept:
            # At once with the images: at no moment are there layers of two cases.
            self.show_plane("axial")
            self._viewer.dims.current_step = tuple((steps - 1) // 2 for steps in self._viewer.dims.nsteps)
            yield
        if case.truth is not None and truth is None:
            self._viewer.add_layer(truth_layer(case.truth, case_id=case.id))
            yield
        for path, label_map in self._workspace.opened_predictions.items():
            layer = prediction_layer(label_map, case_id=case.id, path=path)
            layer.visible = case.truth is None
            self._viewer.add_layer(layer)
            yield
        if case.truth is not None:
            self._go_to_slice_with_most(on_screen(case.truth.data, case.geometry))
        # The user may have removed some meanwhile.
        first = next((layer for layer in self._viewer.layers if _belongs_to_a_case(layer)), None)
        if first is not None:
            self._viewer.layers.selection.active = first
        self.shown.emit()

    def _go_to_slice_with_most(self, labels: NDArray[Any]) -> None:
        counts = np.count_nonzero(labels, axis=(1, 2))
        if counts.any():
            self._viewer.dims.set_current_step(0, int(np.argmax(counts)))

    @property
    def dims(self) -> Dims:
        """Plane and slice in which the user works: those of the canvas, or of the view that has the mouse."""
        return self._viewer.dims if self.dims_in_hand is None else self.dims_in_hand

    def show_plane(self, plane: str) -> None:
        """Show the "axial", "coronal" or "sagittal" plane, as radiologists read it."""
        viewer = self._viewer
        if viewer.dims.ndim < 3:
            return
        viewer.scene.camera.orientation = CAMERA
        viewer.dims.ndisplay = 2
        # The viewer may have more dimensions than the case, if other layers are open; the case's are the last three.
        before = viewer.dims.ndim - 3
        viewer.dims.order = (*range(before), *(axis + before for axis in PLANES[plane]))
        viewer.reset_view()

    def _show_letters(self) -> None:
        """Write at the edges of the canvas which side of the patient lies there."""
        show_letters(self._viewer)

    # Watching

    def _watch_all(self) -> None:
        self._show_letters()
        present = {layer for layer in self._viewer.layers if isinstance(layer, Labels)}
        for layer in present:
            # napari keeps one connection of a method, however often it is connected.
            layer.events.name.connect(self._after_rename)
        for layer in [layer for layer in self._watched if layer not in present]:
            self._watched.pop(layer).close()
        for layer in present:
            origin = origin_or_none(layer)
            if origin is not None and origin.role != "prediction" and not layer.locked:
                # A reader cannot lock its layers; here no stroke can change a truth by accident.
                layer.editable = False
                layer.locked = True
            if layer not in self._watched and origin is not None and origin.role == "prediction":
                self._watched[layer] = _Watch(layer, self._after_edit)
        self._tell_unsaved()

    def watch(self, layer: Labels) -> None:
        """Watch a layer of the user's that was adopted just now; all of it counts as not saved."""
        self._watch_all()
        if layer in self._watched:
            self._watched[layer].forget_saved()
            self._after_edit(layer)

    def _after_rename(self) -> None:
        self._tell_unsaved()
        self.renamed.emit()

    def _after_edit(self, layer: Labels) -> None:
        self._tell_unsaved()
        self.edited.emit(layer)

    def _tell_unsaved(self) -> None:
        self._workspace.set_unsaved(frozenset(layer.name for layer in self.unsaved_layers()))

    def edits_of(self, layer: Labels) -> LayerEdits:
        """Return the edits of a layer that is corrected: the same object to all who ask, until the layer leaves.

        Raises
        ------
        LabelError
            If the layer is not watched here: it is a truth, or no prediction of ours, or has left the viewer.
        """
        if layer not in self._watched:
            raise LabelError(f"The layer {layer.name} is not one that is corrected. Choose a prediction or a copy.")
        return self._watched[layer].edits

    def unsaved_layers(self) -> list[Labels]:
        """Layers whose voxels differ from what was last read or saved."""
        return [layer for layer, watch in self._watched.items() if watch.look()]

    def saved_map(self, layer: Labels) -> LabelMap | None:
        """Label map of a layer as it was last read or saved; None if it was begun from nothing."""
        watch = self._watched.get(layer)
        if watch is None or watch.saved is None:
            return None
        label_map = label_map_of(layer)
        return label_map.with_data(stored(watch.saved, label_map.geometry))

    def loaded_map(self, layer: Labels) -> LabelMap | None:
        """Label map of a layer as it was when it came; None if it is not one that is corrected."""
        watch = self._watched.get(layer)
        if watch is None:
            return None
        origin = origin_of(layer, Labels)
        return LabelMap(stored(watch.loaded, origin.geometry), origin.geometry, origin.table)

    def seconds_of_work(self, layer: Labels) -> float:
        """Seconds spent on painting a layer since it was last saved, without the pauses."""
        return self._watched[layer].seconds if layer in self._watched else 0.0

    def mark_saved(self, layer: Labels, data: NDArray[Any]) -> None:
        """Remember the voxels (I, P, L) that were saved; strokes that were made since then stay edits."""
        if layer in self._watched:
            self._watched[layer].set_saved(data)
            self._tell_unsaved()


def modality_layers(viewer: Viewer, workspace: Workspace) -> Sequence[Image]:
    """Return the images of the open case, of which one is looked at; without a case all images."""
    case = workspace.case
    layers = [layer for layer in viewer.layers if isinstance(layer, Image)]
    # Maps of probability and doubt lie over the images; they are no modalities.
    of_case = [layer for layer in layers if case is not None and layer.name in case.modalities]
    return of_case or layers


def bring_into_view(model: ViewerModel, point: Sequence[float], reach: float) -> None:
    """Move a camera if a point of the world is further than `reach` of the canvas from the middle of it."""
    dims, camera = model.dims, model.scene.camera
    away = [point[axis] - centre for axis, centre in zip(dims.order[-2:], camera.center[-2:], strict=True)]
    if any(abs(mm) * camera.zoom > reach * size for mm, size in zip(away, model.canvas.size, strict=True)):
        camera.center = (camera.center[0], *(point[axis] for axis in dims.order[-2:]))


def show_letters(viewer: ViewerModel, font_size: float = 14) -> None:
    """Write at the edges of a viewer's canvas which side of the patient lies there."""
    dims, overlays = viewer.dims, viewer.canvas.overlays
    shown = dims.ndim >= 3 and dims.ndisplay == 2 and any(origin_or_none(layer) for layer in viewer.layers)
    for edge, (position, letters) in LETTERS.items():
        name = f"seg3d_{edge}"
        if shown and name not in overlays:
            overlays[name] = TextOverlay(position=position, font_size=font_size, box=False)
        if name not in overlays:
            continue
        if shown:
            axis = int(dims.order[-2 if edge in ("top", "bottom") else -1]) - dims.ndim + 3
            overlays[name].text = letters[axis] if 0 <= axis < 3 else ""
        overlays[name].visible = shown


def _belongs_to_a_case(layer: Layer) -> bool:
    origin = origin_or_none(layer)
    return origin is not None and origin.case_id != ""


class _Garbage:
    """What Python looks through for garbage while cases are open: what has come since, and not the whole window.

    napari collects garbage whenever layers leave, which takes 0.2 s with all that a window holds: most of the time
    between two cases. When any other layer leaves, everything is looked through as ever.
    """

    def __init__(self) -> None:
        self._within = False

    @contextlib.contextmanager
    def only_new(self) -> Iterator[None]:
        """Let the layers of a case leave, and look no more at what was there before the next one."""
        self._within = True
        try:
            yield
        finally:
            self._within = False
            # What has just left may not be let go yet by all that knew it: it is not taken for what stays.
            if not gc.get_freeze_count():
                gc.freeze()

    def all(self) -> None:
        """Look through everything from now on."""
        if not self._within:
            gc.unfreeze()


class _Watch:
    """The edits of one layer, and whether it differs from what was saved, which is looked up when the user pauses."""

    def __init__(self, layer: Labels, tell: Callable[[Labels], None]) -> None:
        self._layer = layer
        self._tell = tell
        self.loaded: NDArray[Any] = np.array(layer.data, order="K")
        self.saved: NDArray[Any] | None = self.loaded
        # A layer that nobody edits is copied once, for all who ask.
        self.edits = LayerEdits(layer, as_it_is=self.loaded)
        self.seconds = 0.0
        self._last_change = 0.0
        self.is_edited = False
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAUSE_MS)
        self._timer.timeout.connect(self._settle)
        self.edits.made.connect(self._changed)
        self.edits.replaced.connect(self._changed)

    def close(self) -> None:
        self._timer.stop()
        self.edits.close()

    def set_saved(self, data: NDArray[Any]) -> None:
        self.saved = data
        self.seconds = 0.0
        self.is_edited = not np.array_equal(self._layer.data, data)

    def forget_saved(self) -> None:
        self.saved = None
        self.is_edited = True

    def _changed(self, *_: object) -> None:
        now = time.monotonic()
        self.seconds += min(now - self._last_change, LONGEST_PAUSE_S) if self._last_change else 0.0
        self._last_change = now
        self.is_edited = True
        self._timer.start()

    def look(self) -> bool:
        """Whether there are edits; a hidden layer that was undone has announced nothing."""
        self.edits.look()
        return self.is_edited

    def _settle(self) -> None:
        self.is_edited = self.saved is None or not np.array_equal(self._layer.data, self.saved)
        self._tell(self._layer)
