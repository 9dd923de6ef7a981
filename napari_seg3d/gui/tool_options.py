"""What holds for all tools: the active label, locked labels, where may be painted, one slice or all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QAction, QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QToolButton,
    QWidget,
)

from ..correction.masks import Where
from ..volumes.volume import Label
from .editors import combo
from .layers import origin_of, origin_or_none, stored
from .session import session_for
from .tool_runs import Bench, axis_in_file, voxel_in_file
from .widgets import listen

if TYPE_CHECKING:
    from napari import Viewer

    from ..volumes.geometry import Geometry
    from ..volumes.volume import LabelTable
    from .workspace import Workspace

_BACKGROUND = Label(0, "background", "#000000")


class ToolOptions(QWidget):
    """Rows of choices above the tools.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    """

    #: Something was chosen that changes what a tool would do.
    changed = Signal()
    #: Another label is active.
    label_changed = Signal(int)

    def __init__(self, workspace: Workspace, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._workspace, self._viewer = workspace, viewer
        self._layer: Labels | None = None
        self._labels: tuple[Label, ...] = ()
        self._locked: set[int] = set()
        self._label = combo("The active label: what brushes paint and tools work on (Q and W change it)")
        self._label.activated.connect(self._label_chosen)
        self._lock = QToolButton()
        self._lock.setToolTip("Labels that no tool and no brush changes")
        self._lock.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self._lock.setMenu(QMenu(self._lock))
        self._lock.setStyleSheet(NO_ARROW)
        self._where = combo("Brushes and tools change voxels only here, whatever they would do")
        self._where.currentIndexChanged.connect(self._where_chosen)
        self._range = RangeRow("Only intensities from here to there, in the image's own units")
        self._range.changed.connect(self.changed)
        self._flat = QCheckBox("This slice only")
        self._flat.setToolTip(
            "Tools and brushes work in the shown slice alone; otherwise in all slices, with a ball for a brush"
        )
        self._flat.toggled.connect(lambda _: self.changed.emit())
        self._all = QCheckBox("All labels")
        self._all.setToolTip(
            "Smoothing and filling between slices treat all labels together, so that no gap opens between them"
        )
        self._all.toggled.connect(lambda _: self.changed.emit())
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setColumnStretch(1, 1)
        for row, (name, *widgets) in enumerate(
            (
                ("Label", self._label, self._lock),
                ("Paint only", self._where),
                ("", self._range),
                ("", self._flat, self._all),
            )
        ):
            line = QHBoxLayout()
            for place, widget in enumerate(widgets):
                line.addWidget(widget, 1 if place == 0 else 0)
            if name:
                title = QLabel(name)
                title.setMinimumWidth(TITLE_WIDTH)
                grid.addWidget(title, row, 0)
            grid.addLayout(line, row, 1)
        listen(self, viewer.layers.events.inserted, self.refresh)
        listen(self, viewer.layers.events.removed, self.refresh)
        listen(self, workspace.case_changed, self.refresh)
        self.refresh()

    # Which layer, which labels

    def show_layer(self, layer: Labels | None) -> None:
        """Offer the labels of a layer, or nothing."""
        if self._layer is not None:
            self._layer.events.selected_label.disconnect(self._follow_label)
        self._layer = layer
        if layer is not None:
            layer.events.selected_label.connect(self._follow_label)
        self._list_labels()
        self.refresh()

    @property
    def table(self) -> LabelTable:
        """Names and colours of the layer's labels, with the active one."""
        assert self._layer is not None
        table = origin_of(self._layer, Labels).table
        return table.covering([self.label] if self.label else [])

    @property
    def label(self) -> int:
        """The active label."""
        return 0 if self._layer is None else int(self._layer.selected_label)

    @property
    def locked(self) -> tuple[int, ...]:
        """Labels that no tool changes."""
        return tuple(sorted(self._locked))

    def lock(self, value: int, locked: bool = True) -> None:
        """Lock a label, or unlock it."""
        (self._locked.add if locked else self._locked.discard)(value)
        for action in self._lock.menu().actions():
            action.setChecked(action.data() in self._locked)
        self._name_locked()
        self.changed.emit()

    def _label_chosen(self) -> None:
        value = self._label.currentData()
        if self._layer is not None and value is not None:
            self._layer.selected_label = value
            self.label_changed.emit(value)

    def _follow_label(self) -> None:
        if self._label.findData(self.label) < 0:
            self._list_labels()
        self._label.setCurrentIndex(self._label.findData(self.label))
        self.label_changed.emit(self.label)
        self.changed.emit()

    def _list_labels(self) -> None:
        self._labels = () if self._layer is None else tuple(self.table)
        self._label.clear()
        for label in (*self._labels, _BACKGROUND) if self.label == 0 else self._labels:
            self._label.addItem(icon_of(label), label.name, label.value)
        self._label.setCurrentIndex(self._label.findData(self.label))
        menu = self._lock.menu()
        menu.clear()
        for label in (*self._labels, _BACKGROUND):
            action = QAction(icon_of(label), label.name, menu)
            action.setCheckable(True)
            action.setData(label.value)
            action.setChecked(label.value in self._locked)
            action.triggered.connect(lambda on, value=label.value: self.lock(value, on))
            menu.addAction(action)
        self._name_locked()

    def _name_locked(self) -> None:
        names = [label.name for label in (*self._labels, _BACKGROUND) if label.value in self._locked]
        self._lock.setText(f"Locked: {names[0] if len(names) == 1 else len(names) or 'none'} ▾")
        self._lock.setToolTip(f"Labels that no tool and no brush changes: {', '.join(names) or 'none'}")

    # Where

    def refresh(self) -> None:
        """List the places that can be painted in anew."""
        before = self._where.currentData()
        self._where.blockSignals(True)
        self._where.clear()
        self._where.addItem("anywhere", ("anywhere", None))
        for label in (*self._labels, _BACKGROUND):
            self._where.addItem(icon_of(label), f"inside {label.name}", ("label", label.value))
        for name in self.images():
            self._where.addItem(f"where {name} lies between …", ("image", name))
        for name in self.other_layers():
            self._where.addItem(f"inside {name}", ("layer", name))
        place = next((i for i in range(self._where.count()) if self._where.itemData(i) == before), 0)
        self._where.setCurrentIndex(place)
        self._where.blockSignals(False)
        self._range.setVisible(self._where.currentData()[0] == "image")
        if self._where.currentData() != before:
            self.changed.emit()

    def _place(self) -> tuple[str, Any]:
        chosen: tuple[str, Any] = self._where.currentData() or ("anywhere", None)
        return chosen

    def _where_chosen(self) -> None:
        kind, name = self._place()
        self._range.setVisible(kind == "image")
        if kind == "image":
            self._range.suggest(*self.contrast(name))
        self.changed.emit()

    @property
    def geometry_of_layer(self) -> Geometry:
        """The grid of the layer."""
        assert self._layer is not None
        return origin_of(self._layer, Labels).geometry

    def images(self) -> Mapping[str, NDArray[Any]]:
        """Return the images (X, Y, Z) of the case that lie on the layer's grid, by modality."""
        case = self._workspace.case
        if case is None or self._layer is None or not case.geometry.same_grid(self.geometry_of_layer):
            return {}
        return {name: volume.data for name, volume in case.modalities.items()}

    def contrast(self, name: str) -> tuple[float, float]:
        """Between which grey values an image is shown."""
        for layer in self._viewer.layers:
            if isinstance(layer, Image) and layer.name == name:
                return tuple(float(x) for x in layer.contrast_limits)  # type: ignore[return-value]
        return 0.0, 1.0

    def other_layers(self) -> Mapping[str, Labels]:
        """Return the other label layers on the layer's grid by name: truths, predictions, copies."""
        if self._layer is None:
            return {}
        found = {}
        for layer in self._viewer.layers:
            origin = origin_or_none(layer)
            if not isinstance(layer, Labels) or layer is self._layer or origin is None:
                continue
            if origin.role in ("truth", "prediction") and origin.geometry.same_grid(self.geometry_of_layer):
                found[layer.name] = layer
        return found

    def map_of(self, name: str) -> NDArray[Any]:
        """Return a copy of another layer's labels (X, Y, Z)."""
        layer = self.other_layers()[name]
        return np.array(stored(layer.data, origin_of(layer, Labels).geometry), order="K")

    @property
    def restricts(self) -> bool:
        """Whether a label is locked, or painting is not allowed everywhere."""
        return bool(self._locked) or self._place()[0] != "anywhere"

    def where(self) -> Where:
        """Return what the choices say; maps and images are shared, not copied."""
        kind, what = self._place()
        if kind == "label":
            return Where(inside=(what,), locked=self.locked)
        if kind == "image" and what in self.images():
            low, high = self._range.values()
            return Where(intensities=self.images()[what], lowest=low, highest=high, locked=self.locked)
        if kind == "layer" and what in self.other_layers():
            return Where(mask=self.map_of(what) != 0, locked=self.locked)
        return Where(locked=self.locked)

    # All together

    @property
    def all_labels(self) -> bool:
        """Whether tools that can treat all labels together."""
        return self._all.isChecked()

    def bench(self, labels: NDArray[Any]) -> Bench:
        """Return what a tool works on: `labels` (X, Y, Z) of the layer, and all that is chosen here."""
        assert self._layer is not None
        geometry = self.geometry_of_layer
        dims = session_for(self._viewer).view.dims
        screen_axis = int(dims.order[dims.ndim - 3]) - dims.ndim + 3 if dims.ndim >= 3 else 0
        axis = axis_in_file(screen_axis, geometry)
        shown = np.round(self._layer.world_to_data(dims.point))
        index = int(np.clip(voxel_in_file(shown.tolist(), geometry)[axis], 0, geometry.shape[axis] - 1))
        return Bench(labels, geometry, self.label, self.where(), axis, index, self._flat.isChecked())


