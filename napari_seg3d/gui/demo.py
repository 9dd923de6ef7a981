"""Pictures of the window on a finished study: for the report of the demonstration and for the documentation.

They are taken in a child process, on the display that is there or on a virtual one of its own, and with napari's
default preferences, so that a picture looks the same for everybody and nobody's preferences change.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..errors import FileError, Seg3dError

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from .dock import Seg3DDock
    from .workspace import Workspace

#: Size of the window in pixels.
SIZE = (1500, 950)
#: Seconds that one thing may take to appear, and the child process to take all pictures, without the lesson of one.
PATIENCE_S, ALL_S = 60.0, 240.0
#: Seconds that the lesson of the picture "learn" may take.
LESSON_S = 240.0


def screenshots(study: Path, case_id: str, output: Path, wanted: Sequence[str] = ()) -> dict[str, Path]:
    """Take pictures of the window on a study that was trained on and predicted.

    Parameters
    ----------
    study : Path
        Dataset folder; its project folder lies beside it.
    case_id : str
        Case to open: one with a truth and a prediction.
    output : Path
        Folder for the PNG files; made if needed.
    wanted : sequence of str
        Names out of `PICTURES`; by default those of the pages.

    Returns
    -------
    dict of str to Path
        Title -> PNG file.

    Raises
    ------
    Seg3dError
        If there is neither a display nor Xvfb, or the window does not come up.
    """
    wanted = list(wanted or PAGES)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"The folder {output} cannot be made: {error.strerror or error}.") from None
    request = json.dumps({"study": str(study), "case": case_id, "output": str(output), "wanted": wanted})
    limit_s = ALL_S + LESSON_S * ("learn" in wanted)
    with tempfile.TemporaryDirectory(prefix="seg3d-screenshots-") as home, _display() as display:
        environment = {**os.environ, **display, "NAPARI_CONFIG": str(Path(home) / "napari.yaml")}
        try:
            done = subprocess.run(
                [sys.executable, "-m", "napari_seg3d.gui.demo"],
                input=request, capture_output=True, text=True, env=environment, timeout=limit_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Seg3dError(f"The window did not show its pages within {limit_s:.0f} s.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise Seg3dError(f"The window could not be shown: {last}")
    return {PICTURES[name].title: output / f"{name}.png" for name in wanted}


@contextmanager
def _display() -> Iterator[dict[str, str]]:
    """Give the environment of a display: the user's, or that of a virtual screen which ends with this context."""
    if not sys.platform.startswith("linux") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        yield {}
        return
    xvfb = shutil.which("Xvfb")
    if xvfb is None:
        raise Seg3dError("There is no display, and Xvfb, which could stand in for one, is not installed.")
    read, write = os.pipe()
    server = subprocess.Popen(  # noqa: S603  # a program of the system, no word of it from a user
        [xvfb, "-displayfd", str(write), "-screen", "0", "1920x1200x24", "-nolisten", "tcp"],
        pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    try:
        with os.fdopen(read) as numbers:
            # The server writes the number of a free display when it is ready, or closes its end when it fails.
            number = numbers.readline().strip()
        if not number:
            raise Seg3dError("There is no display, and Xvfb, which could stand in for one, did not start.")
        # Qt without a screen cannot draw napari's canvas.
        yield {"DISPLAY": f":{number}", "QT_QPA_PLATFORM": "xcb"}
    finally:
        server.terminate()
        server.wait(10)


class Tour:
    """A viewer with the dock on a study, led from page to page.

    Parameters
    ----------
    study : Path
    case_id : str
    """

    def __init__(self, study: Path, case_id: str) -> None:
        import napari
        from napari.settings import get_settings

        from .dock import Seg3DDock
        from .session import session_for

        # Notes that fade after some seconds would be in some pictures and not in others.
        get_settings().application.gui_notification_level = "error"
        self.viewer = napari.Viewer(show=True)
        self._session = session_for(self.viewer)
        self.workspace: Workspace = self._session.workspace
        self._problem = ""
        self.workspace.message.connect(self._hear)
        self._shown = False
        self._session.view.shown.connect(self._case_shown)
        self.dock: Seg3DDock = Seg3DDock(self.viewer)
        self.viewer.window.add_dock_widget(self.dock, name="Seg3D", area="right")
        self.viewer.window._qt_window.resize(*SIZE)
        self.workspace.open_dataset(study)
        self.wait_for(lambda: self.workspace.dataset is not None, "the dataset")
        self.workspace.open_case(case_id)
        self.wait_for(lambda: self._shown, "the case")
        self.wait_for(lambda: not self._session.workspace.quick.queue, "the scores")

    def _hear(self, level: str, text: str, _details: str) -> None:
        if level == "error":
            self._problem = text

    def _case_shown(self) -> None:
        self._shown = True

    def wait_for(self, condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Let the window live until something is so; raises `Seg3dError` if it takes too long or an error is shown."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + patience_s
        while not condition():
            if self._problem:
                raise Seg3dError(self._problem)
            if time.monotonic() > end:
                raise Seg3dError(f"{what} did not appear within {patience_s:.0f} s.")
            QApplication.processEvents()
            time.sleep(0.01)

    def check_cases(self, count: int) -> None:
        """Save the truths of the first cases and of the last one as corrections, as if somebody had checked them."""
        from ..cases.corrections import save_correction
        from ..correction.queue import State

        dataset = self.workspace.dataset
        labelled = () if dataset is None else dataset.labelled
        # The demonstration keeps the last one from the model: by it the lesson is judged.
        for files in {files.id: files for files in (*labelled[:count], *labelled[-1:])}.values():
            truth = files.load().truth
            if truth is not None:
                save_correction(self.workspace.corrections_folder, files.id, truth, author="demo", seconds=90.0)
                self._session.queue.set(files.id, State.CHECKED)
        self.workspace.refresh_results()

    @staticmethod
    def show(part: QWidget) -> None:
        """Scroll a part of a page into view."""
        from qtpy.QtWidgets import QApplication, QScrollArea

        QApplication.processEvents()
        above = part.parentWidget()
        while above is not None and not isinstance(above, QScrollArea):
            above = above.parentWidget()
        if above is not None:
            above.ensureWidgetVisible(part, 0, 0)
            bar = above.verticalScrollBar()
            # From its top, as far as it goes.
            bar.setValue(min(bar.maximum(), part.mapTo(above.widget(), part.rect().topLeft()).y()))

    def settle(self) -> None:
        """Let everything be drawn that waits to be."""
        end = time.monotonic() + 0.7
        self.wait_for(lambda: time.monotonic() > end, "the picture")

    def show_views(self, mode: str) -> None:
        """Show further views below the canvas."""
        self._session.linked_views.open(mode)
        views = self._session.linked_views.views
        self.wait_for(lambda: views is None or not views.is_behind, "the views")

    def hide_views(self) -> None:
        """Show the canvas alone."""
        self._session.linked_views.close()

    def save(self, path: Path) -> None:
        """Write a picture of the whole window."""
        self.settle()
        if not self.viewer.window._qt_window.grab().save(str(path)):
            raise FileError(f"The picture {path} cannot be written.")

    def close(self) -> None:
        """End what runs and close the viewer."""
        self._session.shutdown()
        self.viewer.close()


def _data(tour: Tour) -> None:
    """The Data page: the cases, what each has and how good its prediction is; the open case with its truth."""
    for layer in tour.viewer.layers:
        layer.visible = "prediction" not in layer.name
    tour.dock.show_page("Data")


def _train(tour: Tour) -> None:
    """The Train page: the plan before it starts, and the curves of the run that was trained."""
    page: Any = tour.dock.show_page("Train")
    tour.wait_for(lambda: page.plan_is_ready, "the plan")


def _plan(tour: Tour) -> None:
    """The plan in plain lines, with the reason for each."""
    _train(tour)
    page: Any = tour.dock.page("Train")
    page.unfold_plan()


def _predict(tour: Tour) -> None:
    """The Predict page: what the model expects, whether the case fits, what was predicted; the prediction is shown."""
    for layer in tour.viewer.layers:
        layer.visible = layer.visible or "prediction" in layer.name
        if layer.name == "truth":
            layer.visible = False
    tour.dock.show_page("Predict")


def _review(tour: Tour) -> None:
    """The Review page: scores, where prediction and truth disagree, and the difference as a layer."""
    page: Any = tour.dock.show_page("Review")
    page.show_difference(True)
    tour.wait_for(lambda: "difference" in tour.viewer.layers, "the difference layer")
    for layer in tour.viewer.layers:
        if layer.name == "truth" or "prediction" in layer.name:
            layer.visible = False


# The correction bench: in this order, for each goes on from where the one before has left the window.


def _step(tour: Tour) -> None:
    """Stepping through disagreements: the largest one outlined, with the keys that decide it."""
    page: Any = tour.dock.show_page("Review")
    page.show_difference(False)
    for layer in tour.viewer.layers:
        layer.visible = layer.visible or "prediction" in layer.name
    if not page.looks.contours.isChecked():
        page.looks.contours.toggle()
    # The list of places comes when the two maps have been compared.
    tour.settle()
    page.steps.step(1)


def _tools(tour: Tour) -> None:
    """A tool's preview: the parts of the active label that would go, before they do."""
    page: Any = tour.dock.show_page("Review")
    tour.viewer.layers.selection.active = page.predicted_layer
    page.tools.set_open(True)
    page.tools.use("largest")
    tour.wait_for(lambda: "preview" in tour.viewer.layers, "the preview")
    tour.show(page.tools)


def _queue(tour: Tour) -> None:
    """The review list: the state of the case, marked slices, and the next one."""
    page: Any = tour.dock.show_page("Review")
    page.tools.cancel()
    page.tools.set_open(False)
    page.queue.check_slice()
    tour.show(page.queue)


def _learn(tour: Tour) -> None:
    """Learning from corrections: a lesson from checked cases, with its verdict."""
    page: Any = tour.dock.show_page("Review")
    tour.check_cases(6)
    section = page.learning
    section.set_open(True)
    section.predict_after.setChecked(False)
    section.minutes.setValue(0.4)
    tour.wait_for(section.button.isEnabled, "the checked cases")
    section.learn()
    tour.wait_for(section.verdict.isVisible, "the verdict", patience_s=LESSON_S)
    page.messages.clear()
    tour.show(section)


def _planes(tour: Tour) -> None:
    """The other two planes below the canvas, standing at the place that is stepped to."""
    page: Any = tour.dock.show_page("Review")
    page.learning.set_open(False)
    page.steps.step(1)
    tour.show(page.looks)
    tour.show_views("planes")


def _images(tour: Tour) -> None:
    """The other images of the case below the canvas, in the same slice."""
    tour.show_views("images")


def _raters(tour: Tour) -> None:
    """Two raters: what only one of them has, and how far they agree."""
    from .layers import origin_of, prediction_layer, snapshot

    page: Any = tour.dock.show_page("Review")
    tour.hide_views()
    first, second = page.predicted_layer, page.truth_layer
    first.name = "anna"
    layer = prediction_layer(snapshot(second), name="ben", case_id=origin_of(second).case_id)
    layer.contour = 1
    tour.viewer.add_layer(layer)
    page.compare_with(layer)
    tour.wait_for(lambda: page.raters.words.text() != "", "the agreement")
    second.visible = False
    page.steps.step(1)
    tour.show(page.looks)


class Picture:
    """One picture: its title, and how the window gets there."""

    def __init__(self, title: str, lead: Callable[[Tour], None]) -> None:
        self.title = title
        self.lead = lead


#: File name without its ending -> the picture.
PICTURES: Mapping[str, Picture] = MappingProxyType(
    {
        "data": Picture("The Data page", _data),
        "train": Picture("The Train page", _train),
        "plan": Picture("A plan before it is trained", _plan),
        "predict": Picture("The Predict page", _predict),
        "review": Picture("The Review page", _review),
        "step": Picture("Stepping through disagreements", _step),
        "tools": Picture("The preview of a tool", _tools),
        "queue": Picture("The review list", _queue),
        "learn": Picture("Learning from corrections", _learn),
        "planes": Picture("The other planes beside the canvas", _planes),
        "images": Picture("The other images beside the canvas", _images),
        "raters": Picture("Two raters", _raters),
    }
)
#: Those of the pages, which the demonstration takes.
PAGES = ("data", "train", "plan", "predict", "review")


def main() -> None:
    """Take the pictures that standard input asks for; what is wrong goes to standard error as one line."""
    request = json.loads(sys.stdin.read())
    try:
        tour = Tour(Path(request["study"]), request["case"])
        try:
            for name in request["wanted"]:
                PICTURES[name].lead(tour)
                tour.save(Path(request["output"]) / f"{name}.png")
        finally:
            tour.close()
    except Seg3dError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
