"""Layers of a further view, which share the voxels of the main viewer's layers and follow their looks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer

_COMMON_LOOKS = ("visible", "opacity", "blending", "name")
_IMAGE_LOOKS = (
    *_COMMON_LOOKS, "contrast_limits_range", "contrast_limits", "gamma", "colormap", "interpolation2d", "mouse_pan",
    "cursor_size", "cursor",
)  # fmt: skip
#: `mode` sets the cursor and whether the mouse pans, so those follow it.
_LABELS_LOOKS = (
    *_COMMON_LOOKS, "colormap", "contour", "show_selected_label", "brush_size", "selected_label", "contiguous",
    "preserve_labels", "n_edit_dimensions", "editable", "mode", "mouse_pan", "cursor_size", "cursor",
)  # fmt: skip
#: What the mouse in a view changes, too: picking a label, and the size of the brush.
_BACK = ("selected_label", "brush_size")


class LinkedImage(Image):
    """An image layer of a view; it shares the voxels of one of the main viewer's layers."""

    def _update_thumbnail(self) -> None:
        """Make none: nobody sees it."""


class LinkedLabels(Labels):
    """A labels layer of a view; what is painted on it is an edit of the main viewer's layer.

    Parameters
    ----------
    original : napari.layers.Labels
        Has the voxels and the history.
    """

    def __init__(self, original: Labels, **settings: Any) -> None:
        self.original = original
        super().__init__(original.data, **settings)

    def _update_thumbnail(self) -> None:
        """Make none: nobody sees it."""

    # All of napari's tools keep history through these.

    @contextlib.contextmanager
    def block_history(self) -> Iterator[None]:
        """Make one step of the original's history of what is painted meanwhile."""
        with self.original.block_history():
            yield

    def _save_history(self, value: Any) -> None:
        self.original._save_history(value)

    def _begin_stroke(self) -> None:
        self.original._begin_stroke()

    def _commit_stroke(self) -> None:
        self.original._commit_stroke()

    def _abort_stroke(self) -> None:
        self.original._abort_stroke()

    def undo(self) -> None:
        """Undo the original's last step."""
        self.original.undo()

    def redo(self) -> None:
        """Redo the original's last step."""
        self.original.redo()


def can_be_linked(layer: Layer) -> bool:
    """Whether a layer is an image or labels in 3D whose voxels another layer can share."""
    return isinstance(layer, Image | Labels) and layer.ndim == 3 and not layer.multiscale and not layer_is_rgb(layer)


def layer_is_rgb(layer: Layer) -> bool:
    """Whether it has colours instead of intensities."""
    return bool(getattr(layer, "rgb", False))


class Twin:
    """A layer of the main viewer and its copy in one view, which follows its looks.

    Parameters
    ----------
    layer : napari.layers.Image or napari.layers.Labels
    visible : callable
        Tells whether the view shows the layer.
    """

    def __init__(self, layer: Layer, visible: Callable[[Layer], bool]) -> None:
        self.layer = layer
        self._visible = visible
        place = {name: getattr(layer, name) for name in ("scale", "translate", "units", "axis_labels")}
        place |= {"metadata": layer.metadata, "visible": visible(layer)}
        self._looks: tuple[str, ...] = _LABELS_LOOKS if isinstance(layer, Labels) else _IMAGE_LOOKS
        if isinstance(layer, Labels):
            self.copy: Layer = LinkedLabels(layer, features=layer.features, colormap=layer.colormap, **place)
        else:
            self.copy = LinkedImage(layer.data, contrast_limits=layer.contrast_limits, **place)
        self.copy.mouse_drag_callbacks.append(self._use_tool)
        self._slots: list[tuple[Any, Callable[..., Any]]] = []
        self._follow_looks()
        for name in (*self._looks, "scale", "translate"):
            self._listen(getattr(layer.events, name), partial(self._follow, name))
        self._listen(layer.events.data, self._take_data)
        if isinstance(layer, Labels):
            for name in _BACK:
                self._listen(getattr(self.copy.events, name), partial(self._lead, name))

    def _listen(self, emitter: Any, slot: Callable[..., Any]) -> None:
        emitter.connect(slot)
        self._slots.append((emitter, slot))

    def _follow(self, name: str, _event: object = None) -> None:
        value = self._visible(self.layer) if name == "visible" else getattr(self.layer, name)
        if not np.array_equal(getattr(self.copy, name), value):
            setattr(self.copy, name, value)

    def _follow_looks(self) -> None:
        for name in self._looks:
            self._follow(name)

    def _take_data(self, _event: object = None) -> None:
        if self.copy.data is not self.layer.data:
            self.copy.data = self.layer.data
            self.copy.metadata = self.layer.metadata
            # napari makes a layer editable that gets other data.
            self._follow_looks()

    def _lead(self, name: str, _event: object = None) -> None:
        value = getattr(self.copy, name)
        if getattr(self.layer, name) != value:
            setattr(self.layer, name, value)

    def show_or_hide(self) -> None:
        """Look again whether the view shows the layer."""
        self._follow("visible")

    def _use_tool(self, _copy: Layer, event: Any) -> Iterator[None]:
        """Let a tool of ours that waits for the mouse on the main layer have it here."""
        own = set(type(self.layer)._drag_modes.values())
        for callback in [one for one in self.layer.mouse_drag_callbacks if one not in own]:
            yield from callback(self.copy, event) or ()

    def close(self) -> None:
        """Follow no longer."""
        for emitter, slot in self._slots:
            emitter.disconnect(slot)
        self._slots.clear()