#: Pixels for the names of the rows.
TITLE_WIDTH = 66
#: Qt draws the arrow of a menu over the text.
NO_ARROW = "QToolButton { padding: 3px 6px; } QToolButton::menu-indicator { image: none; }"


class RangeRow(QWidget):
    """Two numbers: from … to …"""

    changed = Signal()

    def __init__(self, tooltip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._low, self._high = (spin(tooltip, 0, -1e6, 1e6, 1) for _ in range(2))
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        for word, box in (("", self._low), ("to", self._high)):
            if word:
                line.addWidget(QLabel(word))
            line.addWidget(box, 1)
            box.valueChanged.connect(lambda _: self.changed.emit())

    def suggest(self, low: float, high: float) -> None:
        """Set both numbers."""
        self._low.setValue(low)
        self._high.setValue(high)

    def values(self) -> tuple[float, float]:
        """Return both numbers."""
        return self._low.value(), self._high.value()


def spin(tooltip: str, value: float, low: float, high: float, step: float, unit: str = "") -> QDoubleSpinBox:
    """Return a box for a number with its unit."""
    box = QDoubleSpinBox()
    box.setToolTip(tooltip)
    box.setDecimals(max(0, -int(np.floor(np.log10(step)))))
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setValue(value)
    box.setKeyboardTracking(False)
    box.setSuffix(f" {unit}" if unit else "")
    box.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
    # napari's style makes it wider than a row with three more things in it can bear.
    box.setStyleSheet("QDoubleSpinBox { min-width: 42px; max-width: 60px; }")
    return box


def icon_of(label: Label) -> QIcon:
    """Return a square of a label's colour."""
    pixmap = QPixmap(12, 12)
    pixmap.fill(Qt.GlobalColor.transparent if label.value == 0 else QColor(label.color))
    return QIcon(pixmap)


def fill_choice(box: QComboBox, entries: list[tuple[QIcon | None, str, Any]], keep: Callable[[Any], bool]) -> None:
    """List entries anew and keep the one that was chosen, else take the first for which `keep` holds."""
    before = box.currentData()
    box.blockSignals(True)
    box.clear()
    for icon, text, data in entries:
        box.addItem(QIcon() if icon is None else icon, text, data)
    values = [data for _, _, data in entries]
    place = values.index(before) if before in values else next((i for i, v in enumerate(values) if keep(v)), -1)
    box.setCurrentIndex(place)
    box.blockSignals(False)
