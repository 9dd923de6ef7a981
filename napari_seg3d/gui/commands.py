"""What napari's command palette can do: for every action of `keys.KEYS` and `keys.PALETTE` a function of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def show_keys() -> None:
    """Show the keys of Seg3D."""
    from .session import session_for

    session_for(_viewer()).view.show_keys()


def __getattr__(name: str) -> Callable[[], None]:
    from .keys import KEYS, PALETTE

    if name not in KEYS and name not in PALETTE:
        raise AttributeError(name)

    def command() -> None:
        _perform(name)

    return command


def _perform(action: str) -> None:
    from napari.utils.notifications import show_info

    from .keys import KEYS, PALETTE, perform
    from .session import session_for

    viewer = _viewer()
    # Makes the view of the case, which has keys of its own.
    session_for(viewer)
    what = PALETTE[action] if action in PALETTE else KEYS[action].what
    done = _on_page(viewer, action) if action in PALETTE else perform(viewer, action)
    if not done:
        show_info(f"{what}: open the Review page of Seg3D first.")


def _on_page(viewer: Any, action: str) -> bool:
    """Do what has no key on the Review page; tell whether there is one."""
    from .review_panel import ReviewPanel

    pages = viewer.window._qt_window.findChildren(ReviewPanel)
    if pages:
        pages[-1].do(action)
    return bool(pages)


def _viewer() -> Any:
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        raise RuntimeError("Seg3D needs an open napari viewer.")
    return viewer
