"""How the compared labels are shown: contours or filled, flashing, opacity; which label and which image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image, Labels
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QSlider, QVBoxLayout, QWidget

from .case_view import modality_layers
from .keys import HELP, with_key
from .layers import origin_or_none
from .linked_views import IMAGES_MODE, PLANES_MODE
from .session import session_for
from .widgets import listen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari import Viewer

    from .workspace import Workspace

#: Milliseconds for which each of two layers is shown while flashing: slow enough to be safe for eyes and brains.
FLASH_MS = 600
_OPACITY_STEP = 0.1
#: Views that can stand below the canvas, by mode: text and tooltip of the button, and name of its key.
_VIEWS = {
    PLANES_MODE: ("Other planes", "Show the other two planes below the canvas, with one crosshair", "all_planes"),
    IMAGES_MODE: ("Other images", "Show the other images of the case in the same slice, side by side", "all_images"),
}
#: Opacity below which labels could not be found again.
_LEAST_OPACITY = 0.1


class LooksSection(QWidget):
    """Buttons and keys for the look of the compared layers.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    show_keys : callable
        Shows the key map.
    """

    def __init__(
        self, workspace: Workspace, viewer: Viewer, show_keys: Callable[[], object], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._workspace, self._viewer = workspace, viewer
        self._linked = session_for(viewer).linked_views
        self._layers: tuple[Labels, ...] = ()
        self._painted: Labels | None = None
        #: What was visible through opacity before the flashing began, and whose turn it is.
        self._before: tuple[float, ...] = ()
        self._turn = 0
        self._timer = QTimer(self)
        self._timer.setInterval(FLASH_MS)
        self._timer.timeout.connect(self._flash_on)
        self._build(show_keys)
        listen(self, viewer.layers.events.inserted, self._list_images)
        listen(self, viewer.layers.events.removed, self._list_images)
        self._list_images()

    def _build(self, show_keys: Callable[[], object]) -> None:
        self.contours = QPushButton("Contours")
        self.contours.setCheckable(True)
        self.contours.setToolTip(with_key("Draw the labels as contours, or filled", "contours"))
        self.contours.toggled.connect(lambda _: self._draw_contours())
        self.flash = QPushButton("Flash")
        self.flash.setCheckable(True)
        self.flash.setToolTip(with_key("Show prediction and truth in turn", "flash"))
        self.flash.toggled.connect(self._toggle_flash)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(round(100 * _LEAST_OPACITY), 100)
        self.opacity.setToolTip(
            with_key(with_key("Opacity of the labels: fainter", "fainter") + ", stronger", "stronger")
        )
        self.opacity.valueChanged.connect(self._set_opacity)
        keys = QPushButton("Keys")
        keys.setToolTip(f"Show all keys of Seg3D ({HELP})")
        keys.clicked.connect(lambda _=False: show_keys())
        self.label = QComboBox()
        self.label.setToolTip(
            with_key(with_key("The label to paint with: next", "next_label") + ", before", "previous_label")
        )
        self.label.activated.connect(self._choose_label)
        self.image = QComboBox()
        self.image.setToolTip(with_key("The image that is shown; next", "next_image"))
        self.image.activated.connect(lambda _: self._show_image(self.image.currentText()))
        for choice in (self.label, self.image):
            choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        first = QHBoxLayout()
        first.addWidget(self.contours)
        first.addWidget(self.flash)
        first.addWidget(self.opacity, 1)
        first.addWidget(keys)
        second = QHBoxLayout()
        second.addWidget(QLabel("Label"))
        second.addWidget(self.label, 1)
        second.addWidget(QLabel("Image"))
        second.addWidget(self.image, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(first)
        layout.addLayout(second)
        layout.addLayout(self._build_views())

    def add_button(self, button: QPushButton) -> None:
        """Add what else changes the look, such as window and level by dragging."""
        self._line.addWidget(button)

    def _build_views(self) -> QHBoxLayout:
        self.views: dict[str, QPushButton] = {}
        line = self._line = QHBoxLayout()
        line.addWidget(QLabel("Beside"))
        for mode, (text, tooltip, key) in _VIEWS.items():
            button = self.views[mode] = QPushButton(text)
            button.setCheckable(True)
            button.setToolTip(with_key(tooltip, key))
            button.clicked.connect(lambda _=False, mode=mode: self._linked.toggle(mode))
            line.addWidget(button, 1)
        self._linked.changed.connect(self._show_views)
        self._show_views()
        return line

    def _show_views(self) -> None:
        for mode, button in self.views.items():
            button.setChecked(mode == self._linked.mode)

    # Which layers

    def set_layers(self, predicted: Labels | None, truth: Labels | None) -> None:
        """Take the two compared layers; the label to paint with is the first one's."""
        layers = tuple(layer for layer in (predicted, truth) if layer is not None)
        if layers != self._layers:
            self.flash.setChecked(False)
            self._layers = layers
            if self.contours.isChecked():
                self._draw_contours()
            if layers:
                self.opacity.blockSignals(True)
                self.opacity.setValue(round(100 * layers[0].opacity))
                self.opacity.blockSignals(False)
        self.flash.setEnabled(len(layers) == 2)
        if predicted is not self._painted:
            if self._painted is not None:
                self._painted.events.selected_label.disconnect(self._show_label)
            self._painted = predicted
            if predicted is not None:
                listen(self, predicted.events.selected_label, self._show_label)
        self._list_labels()

    # Contours, opacity, flashing

    def _draw_contours(self) -> None:
        for layer in self._layers:
            layer.contour = int(self.contours.isChecked())

    def change_opacity(self, steps: int) -> None:
        """Make the labels stronger, or fainter with a negative number of steps."""
        self.opacity.setValue(self.opacity.value() + round(100 * _OPACITY_STEP) * steps)

    def _set_opacity(self, percent: int) -> None:
        self.flash.setChecked(False)
        for layer in self._layers:
            layer.opacity = percent / 100

    def _toggle_flash(self, on: bool) -> None:
        if on and len(self._layers) == 2:
            self._before = tuple(layer.opacity for layer in self._layers)
            self._turn = 0
            self._flash_on()
            self._timer.start()
        elif not on:
            self._timer.stop()
            for layer, opacity in zip(self._layers, self._before, strict=False):
                layer.opacity = opacity
            self._before = ()
        else:
            self.flash.setChecked(False)

    def _flash_on(self) -> None:
        # Opacity, not visibility: the layer can be painted on all the time, and nothing is sliced again.
        self._turn = 1 - self._turn
        for place, (layer, opacity) in enumerate(zip(self._layers, self._before, strict=False)):
            layer.opacity = opacity if place == self._turn else 0.0

    # Labels

    def _list_labels(self) -> None:
        origin = None if self._painted is None else origin_or_none(self._painted)
        table = [] if origin is None else [(label.value, label.name, label.color) for label in origin.table]
        shown = [(self.label.itemData(i), self.label.itemText(i)) for i in range(self.label.count())]
        if [(value, name) for value, name, _ in table] != shown:
            self.label.clear()
            for value, name, colour in table:
                square = QPixmap(10, 10)
                square.fill(QColor(colour))
                self.label.addItem(QIcon(square), name, value)
        self.label.setEnabled(bool(table))
        self._show_label()

    def _show_label(self) -> None:
        if self._painted is not None:
            self.label.setCurrentIndex(self.label.findData(int(self._painted.selected_label)))

    def _choose_label(self, place: int) -> None:
        if self._painted is not None and place >= 0:
            self._painted.selected_label = self.label.itemData(place)

    def change_label(self, by: int) -> None:
        """Paint with the next label (1) or the one before (-1), round and round."""
        count = self.label.count()
        if count:
            place = self.label.currentIndex()
            self._choose_label((place + by) % count if place >= 0 else 0)

    # Images

    def _images(self) -> Sequence[Image]:
        return modality_layers(self._viewer, self._workspace)

    def _list_images(self) -> None:
        names = [layer.name for layer in self._images()]
        if names != [self.image.itemText(i) for i in range(self.image.count())]:
            self.image.clear()
            self.image.addItems(names)
        shown = [layer.name for layer in self._images() if layer.visible]
        self.image.setCurrentIndex(self.image.findText(shown[-1]) if shown else -1)
        self.image.setEnabled(bool(names))

    def _show_image(self, name: str) -> None:
        for layer in self._images():
            layer.visible = layer.name == name
        self.image.setCurrentIndex(self.image.findText(name))

    def next_image(self) -> None:
        """Show the next image instead, round and round."""
        images = self._images()
        if images:
            shown = [place for place, layer in enumerate(images) if layer.visible]
            self._show_image(images[(shown[-1] + 1) % len(images) if shown else 0].name)
