"""kill -9 while somebody paints on a napari layer: which strokes come back.

Promises: of processes killed with SIGKILL at a random moment of painting, undoing and redoing, every edit that was
written is restored, voxel for voxel, and at most those of the last half second were not; a stroke on 240 x 240 x 155
voxels pays 5 ms of processor time at most for it (99th percentile), which other work on the machine does not change.

    python benchmarks/journal_window.py [--kills 20] [--strokes 200] [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from napari.layers import Labels

from napari_seg3d.correction.journal import Journal, pending, restore
from napari_seg3d.gui.edits import LayerEdits
from napari_seg3d.gui.kept import Kept, begin
from napari_seg3d.gui.layers import prediction_layer
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap

SMALL, BRATS = (40, 36, 20), (240, 240, 155)
STROKE_MS = 5.0


def main() -> int:
    """Kill and restore, then time strokes; 1 if a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--strokes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    choices = parser.parse_args()
    if choices.child is not None:
        paint_and_die(choices.child, choices.kills, choices.seed)
        return 0
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        edits, unwritten = kill_painters(Path(folder), choices.kills, choices.seed)
    print(
        f"{choices.kills} painters killed after {min(edits, default=0)} to {max(edits, default=0)} edits: all written "
        f"ones came back, voxel for voxel; at most {max(unwritten, default=0)} of the last were not written yet"
    )
    if choices.strokes:
        with tempfile.TemporaryDirectory() as folder:
            work, wall = np.percentile(time_strokes(Path(folder), choices.strokes), 99, axis=0).tolist()
        failed = work > STROKE_MS
        print(f"a stroke pays {work:.2f} ms of work, {wall:.2f} ms of time for its journal (99th percentile)")
    return int(failed)


def painted(folder: Path, shape: tuple[int, int, int]) -> tuple[Labels, LayerEdits, Kept, Journal]:
    """Return an empty layer whose edits are kept in a folder."""
    content = LabelMap(np.zeros(shape, np.uint8), Geometry(shape, np.diag((1.0, 1.0, 2.0, 1.0))))
    layer = prediction_layer(content, case_id="case")
    edits = LayerEdits(layer)
    kept = Kept("case", content)
    journal, _ = begin(folder, "case", content)
    kept.go_on_with(journal)
    return layer, edits, kept, journal


def stroke(layer: Labels, rng: np.random.Generator) -> None:
    """Drag the brush through some voxels, as one step to undo."""
    layer.brush_size = int(rng.integers(1, 9))
    place, label = rng.integers((0, 0, 0), layer.data.shape), int(rng.integers(0, 4))
    with layer.block_history():
        for _ in range(4):
            layer.paint(tuple(place), label)
            place = np.clip(place + rng.integers(-3, 4, 3), 0, np.array(layer.data.shape) - 1)


def paint_and_die(folder: Path, kills: int, seed: int) -> None:
    """Paint in one process after the other, each until it is killed: napari is imported once for all of them."""
    for number in range(kills):
        child = os.fork()
        if child == 0:
            paint_for_ever(folder / str(number), seed + number)
        os.waitpid(child, 0)
        print("dead", flush=True)


def paint_for_ever(folder: Path, seed: int) -> None:
    """Paint, and note the digest of the labels after each edit."""
    folder.mkdir()
    layer, edits, kept, journal = painted(folder, SMALL)
    edits.made.connect(kept.add)
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    edits.made.connect(lambda _: os.write(log, f"{journal.edits} {digest(edits.labels)}\n".encode()))
    rng = np.random.default_rng(seed)
    while True:
        stroke(layer, rng)
        if rng.random() < 0.2:
            layer.undo()
            edits.look()
        os.write(1, f"{os.getpid()} {journal.written}\n".encode())


def digest(labels: np.ndarray) -> str:
    """Return the SHA-256 of labels (X, Y, Z) in C order."""
    return hashlib.sha256(np.ascontiguousarray(labels)).hexdigest()


def kill_painters(folder: Path, kills: int, seed: int) -> tuple[list[int], list[int]]:
    """Kill painters at random moments; return how many edits each made and how many of them were not written yet.

    Raises
    ------
    AssertionError
        If a written edit is lost, or a voxel is another than it was.
    """
    made, unwritten = [], []
    command = [sys.executable, __file__, "--child", str(folder), "--kills", str(kills), "--seed", str(seed)]
    chance = random.Random(seed)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for number in range(kills):
            lines = chance.randint(3, 80)
            for _ in range(lines):
                painter, promised = (int(word) for word in process.stdout.readline().split())
            time.sleep(chance.random() * 0.02)
            os.kill(painter, signal.SIGKILL)
            while (line := process.stdout.readline()) != "dead\n":
                promised = int(line.split()[1])
            edits, restored = check(folder / str(number), promised)
            made.append(edits)
            unwritten.append(max(0, edits - restored))
    return made, unwritten


def check(folder: Path, promised: int) -> tuple[int, int]:
    """Restore what a killed painter has left; return the number of its edits and of those that were restored."""
    digests = dict(line.split() for line in (folder / "log.txt").read_text().splitlines() if line.count(" ") == 1)
    made = max(int(number) for number in digests)
    (left,) = pending(folder)
    back = restore(left.path, LabelMap(np.zeros(SMALL, np.uint8), Geometry(SMALL, np.diag((1.0, 1.0, 2.0, 1.0)))))
    assert not back.damaged, folder
    assert promised <= back.edits <= made + 1, (promised, back.edits, made)
    # The last edit may have been written and not noted.
    if back.edits <= made:
        assert digest(back.data) == digests[str(back.edits)], (folder, back.edits)
    return made, back.edits


def time_strokes(folder: Path, strokes: int) -> list[tuple[float, float]]:
    """Return what each stroke pays for its journal: processor time and time, in ms."""
    layer, edits, kept, journal = painted(folder, BRATS)
    cost: list[tuple[float, float]] = []

    def add(edit: object) -> None:
        before = time.thread_time(), time.perf_counter()
        kept.add(edit)  # type: ignore[arg-type]
        cost.append((1000 * (time.thread_time() - before[0]), 1000 * (time.perf_counter() - before[1])))

    edits.made.connect(add)
    rng = np.random.default_rng(0)
    for _ in range(strokes):
        stroke(layer, rng)
    journal.discard()
    return cost


if __name__ == "__main__":
    sys.exit(main())
