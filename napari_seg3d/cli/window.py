"""From the command line to the window: what must be there first, said in words, and then napari.

The two doors of the house do not import each other, and a command that needs no window must not need Qt. So the window
is found by its name, when it is wanted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from ..errors import FileError, Seg3dError

_BINDINGS = ("PyQt6", "PySide6", "PyQt5")


def open_window(paths: Sequence[Path] = (), dataset: Path | None = None, case: str | None = None) -> None:
    """Open napari with the Seg3D dock and stay until its window is closed.

    Parameters
    ----------
    paths : sequence of Path
        Image files become layers; a folder is opened as the dataset.
    dataset : Path, optional
        Shown on the Data page.
    case : str, optional
        Case of the dataset to open.

    Raises
    ------
    FileError
        If a path does not exist.
    Seg3dError
        If there is no Qt binding or no display.
    """
    for path in (*paths, *([] if dataset is None else [dataset])):
        if not path.exists():
            raise FileError(f"There is no file or folder {path}.")
    folders = [path for path in paths if path.is_dir()]
    if len(folders) > 1 or (folders and dataset is not None):
        raise FileError("napari shows one dataset at a time. Name one folder.")
    require_binding()
    if not has_display():
        raise Seg3dError(
            "There is no display to open a window on. Use the commands without a window (napari-seg3d --help), or a "
            "virtual display such as xvfb-run."
        )
    start = import_module("napari_seg3d.gui.start").start
    files = [path for path in paths if not path.is_dir()]
    start(files, folders[0] if folders else dataset, case)


def require_binding() -> None:
    """Raise a `Seg3dError` that says what to install if there is no Qt binding."""
    if not any(find_spec(name) for name in _BINDINGS):
        raise Seg3dError(
            'napari needs a Qt binding, and none is installed. Install one: pip install "napari-seg3d[pyqt6]" '
            "(or pyside6, or pyqt5)."
        )


def has_display() -> bool:
    """Whether a window can be shown; on Linux that needs X11 or Wayland."""
    if not sys.platform.startswith("linux"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"))


def take_screenshots(study: Path, case: str, folder: Path) -> dict[str, Path]:
    """Take pictures of the window on a dataset with runs and predictions.

    Parameters
    ----------
    study : Path
        The dataset; its project folder lies beside it.
    case : str
        The case to show.
    folder : Path
        Where the PNG files go.

    Returns
    -------
    dict of str to Path
        Title -> file.

    Raises
    ------
    Seg3dError
        If the window cannot be drawn here.
    """
    require_binding()
    pictures: dict[str, Path] = import_module("napari_seg3d.gui.demo").screenshots(study, case, folder)
    return pictures
