"""Choosing a box of the open case by drawing rectangles on its slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image, Shapes
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QWidget

from .box import Box, box_in_words, box_of, drawing_layer
from .layers import origin_of, origin_or_none
from .widgets import listen, quiet_label

if TYPE_CHECKING:
    from napari import Viewer

    from .workspace import Workspace


class BoxChooser(QWidget):
    """A tick for "only a box", a button to draw it, and how large it is.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    """

    changed = Signal()

    def __init__(self, workspace: Workspace, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._workspace = workspace
        self._viewer = viewer
        self._check = QCheckBox("Only a box")
        self._check.setToolTip("Predict only inside rectangles drawn on the slices; all else becomes background")
        self._words = quiet_label()
        self._draw = QPushButton("Draw")
        self._draw.setToolTip(
            "Draw a rectangle on the slice you see; it reaches through all slices. "
            "One more in another plane limits the third direction"
        )
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._check)
        layout.addWidget(self._words, 1)
        layout.addWidget(self._draw)
        self._check.toggled.connect(self.refresh)
        self._draw.clicked.connect(self.draw)
        # napari and psygnal hold bound methods weakly.
        listen(self, viewer.layers.events.inserted, self._watch)
        listen(self, viewer.layers.events.removed, self.refresh)
        listen(self, workspace.case_changed, self.refresh)
        self._watch()

    @property
    def is_wanted(self) -> bool:
        """Whether only a box shall be predicted."""
        return bool(self.isEnabled() and self._check.isChecked())

    def want(self, wanted: bool) -> None:
        """Tick or untick the box."""
        self._check.setChecked(wanted)

    @property
    def box(self) -> Box | None:
        """The box that is drawn, in voxels of the open case; None if there is none."""
        shapes = next((x for x in reversed(self._viewer.layers) if isinstance(x, Shapes) and len(x.data)), None)
        image = self._image()
        return None if shapes is None or image is None else box_of(shapes, image)

    def draw(self) -> None:
        """Let the user draw a rectangle on the open case."""
        image = self._image()
        if image is None:
            return
        layers = [layer for layer in self._viewer.layers if isinstance(layer, Shapes)]
        if not layers:
            layers = [self._viewer.add_layer(drawing_layer(image))]
        layers[-1].mode = "add_rectangle"
        self._viewer.layers.selection.active = layers[-1]

    def _image(self) -> Image | None:
        """The first image of the open case."""
        for layer in self._viewer.layers:
            origin = origin_or_none(layer)
            if isinstance(layer, Image) and origin is not None and origin.case_id == (self._workspace.case_id or None):
                return layer
        return None

    def _watch(self, _event: object = None) -> None:
        for layer in self._viewer.layers:
            if isinstance(layer, Shapes):
                layer.events.data.disconnect(self.refresh)
                listen(self, layer.events.data, self.refresh)
        self.refresh()

    def refresh(self, _event: object = None) -> None:
        """Say how large the box is now."""
        box, image = self.box if self.is_wanted else None, self._image()
        self._draw.setVisible(self._check.isChecked())
        self._words.setText("" if box is None or image is None else box_in_words(box, origin_of(image).geometry))
        self.changed.emit()
