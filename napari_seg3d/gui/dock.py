"""The Seg3D dock: the four pages in the order of the work."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize
from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from .session import session_for

if TYPE_CHECKING:
    from napari import Viewer

    from .widgets import Panel

#: Name of a page, module and class that make it, and its tooltip.
PAGES = {
    "Data": ("data_panel", "DataPanel", "Choose a dataset, see and open its cases"),
    "Train": ("train_panel", "TrainPanel", "Plan and train a network on the cases"),
    "Predict": ("predict_panel", "PredictPanel", "Label cases with a trained network"),
    "Review": ("review_panel", "ReviewPanel", "See where a prediction is wrong, correct it, save it"),
}


def make_page(name: str, viewer: Viewer) -> Panel:
    """Make one page of a viewer; all pages of a viewer share its workspace."""
    module, kind, _ = PAGES[name]
    viewer = getattr(viewer, "__wrapped__", viewer)
    made: Panel = getattr(importlib.import_module(f".{module}", __package__), kind)(
        session_for(viewer).workspace, viewer
    )
    return made


class Seg3DDock(QWidget):
    """Tabs with the pages; a page is made when it is first shown, so that the dock opens at once.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = napari_viewer
        self._tabs = QTabWidget()
        self._tabs.setDocumentMode(True)
        self._tabs.tabBar().setExpanding(True)
        self._tabs.setUsesScrollButtons(False)
        # napari's style leaves tabs too low for their text.
        self._tabs.setStyleSheet("QTabBar::tab { min-height: 20px; padding: 4px 8px; }")
        for name, (_, _, tooltip) in PAGES.items():
            holder = QWidget()
            layout = QVBoxLayout(holder)
            layout.setContentsMargins(0, 0, 0, 0)
            self._tabs.setTabToolTip(self._tabs.addTab(holder, name), tooltip)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._tabs)
        self._tabs.currentChanged.connect(self._make)
        self._make(0)

    def _make(self, index: int) -> None:
        holder = self._tabs.widget(index)
        if holder.layout().count() == 0:
            holder.layout().addWidget(make_page(self._tabs.tabText(index), self._viewer))

    def page(self, name: str) -> Panel:
        """Return a page; it is made if it was not shown before."""
        index = list(PAGES).index(name)
        self._make(index)
        panel: Panel = self._tabs.widget(index).layout().itemAt(0).widget()
        return panel

    def show_page(self, name: str) -> Panel:
        """Bring a page to the front and return it."""
        self._tabs.setCurrentIndex(list(PAGES).index(name))
        return self.page(name)

    def sizeHint(self) -> QSize:
        """Ask for the width that the pages are made for."""
        return QSize(400, 760)
