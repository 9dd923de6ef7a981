"""A napari window with the Review page on a study, as the benchmarks of the window drive it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

#: Seconds after which a window that does not get there counts as broken.
PATIENCE_S = 240.0
#: Voxels of a case of BraTS.
SHAPE = (240, 240, 155)


@contextmanager
def own_preferences() -> Iterator[Path]:
    """Leave the user's preferences as they are: napari gets others, in the temporary folder that is given."""
    with TemporaryDirectory() as folder:
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "napari.yaml")
        os.environ["XDG_CONFIG_HOME"] = folder
        yield Path(folder)


def made_up_study(folder: Path, cases: int = 2, shape: tuple[int, int, int] = SHAPE) -> Path:
    """Write a study of made-up cases, and beside it, in its project folder, a prediction of each; return the folder."""
    from napari_seg3d.cases.dataset import open_dataset
    from napari_seg3d.cases.phantoms import write_phantom_dataset
    from napari_seg3d.events import result_of
    from napari_seg3d.volumes.files import read_label_map, write_label_map

    result_of(write_phantom_dataset(folder, cases, shape=shape))
    for case in open_dataset(folder).cases:
        if case.truth is not None:
            path = folder.with_name(f"{folder.name}-seg3d") / "predictions" / "run" / f"{case.id}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_label_map(path, read_label_map(case.truth))
    return folder


class ReviewWindow:
    """The window; a case is shown by `open_case`."""

    def __init__(self) -> None:
        import napari

        from napari_seg3d.gui.dock import Seg3DDock
        from napari_seg3d.gui.session import session_for

        self.viewer = napari.Viewer(show=True)
        self.dock = Seg3DDock(self.viewer)
        self.viewer.window.add_dock_widget(self.dock, area="right", name="Seg3D")
        self.dock.show_page("Review")
        self.session = session_for(self.viewer)
        self.workspace = self.session.workspace
        #: Cases that were shown, the newest last.
        self.shown: list[str] = []
        self.session.view.shown.connect(lambda: self.shown.append(str(self.workspace.case_id)))

    def wait(self, condition: Callable[[], object]) -> None:
        """Let the window live until something is so."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("The window did not get there.")
            QApplication.processEvents()
            time.sleep(0.001)

    def settle(self) -> None:
        """Wait until nothing is loaded or compared in the background."""
        quick = self.workspace.quick
        self.wait(lambda: quick.current is None and not quick.queue)

    def open_dataset(self, study: Path) -> list[str]:
        """Open a study and return the ids of its cases."""
        self.workspace.open_dataset(study)
        self.wait(lambda: self.workspace.dataset is not None)
        return [case.id for case in self.workspace.dataset.cases]

    def open_case(self, case_id: str) -> None:
        """Open a case and wait until all its layers are there."""
        before = len(self.shown)
        self.workspace.open_case(case_id)
        self.wait(lambda: len(self.shown) > before and self.shown[-1] == case_id)

    def mouse(self, kind: Any, at: Any, which: Any, held: Any) -> None:
        """Send the canvas an event of the mouse (`QEvent.Type`) at x, y in pixels, with the button it is about."""
        from qtpy.QtCore import QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        canvas = self.canvas
        place = QPointF(*at)
        where = QPointF(canvas.mapToGlobal(place.toPoint()))
        QApplication.sendEvent(canvas, QMouseEvent(kind, place, where, which, held, Qt.KeyboardModifier.NoModifier))

    @property
    def canvas(self) -> Any:
        """The widget that the mouse paints on."""
        return self.viewer.window._qt_viewer.canvas.native

    def close(self) -> None:
        """End what runs and close the window."""
        self.session.shutdown()
        self.viewer.close()
