"""kill -9 of napari in the middle of painting: which strokes the next window brings back.

Promise: of windows killed with SIGKILL at a random moment, every stroke that was completed is restored: the next window
asks "Restore N edits to case X?", and after a click on "Restore" the layer holds voxel for voxel what it held after the
last completed stroke. Each window is napari with the Seg3D dock in a process of its own, painted on with the mouse
on its canvas, now and then undone; the next one restores, goes on painting in the same journal and is killed as well.

    python benchmarks/crash.py [--kills 20] [--seed 0] [--shape 96 96 62]

It needs a screen; without one: xvfb-run -a -s '-screen 0 1920x1080x24' python benchmarks/crash.py
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from machine import describe
from review_window import ReviewWindow, made_up_study

#: Fewest and most strokes of a window before it is killed, and the longest wait from then to the kill.
STROKES, LATER_S = (3, 20), 0.4


def main() -> int:
    """Kill and restore; 1 if a completed stroke is lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shape", type=int, nargs=3, default=(96, 96, 62))
    parser.add_argument("--windows", type=Path, help=argparse.SUPPRESS)
    choices = parser.parse_args()
    if choices.windows is not None:
        open_windows(choices.windows, choices.kills + 1, choices.seed)
        return 0
    print(describe(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        study = made_up_study(Path(folder) / "study", 1, tuple(choices.shape))
        results = kill_windows(study, choices.kills, choices.seed)
    lost = sum(result.lost for result in results)
    exact = sum(result.exact for result in results)
    strokes, within = sum(result.made for result in results), sum(result.within for result in results)
    print(f"{strokes} strokes and undos in {len(results)} windows, {within} of which were killed within a stroke")
    kept = lost == 0 and exact == len(results)
    print(
        "yes" if kept else "NO ", f"restored exactly: {exact} of {len(results)} windows; completed edits lost: {lost}"
    )
    return int(not kept)


# --------------------------------------------------------------------------------------------------- who kills


@dataclass
class Window:
    """What a window told before it was killed: labels after each edit, and when."""

    restored: int = 0
    digests: dict[int, str] = field(default_factory=dict)
    when: dict[int, float] = field(default_factory=dict)
    pressed: bool = False

    def read(self, line: str) -> None:
        """Take a line of its output."""
        if not line[:1].isdigit():
            # What napari says.
            return
        _, kind, *values = line.split()
        self.pressed = kind == "press"
        if kind in ("restored", "edit"):
            number = int(values[0])
            self.restored = number if kind == "restored" else self.restored
            self.digests[number], self.when[number] = values[1], float(values[2])


@dataclass(frozen=True)
class Result:
    """Edits of a window, those of them that the next one did not bring back, and whether the labels were the same."""

    made: int
    lost: int
    exact: bool
    within: bool


def kill_windows(study: Path, kills: int, seed: int) -> list[Result]:
    """Kill one window after the other and compare each with what the next one restores."""
    command = [sys.executable, __file__, "--windows", str(study), "--kills", str(kills), "--seed", str(seed)]
    chance = random.Random(seed)
    results = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        before, killed = Window(), 0.0
        for number in range(kills + 1):
            window = Window()
            pid = wait_for(process.stdout, window, "restored", 1)
            if number:
                results.append(compare(before, window, killed))
                print(f"window {number}: {results[-1]}", flush=True)
            if number < kills:
                wait_for(process.stdout, window, "press", chance.randint(*STROKES))
                time.sleep(chance.random() * LATER_S)
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            while (line := process.stdout.readline()) != "dead\n":
                window.read(line)
            before = window
    return results


def wait_for(stream: TextIO, window: Window, kind: str, count: int) -> int:
    """Read until a window has told something so many times; return its process."""
    while count:
        line = stream.readline()
        if not line:
            raise RuntimeError("The window has ended by itself.")
        window.read(line)
        count -= line.split()[1:2] == [kind]
    return int(line.split()[0])


def compare(before: Window, after: Window, killed: float) -> Result:
    """Compare what was restored with what was completed."""
    last, back = max(before.digests), after.restored
    for number in range(back + 1, last + 1):
        print(f"edit {number} is lost: it was made {1000 * (killed - before.when[number]):.1f} ms before the kill")
    # An edit that was written and could not be told any more is there, too.
    exact = back > last or after.digests[back] == before.digests[back]
    return Result(last - before.restored, max(0, last - back), exact and back <= last + 1, before.pressed)


# -------------------------------------------------------------------------------------------------- the windows


def open_windows(study: Path, count: int, seed: int) -> None:
    """Open one window after the other, each until it is killed: napari is imported once for all of them."""
    import napari.qt  # noqa: F401

    import napari_seg3d.gui.dock  # noqa: F401

    settings = study.with_name("settings")
    settings.mkdir()
    # The user's own preferences stay as they are.
    os.environ["NAPARI_CONFIG"] = str(settings / "napari.yaml")
    os.environ["XDG_CONFIG_HOME"] = str(settings)
    for number in range(count):
        child = os.fork()
        if child == 0:
            try:
                paint_for_ever(study, seed + number)
            finally:
                os._exit(1)
        os.waitpid(child, 0)
        print("dead", flush=True)


def tell(*words: object) -> None:
    """Write a line that arrives whole, whatever happens next."""
    os.write(1, " ".join(map(str, (os.getpid(), *words))).encode() + b"\n")


def paint_for_ever(study: Path, seed: int) -> None:
    """Open napari and the case, restore what is offered, and paint."""
    from qtpy.QtCore import QEvent, Qt
    from qtpy.QtWidgets import QApplication

    from napari_seg3d.gui.restore_strip import RestoreStrip

    window = ReviewWindow()
    viewer, workspace = window.viewer, window.workspace
    [case_id] = window.open_dataset(study)
    window.wait(lambda: workspace.predictions)
    window.open_case(case_id)
    window.session.keeper.wait()
    window.settle()
    layer = next(layer for layer in viewer.layers if layer.name.startswith("prediction"))
    edits = window.session.view.edits_of(layer)
    count = 0
    questions = [strip for strip in window.dock.findChildren(RestoreStrip) if strip.isVisible()]
    if questions:
        asked = re.search(rf"Restore (\d+) edits? to case {re.escape(case_id)}\?", questions[0].text)
        assert asked is not None, questions[0].text
        count = int(asked[1])
        questions[0].restore.click()
        window.wait(lambda: edits.done)
    tell("restored", count, digest(edits.labels), time.monotonic())

    def note(_edit: object) -> None:
        nonlocal count
        count += 1
        tell("edit", count, digest(edits.labels), time.monotonic())

    edits.made.connect(note)
    button, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton

    def send(kind: QEvent.Type, at: tuple[float, float], which: Qt.MouseButton, held: Qt.MouseButton) -> None:
        window.mouse(kind, at, which, held)
        QApplication.processEvents()

    viewer.layers.selection.active = layer
    layer.visible = True
    layer.mode = "paint"
    rng = np.random.default_rng(seed)
    size = np.array([window.canvas.width(), window.canvas.height()])
    while True:
        viewer.dims.set_current_step(0, int(rng.integers(0.3 * layer.data.shape[0], 0.7 * layer.data.shape[0])))
        layer.selected_label, layer.brush_size = int(rng.integers(0, 4)), int(rng.integers(2, 9))
        at = size * rng.uniform(0.3, 0.7, 2)
        tell("press")
        send(QEvent.Type.MouseButtonPress, tuple(at), button, button)
        for _ in range(int(rng.integers(3, 12))):
            at = np.clip(at + rng.uniform(-25, 25, 2), 0.25 * size, 0.75 * size)
            send(QEvent.Type.MouseMove, tuple(at), none, button)
        send(QEvent.Type.MouseButtonRelease, tuple(at), button, none)
        if rng.random() < 0.2 and layer._undo_history:
            layer.undo()
            QApplication.processEvents()
        tell("released")


def digest(labels: np.ndarray) -> str:
    """Return the SHA-256 of labels (X, Y, Z) in C order."""
    return hashlib.sha256(np.ascontiguousarray(labels)).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
