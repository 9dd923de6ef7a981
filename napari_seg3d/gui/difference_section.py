"""Where two label maps differ, on the Review page: as a layer, by kind, and by slice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from ..comparison.difference import DIFFERENCE_TABLE
from ..volumes.volume import LabelTable
from .keys import with_key
from .layers import difference_layer, on_screen
from .profile_strip import ProfileStrip
from .steps_section import UNCERTAIN_FROM, UNCERTAIN_TABLE
from .widgets import listen, quiet_label, shortened, swatches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari import Viewer
    from napari.layers import Layer

    from ..comparison.live import LiveComparison
    from .tasks import Comparison


class DifferenceSection(QWidget):
    """The difference layer, what it amounts to, and a strip of the slices that it lies in.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._comparison: Comparison | None = None
        self._uncertainty: Layer | None = None
        self._case_id = ""
        self._layer: Labels | None = None
        #: The comparison whose difference map that layer shows.
        self._shown_in: LiveComparison | None = None
        #: What missed, added and wrong class are called.
        self._kinds = DIFFERENCE_TABLE
        self.switch = QCheckBox("Show the difference")
        self.switch.setToolTip(
            with_key("Add a layer that shows where and how prediction and truth disagree", "difference")
        )
        self.switch.toggled.connect(lambda _: self._update_layer())
        self._first_line = QHBoxLayout()
        self._first_line.addWidget(self.switch, 1)
        self.legend = quiet_label()
        self.legend.setToolTip("How much is missed, added, or of another class than in the truth")
        self.strip = ProfileStrip()
        self.strip.slice_wanted.connect(self._go_to_slice)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._first_line)
        layout.addWidget(self.legend)
        layout.addWidget(self.strip)
        listen(self, viewer.layers.events.removed, self._after_removal)
        listen(self, viewer.dims.events.current_step, self._mark_slice)
        listen(self, viewer.dims.events.order, self._show_profile)

    def add_button(self, button: QPushButton) -> None:
        """Put a button behind the switch; it stays when there is no difference to show."""
        self._first_line.addWidget(button)

    def show_comparison(self, comparison: Comparison, raters: tuple[str, str] | None, case_id: str) -> None:
        """Show where the maps of a comparison differ, also after each stroke; `raters` if neither is the truth."""
        self._comparison, self._uncertainty, self._case_id = comparison, None, case_id
        self._kinds = DIFFERENCE_TABLE if raters is None else _kinds_of_raters(*raters)
        live = comparison.live
        counts = live.profile(0).sum(axis=0) * live.geometry.voxel_volume_ml
        parts = zip(counts, self._kinds, strict=True)
        self.legend.setText(swatches((f"{label.name} {ml:.2f} ml", label.color) for ml, label in parts))
        for widget in (self.switch, self.legend):
            widget.setVisible(True)
        self._show_profile()
        self._update_layer()

    def show_uncertainty(self, layer: Layer | None) -> None:
        """Show, as there is nothing to compare with, in which slices the model hesitated, if that is known."""
        self._comparison, self._uncertainty = None, layer
        for widget in (self.switch, self.legend):
            widget.setVisible(False)
        self._show_profile()
        self._update_layer()

    def axis(self) -> int:
        """The layer axis (0 I, 1 P, 2 L) along which the viewer's slider goes."""
        dims = self._viewer.dims
        return int(dims.order[dims.ndim - 3]) - dims.ndim + 3 if dims.ndim >= 3 else 0

    # The strip

    def _show_profile(self) -> None:
        if self._comparison is not None:
            self.strip.set_profile(self._comparison.profile(self.axis()), self._kinds)
        elif self._uncertainty is not None:
            axes = tuple(axis for axis in range(3) if axis != self.axis())
            counts = np.count_nonzero(np.asarray(self._uncertainty.data) >= UNCERTAIN_FROM, axis=axes)
            self.strip.set_profile(counts[:, np.newaxis], UNCERTAIN_TABLE)
        self.strip.setVisible(self._comparison is not None or self._uncertainty is not None)
        self._mark_slice()

    def _mark_slice(self) -> None:
        dims = self._viewer.dims
        if dims.ndim >= 3:
            self.strip.set_current(int(dims.current_step[self.axis() + dims.ndim - 3]))

    def _go_to_slice(self, index: int) -> None:
        self._viewer.dims.set_current_step(self.axis() + self._viewer.dims.ndim - 3, index)

    # The layer

    def _update_layer(self) -> None:
        comparison, layers = self._comparison, self._viewer.layers
        if comparison is None or not self.switch.isChecked():
            layer, self._layer = self._layer, None
            if layer is not None and layer in layers:
                layers.remove(layer)
        elif self._layer is None:
            live = self._shown_in = comparison.live
            self._layer = difference_layer(comparison.difference, live.geometry, case_id=self._case_id)
            active = layers.selection.active
            self._viewer.add_layer(self._layer)
            # The user goes on with the layer he was painting on.
            layers.selection.active = active
        elif self._shown_in is not comparison.live:
            self._shown_in = comparison.live
            self._layer.data = on_screen(comparison.difference, comparison.live.geometry)
            # napari makes a layer editable that gets other data.
            self._layer.editable = False
        else:
            # It shows the comparison's own array, which has followed the edit.
            self._layer.refresh(extent=False, thumbnail=False, highlight=False)

    def _after_removal(self) -> None:
        if self._layer is not None and self._layer not in self._viewer.layers:
            # The user took it away.
            self._layer = None
            self.switch.setChecked(False)


def _kinds_of_raters(mine: str, other: str) -> LabelTable:
    """Return what two raters differ in: in colours of the difference layer, in words that fit neither being right."""
    names: Sequence[str] = (f"only in {shortened(other)}", f"only in {shortened(mine)}", "another label")
    return LabelTable(tuple(replace(kind, name=name) for kind, name in zip(DIFFERENCE_TABLE, names, strict=True)))
