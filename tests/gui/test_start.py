"""What the command line opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import napari
import pytest
from qtpy.QtGui import QAction
from qtpy.QtWidgets import QMenu

from napari_seg3d.cases.phantoms import write_phantom_dataset
from napari_seg3d.errors import FileError
from napari_seg3d.events import result_of
from napari_seg3d.gui.session import session_for
from napari_seg3d.gui.start import show


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = result_of(write_phantom_dataset(tmp_path_factory.mktemp("start") / "study", 2, shape=(24, 26, 12)))
    return folder


@pytest.fixture
def shown() -> Iterator[Callable[..., napari.Viewer]]:
    """Call `show` and close what it opened."""
    viewers: list[napari.Viewer] = []

    def call(*arguments: object) -> napari.Viewer:
        viewers.append(show(*arguments))  # type: ignore[arg-type]
        return viewers[-1]

    yield call
    for viewer in viewers:
        session_for(viewer).shutdown()
        viewer.close()


def test_files_become_layers_beside_a_dataset_whose_case_opens(
    shown: Callable[..., napari.Viewer], study: Path, qtbot: object
) -> None:
    files = [study / "brain_001" / "brain_001_T2.nii.gz", study / "brain_001" / "brain_001_seg.nii.gz"]
    viewer = shown(files, study, "brain_002")
    assert [type(layer).__name__ for layer in viewer.layers] == ["Image", "Labels"]
    workspace = session_for(viewer).workspace
    # Four images and the truth come to the two files.
    qtbot.waitUntil(lambda: len(viewer.layers) == 7, timeout=20_000)  # type: ignore[attr-defined]
    assert workspace.case_id == "brain_002"
    assert workspace.dataset is not None
    assert len(workspace.dataset) == 2
    assert [widget for widget in viewer.window.dock_widgets if "Seg3D" in widget]


def test_a_file_that_is_no_image_is_an_error_in_words(tmp_path: Path, qtbot: object) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    try:
        with pytest.raises(FileError, match=r"broken\.nii\.gz"):
            show([broken])
    finally:
        viewer = napari.current_viewer()
        assert viewer is not None
        session_for(viewer).shutdown()
        viewer.close()


def test_the_menus_open_docks_too_and_share_the_session(shown: Callable[..., napari.Viewer], qtbot: object) -> None:
    viewer = shown()
    plugins, layers = _actions(viewer.window.plugins_menu), _actions(viewer.window.layers_menu)
    assert {"Seg3D (Seg3D)", "Data (Seg3D)", "Train (Seg3D)", "Predict (Seg3D)", "Review (Seg3D)"} <= set(plugins)
    plugins["Data (Seg3D)"].trigger()
    layers["Review (Seg3D)"].trigger()
    docks = viewer.window.dock_widgets
    # The dock that is there already is the menu's own: its entry hides it instead of opening a second one.
    plugins["Seg3D (Seg3D)"].trigger()
    assert len(docks) == 3
    assert {"Seg3D (Seg3D)", "Data (Seg3D)", "Review (Seg3D)"} <= set(docks)


def _actions(menu: QMenu) -> dict[str, QAction]:
    """Every entry of a menu and its sub-menus by its text."""
    found: dict[str, QAction] = {}
    for action in menu.actions():
        if action.menu() is None:
            found[action.text()] = action
        else:
            # napari fills some menus only when they are about to be seen.
            action.menu().aboutToShow.emit()
            found |= _actions(action.menu())
    return found
