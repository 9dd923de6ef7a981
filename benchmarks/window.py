"""The window while training runs: idle, with training in the worker's thread, and in the child process it owns.

Promise, for the default runner (the child process) on two cores: untouched, the gaps of a 10 ms timer are at most
30 ms (99th percentile) and 150 ms (worst); dragging the slice slider through 240 × 240 × 155 voxels, the 95th
percentile from slice to picture is at most 1.3 times that of the idle window; while painting, the worst step from brush
to picture takes at most 120 ms.

All three states are measured in one process, one after the other, several rounds; the real slider is moved and the
real canvas gets the mouse. The steps per second of the training stand beside, for a window can always be kept smooth by
not training.

    python benchmarks/window.py [--rounds 2] [--cores 2]

It needs a screen; without one: xvfb-run -a -s '-screen 0 1920x1080x24' python benchmarks/window.py
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import describe, use_cores

SHAPE = (240, 240, 155)
GAP_P99_MS, GAP_WORST_MS, DRAG_RATIO, PAINT_WORST_MS = 30.0, 150.0, 1.3, 120.0
UNTOUCHED_S = 10.0
FRAME_MS = 16


def main() -> int:
    """Measure and print the table; 1 if the default runner breaks a promise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cores", type=int, default=2)
    choices = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        use_cores(choices.cores)
        # The number of threads is the product's own choice here.
        os.environ.pop("OMP_NUM_THREADS", None)
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        window = Window()
        training = Training(Path(folder))
        figures: dict[str, Figures] = defaultdict(Figures)
        for _ in range(choices.rounds):
            for state in ("idle", "thread", "process"):
                if state != "idle":
                    training.start(state)
                window.measure(figures[state])
                if state != "idle":
                    figures[state].steps_per_s.append(training.stop())
        training.runner.shutdown()
        window.viewer.close()
    print_table(figures)
    kept = promises(figures["process"], figures["idle"])
    for what, holds in kept.items():
        print("yes" if holds else "NO ", what)
    return int(not all(kept.values()))


