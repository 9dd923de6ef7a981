"""From one page to another: in the dock if it is open, else the page alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QDockWidget, QWidget

from .dock import PAGES, Seg3DDock, make_page
from .widgets import Panel

if TYPE_CHECKING:
    from napari import Viewer


def show_page(viewer: Viewer, name: str) -> None:
    """Bring a page of `dock.PAGES` to the front; it is opened if it is not there."""
    viewer = getattr(viewer, "__wrapped__", viewer)
    window = viewer.window._qt_window
    for dock in window.findChildren(Seg3DDock):
        dock.show_page(name)
        _raise(dock)
        return
    for panel in window.findChildren(Panel):
        if type(panel).__name__ == PAGES[name][1]:
            _raise(panel)
            return
    viewer.window.add_dock_widget(make_page(name, viewer), name=f"Seg3D {name}", area="right")


def _raise(widget: QWidget) -> None:
    parent: QWidget | None = widget
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parentWidget()
    if parent is not None:
        parent.show()
        parent.raise_()
