"""Napari with the Seg3D dock: what the command line opens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import napari

from .dock import Seg3DDock
from .session import workspace_for
from .workspace import Workspace


def start(files: Sequence[Path] = (), dataset: Path | None = None, case: str | None = None) -> None:
    """Open napari and stay until its window is closed; arguments as in `show`."""
    show(files, dataset, case)
    napari.run()


def show(files: Sequence[Path] = (), dataset: Path | None = None, case: str | None = None) -> napari.Viewer:
    """Open a viewer with the Seg3D dock.

    Parameters
    ----------
    files : sequence of Path
        Images and labels that become layers.
    dataset : Path, optional
        Folder to open on the Data page.
    case : str, optional
        Its case to open; if it has only one, that one is opened.

    Raises
    ------
    FileError, GeometryError, LabelError
        If a file cannot be read.
    """
    viewer = napari.Viewer()
    # The name that napari gives the dock opened from its menu, so that the menu finds this one again.
    viewer.window.add_dock_widget(Seg3DDock(viewer), name="Seg3D (Seg3D)", area="right")
    if files:
        viewer.open([str(path) for path in files], plugin="napari-seg3d")
    if dataset is not None:
        workspace = workspace_for(viewer)
        _open_case_with(workspace, case)
        workspace.open_dataset(dataset)
    return viewer


def _open_case_with(workspace: Workspace, case: str | None) -> None:
    """Open the wanted case as soon as the next dataset is there."""

    def open_it() -> None:
        workspace.dataset_changed.disconnect(open_it)
        if workspace.dataset is None:
            return
        only = workspace.dataset.cases[0].id if len(workspace.dataset) == 1 else None
        if wanted := case or only:
            workspace.open_case(wanted)

    workspace.dataset_changed.connect(open_it)