class Figures:
    """What was measured in one state, in milliseconds; and training steps per second."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self.drags: list[float] = []
        self.strokes: list[float] = []
        self.steps_per_s: list[float] = []


def percentile(values: list[float], percent: float) -> float:
    """Percentile of a list, by nearest rank from above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Window:
    """A napari window with a large image and a label layer, and the Seg3D dock."""

    def __init__(self) -> None:
        import napari
        import numpy as np
        from qtpy.QtWidgets import QApplication

        from napari_seg3d.gui.layers import image_layer, prediction_layer
        from napari_seg3d.gui.plugin import seg3d_dock
        from napari_seg3d.volumes.geometry import Geometry
        from napari_seg3d.volumes.volume import LabelMap, LabelTable, Volume

        rng = np.random.default_rng(0)
        geometry = Geometry.with_spacing(SHAPE)
        table = LabelTable.from_names({1: "one", 2: "two"})
        self.viewer = napari.Viewer(show=True)
        self.viewer.window.resize(1600, 1000)
        self.viewer.window.add_dock_widget(seg3d_dock(self.viewer), name="Seg3D", area="right")
        self.viewer.add_layer(image_layer(Volume(rng.random(SHAPE, dtype=np.float32), geometry, "image")))
        labels = LabelMap(np.zeros(SHAPE, np.uint8), geometry, table)
        self.labels = prediction_layer(labels, name="labels")
        self.viewer.add_layer(self.labels)
        self.labels.brush_size = 12
        self.app = QApplication.instance()
        self.canvas = self.viewer.window._qt_viewer.canvas.native
        # The first slices compile shaders and fill caches.
        self.drag([])
        self.wait(lambda: False, 1.0)

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Let the window live until something is done, at most some seconds."""
        from qtpy.QtCore import QEventLoop, QTimer

        loop, end = QEventLoop(), time.perf_counter() + seconds
        timer = QTimer()
        timer.timeout.connect(lambda: loop.quit() if done() or time.perf_counter() > end else None)
        timer.start(5)
        loop.exec_() if hasattr(loop, "exec_") else loop.exec()
        return done()

    def measure(self, figures: Figures) -> None:
        """Leave the window alone, drag, paint."""
        self.leave_alone(figures.gaps)
        self.drag(figures.drags)
        self.paint(figures.strokes)

    def leave_alone(self, gaps: list[float]) -> None:
        """Gaps between the ticks of a 10 ms timer."""
        from qtpy.QtCore import Qt, QTimer

        ticks: list[float] = []
        timer = QTimer()
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
        timer.start(10)
        self.wait(lambda: False, UNTOUCHED_S)
        timer.stop()
        gaps += [1000 * (after - before) for before, after in itertools.pairwise(ticks)]

    def until_pictures(self, actions: list[Callable[[], Any]], times: list[float]) -> None:
        """Do one thing after the other, and time each until the canvas has shown its next picture."""
        from qtpy.QtCore import QTimer

        waiting = list(actions)
        begun: list[float] = []

        def act() -> None:
            begun.append(time.perf_counter())
            waiting.pop(0)()

        def shown() -> None:
            if begun:
                times.append(1000 * (time.perf_counter() - begun.pop()))
                if waiting:
                    QTimer.singleShot(FRAME_MS, act)

        self.canvas.frameSwapped.connect(shown)
        act()
        if not self.wait(lambda: not waiting and not begun, 120):
            raise TimeoutError(f"No picture came after {len(actions) - len(waiting)} of {len(actions)} actions.")
        self.canvas.frameSwapped.disconnect(shown)

    def drag(self, times: list[float]) -> None:
        """Move the slice slider through the volume."""
        slider = self.viewer.window._qt_viewer.dims.slider_widgets[0].slider
        slider.setValue(slider.minimum())
        self.wait(lambda: False, 0.3)
        places = range(slider.minimum() + 1, slider.maximum() + 1)
        self.until_pictures([lambda place=place: slider.setValue(place) for place in places], times)

    def paint(self, times: list[float]) -> None:
        """Draw strokes with the mouse on a middle slice."""
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent

        self.viewer.dims.set_current_step(0, SHAPE[2] // 2)
        self.viewer.layers.selection.active = self.labels
        self.labels.mode = "paint"
        self.wait(lambda: False, 0.3)
        button, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        width, height = self.canvas.width(), self.canvas.height()

        def send(kind: QEvent.Type, at: QPointF, which: Qt.MouseButton, held: Qt.MouseButton) -> None:
            where = QPointF(self.canvas.mapToGlobal(at.toPoint()))
            event = QMouseEvent(kind, at, where, which, held, Qt.KeyboardModifier.NoModifier)
            self.app.sendEvent(self.canvas, event)

        for stroke in range(4):
            y = height * (0.35 + 0.08 * stroke)
            points = [QPointF(width * (0.35 + 0.3 * i / 40), y) for i in range(40)]
            before = int((self.labels.data != 0).sum())
            self.labels.selected_label = 1 + stroke % 2
            send(QEvent.Type.MouseButtonPress, points[0], button, button)
            moves = [lambda at=at: send(QEvent.Type.MouseMove, at, none, button) for at in points[1:]]
            self.until_pictures(moves, times)
            send(QEvent.Type.MouseButtonRelease, points[-1], button, none)
            if int((self.labels.data != 0).sum()) <= before:
                raise RuntimeError("The mouse painted nothing: the benchmark does not measure what it says.")
        while self.labels._undo_history:
            self.labels.undo()
        self.wait(lambda: False, 0.5)


class Training:
    """A real training on made-up studies, through the window's own worker."""

    def __init__(self, folder: Path) -> None:
        from napari_seg3d import make_plan, open_dataset, result_of
        from napari_seg3d.cases.phantoms import write_phantom_dataset
        from napari_seg3d.gui.worker import JobRunner

        result_of(write_phantom_dataset(folder / "study", 3))
        self.folder = folder
        self.cases = open_dataset(folder / "study").labelled
        self.plan = make_plan(open_dataset(folder / "study"), epochs=10_000, device="cpu")
        self.runner = JobRunner()
        self.runner.reported.connect(self._take)
        self.runner.ended.connect(lambda _, how: self._ended.append(how))
        self._ended: list[str] = []
        self._steps: list[tuple[float, int]] = []
        self._trouble = ""
        self._count = 0

    def _take(self, _: object, event: Any) -> None:
        from napari_seg3d.events import Failed, Step

        if isinstance(event, Step):
            self._steps.append((time.perf_counter(), event.step))
        if isinstance(event, Failed):
            self._trouble = event.message

    def start(self, runner: str) -> None:
        """Start, and wait until the network learns."""
        from napari_seg3d.gui.worker import Job

        self._count += 1
        self._steps, self._ended = [], []
        kwargs = {"plan": self.plan, "cases": self.cases, "output": self.folder / f"run{self._count}", "device": "cpu"}
        self.runner.start(Job("Training", "napari_seg3d.training.loop:train", kwargs, runner, "train"))
        self._wait(lambda: len(self._steps) > 3, 180)
        self._steps = self._steps[-1:]

    def stop(self) -> float:
        """Stop and return the steps per second since it had started."""
        (begin, first), (end, last) = self._steps[0], self._steps[-1]
        self.runner.stop()
        self._wait(lambda: bool(self._ended), 60)
        return (last - first) / (end - begin) if last > first else 0.0

    def _wait(self, done: Callable[[], bool], seconds: float) -> None:
        from qtpy.QtWidgets import QApplication

        end = time.perf_counter() + seconds
        while not done():
            QApplication.processEvents()
            time.sleep(0.005)
            if self._trouble or time.perf_counter() > end:
                raise RuntimeError(self._trouble or "The training did not answer in time.")


