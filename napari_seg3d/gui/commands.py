"""What napari's command palette can do: for every action of `keys.KEYS` a function of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def show_keys() -> None:
    """Show the keys of Seg3D."""
    from .session import session_for

    session_for(_viewer()).view.show_keys()


def __getattr__(name: str) -> Callable[[], None]:
    from .keys import KEYS

    if name not in KEYS:
        raise AttributeError(name)

    def command() -> None:
        _perform(name)

    return command


def _perform(action: str) -> None:
    from napari.utils.notifications import show_info

    from .keys import KEYS, perform
    from .session import session_for

    viewer = _viewer()
    # Makes the view of the case, which has keys of its own.
    session_for(viewer)
    if not perform(viewer, action):
        show_info(f"{KEYS[action].what}: open the Review page of Seg3D first.")


def _viewer() -> Any:
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        raise RuntimeError("Seg3D needs an open napari viewer.")
    return viewer
