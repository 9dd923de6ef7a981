"""From a stroke of the brush to picture, scores and difference in the window.

Promise: within 50 ms (95th percentile) of the end of a stroke on 240 x 240 x 155 voxels of uint8 with 4 labels the
canvas, the table of scores and the difference layer show it. The mouse paints on the canvas of a napari window with the
Review page open and the difference shown. The processor time of the window's own thread, which other work on the
machine does not change, stands beside the time by the clock, and so does what each move of the mouse takes.

    python benchmarks/stroke.py [--strokes 60]

It needs a screen; without one: xvfb-run -a -s '-screen 0 1920x1080x24' python benchmarks/stroke.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe
from switch import PATIENCE_S, made_up_study

STROKE_MS = 50.0


def main() -> int:
    """Measure; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strokes", type=int, default=60)
    parser.add_argument("--study", type=Path, help="folder of the made-up study (default: a temporary one)")
    choices = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        # The user's own preferences stay as they are.
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "napari.yaml")
        os.environ["XDG_CONFIG_HOME"] = folder
        study = choices.study or Path(folder) / "study"
        ends, moves = measure(study if study.is_dir() else made_up_study(study), choices.strokes)
    for what, times in (("end of a stroke", ends), ("move of the mouse", moves)):
        work, wall = 1000 * np.array(times).T
        middle, high = (np.percentile(work, p) for p in (50, 95))
        clock = ", ".join(f"{np.percentile(wall, p):.1f}" for p in (50, 95, 100))
        print(f"{what}: median {middle:.1f}, p95 {high:.1f} ms of work; by the clock median, p95, worst {clock} ms")
    p95 = 1000 * float(np.percentile(np.array(ends)[:, 0], 95))
    print("yes" if p95 <= STROKE_MS else "NO ", f"picture, scores and difference within {STROKE_MS:.0f} ms of work")
    return int(p95 > STROKE_MS)


def measure(study: Path, strokes: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Paint; return processor time and time in seconds of each stroke's end and of each move of the mouse."""
    import napari
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    from napari_seg3d.gui.dock import Seg3DDock
    from napari_seg3d.gui.review_panel import ReviewPanel
    from napari_seg3d.gui.session import session_for

    viewer = napari.Viewer(show=True)
    dock = Seg3DDock(viewer)
    viewer.window.add_dock_widget(dock, area="right", name="Seg3D")
    dock.show_page("Review")
    session = session_for(viewer)
    workspace = session.workspace

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("The window did not get there.")
            QApplication.processEvents()
            time.sleep(0.001)

    def settle() -> None:
        wait(lambda: workspace.quick.current is None and not workspace.quick.queue)

    workspace.open_dataset(study)
    wait(lambda: workspace.dataset is not None)
    shown: list[bool] = []
    session.view.shown.connect(lambda: shown.append(True))
    workspace.open_case(workspace.dataset.cases[0].id)
    wait(lambda: shown)
    settle()
    panel = dock.findChild(ReviewPanel)
    wait(lambda: panel._comparison is not None)
    panel.show_difference(True)
    wait(lambda: "difference" in viewer.layers)
    layer = panel.predicted_layer
    viewer.layers.selection.active = layer
    layer.visible = True
    layer.mode = "paint"
    layer.brush_size = 8
    canvas = viewer.window._qt_viewer.canvas.native
    button, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    drawn: list[bool] = []
    viewer.window._qt_viewer.canvas._scene_canvas.events.draw.connect(lambda _: drawn.append(True), position="last")

    def send(kind: QEvent.Type, at: np.ndarray, which: Qt.MouseButton, held: Qt.MouseButton) -> tuple[float, float]:
        place = QPointF(*at)
        where = QPointF(canvas.mapToGlobal(place.toPoint()))
        event = QMouseEvent(kind, place, where, which, held, Qt.KeyboardModifier.NoModifier)
        drawn.clear()
        begun, work = time.perf_counter(), time.thread_time()
        QApplication.sendEvent(canvas, event)
        while not drawn and time.perf_counter() - begun < 1:
            QApplication.processEvents()
        # What a drawing has announced in the pages is drawn, too.
        QApplication.processEvents()
        return time.thread_time() - work, time.perf_counter() - begun

    edits = session.view.edits_of(layer)
    made: list[object] = []
    edits.made.connect(made.append)
    rng = np.random.default_rng(0)
    size = np.array([canvas.width(), canvas.height()])
    ends, moves = [], []
    for number in range(strokes):
        layer.selected_label = 1 + number % 4
        at = size * rng.uniform(0.35, 0.65, 2)
        send(QEvent.Type.MouseButtonPress, at, button, button)
        for _ in range(8):
            at = np.clip(at + rng.uniform(-25, 25, 2), 0.3 * size, 0.7 * size)
            moves.append(send(QEvent.Type.MouseMove, at, none, button))
        count, before = len(made), panel._comparison
        took = send(QEvent.Type.MouseButtonRelease, at, button, none)
        if len(made) > count:
            if panel._comparison is before:
                raise RuntimeError("The scores did not follow: the benchmark does not measure what it says.")
            ends.append(took)
        pause = time.monotonic() + 0.1
        wait(lambda pause=pause: time.monotonic() > pause)
        settle()
    session.shutdown()
    viewer.close()
    return ends, moves


if __name__ == "__main__":
    sys.exit(main())