def print_table(figures: dict[str, Figures]) -> None:
    """One row a state."""
    print(f"{'':22}{'untouched: gap ms':>22}{'slice to picture ms':>24}{'brush to picture ms':>24}{'steps/s':>10}")
    print(f"{'':22}{'p99':>12}{'worst':>10}{'median':>14}{'p95':>10}{'p95':>14}{'worst':>10}")
    names = {"idle": "idle", "thread": "training in the thread", "process": "training in the child"}
    for state, name in names.items():
        f = figures[state]
        speed = f"{sum(f.steps_per_s) / len(f.steps_per_s):.2f}" if f.steps_per_s else ""
        print(
            f"{name:22}{percentile(f.gaps, 99):12.1f}{max(f.gaps):10.1f}{percentile(f.drags, 50):14.1f}"
            f"{percentile(f.drags, 95):10.1f}{percentile(f.strokes, 95):14.1f}{max(f.strokes):10.1f}{speed:>10}"
        )


def promises(busy: Figures, idle: Figures) -> dict[str, bool]:
    """What was promised, with the figures, and whether it holds."""
    gap, worst, stroke = percentile(busy.gaps, 99), max(busy.gaps), max(busy.strokes)
    ratio = percentile(busy.drags, 95) / percentile(idle.drags, 95)
    return {
        f"untouched, gaps p99 {gap:.1f} ms (promise {GAP_P99_MS:.0f})": gap <= GAP_P99_MS,
        f"untouched, worst gap {worst:.1f} ms (promise {GAP_WORST_MS:.0f})": worst <= GAP_WORST_MS,
        f"dragging, {ratio:.2f} times idle (promise {DRAG_RATIO})": ratio <= DRAG_RATIO,
        f"painting, worst step {stroke:.1f} ms (promise {PAINT_WORST_MS:.0f})": stroke <= PAINT_WORST_MS,
    }


if __name__ == "__main__":
    sys.exit(main())
