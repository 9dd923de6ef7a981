"""Window and level of an image by dragging over it, as on a radiologist's workstation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer
from qtpy.QtWidgets import QPushButton, QWidget

from .keys import bind_keys, with_key

if TYPE_CHECKING:
    from napari import Viewer

    from .tool_pointer import Pointer

#: Pixels of dragging to the right that double the window, and to the side of which a level moves by one window.
_DOUBLES, _ONE_WINDOW = 200.0, 400.0


class WindowLevelButton(QPushButton):
    """While it is pressed, dragging over the canvas changes the contrast of the uppermost image that is shown.

    Parameters
    ----------
    viewer : napari.Viewer
    pointer : Pointer
        Which hands the mouse to one tool at a time.
    """

    def __init__(self, viewer: Viewer, pointer: Pointer, parent: QWidget | None = None) -> None:
        super().__init__("Window", parent)
        self._viewer, self._pointer = viewer, pointer
        #: The layer that lent its mouse, and the tool of napari's that it had in hand.
        self._lent: tuple[Layer, str] | None = None
        self.setCheckable(True)
        self.setToolTip(
            with_key(
                "Drag over the image: to the right for a wider window (less contrast), up for brighter", "window_level"
            )
        )
        self.toggled.connect(self._toggle)
        bind_keys(viewer, self, {"window_level": lambda button: button.toggle()})

    def _toggle(self, on: bool) -> None:
        if not on:
            self._pointer.disarm()
            return
        layer, image = self._viewer.layers.selection.active, self.image()
        if image is None:
            self.setChecked(False)
            return
        layer = layer or image
        mode = str(layer.mode)
        self._pointer.arm(layer, self._drag, self._ended)
        self._lent = layer, mode

    def _ended(self) -> None:
        lent, self._lent = self._lent, None
        # Another tool may have taken the mouse: then the button comes up, and that tool keeps what it set.
        mine = self.isChecked()
        self.blockSignals(True)
        self.setChecked(False)
        self.blockSignals(False)
        if lent is not None and not mine and lent[0] in self._viewer.layers:
            lent[0].mode = lent[1]

    def image(self) -> Image | None:
        """The image whose contrast is changed: the active one, else the uppermost that is shown."""
        layers = self._viewer.layers
        if isinstance(layers.selection.active, Image):
            return layers.selection.active
        return next((layer for layer in reversed(layers) if isinstance(layer, Image) and layer.visible), None)

    def _drag(self, _layer: Layer, event: Any) -> Iterator[None]:
        image = self.image()
        if image is None or event.button != 1 or len(event.dims_displayed) != 2:
            return
        down, right = event.dims_displayed
        zoom = self._viewer.scene.camera.zoom
        begin, (low, high) = event.position, image.contrast_limits
        yield
        while event.type == "mouse_move":
            pixels = [(event.position[axis] - begin[axis]) * zoom for axis in (right, down)]
            image.contrast_limits = adjusted((low, high), image.contrast_limits_range, *pixels)
            window = image.contrast_limits[1] - image.contrast_limits[0]
            level = sum(image.contrast_limits) / 2
            self._viewer.status = f"{image.name}: window {window:.4g}, level {level:.4g}"
            yield


def adjusted(limits: tuple[float, float], whole: tuple[float, float], right: float, down: float) -> tuple[float, float]:
    """Return contrast limits after dragging by so many pixels, within the whole range of the image.

    Examples
    --------
    >>> adjusted((100, 200), (0, 1000), 200, 0), adjusted((100, 200), (0, 1000), 0, 400)
    ((50.0, 250.0), (200.0, 300.0))
    >>> adjusted((100, 200), (0, 1000), 0, -4000)
    (0.0, 1.0)
    """
    window = (limits[1] - limits[0]) * 2 ** (right / _DOUBLES)
    level = sum(limits) / 2 + down / _ONE_WINDOW * (limits[1] - limits[0])
    least = 1e-3 * (whole[1] - whole[0])
    low = min(max(level - window / 2, whole[0]), whole[1] - least)
    return float(low), float(max(min(level + window / 2, whole[1]), low + least))
