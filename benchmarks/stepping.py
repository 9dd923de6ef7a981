"""From deciding about a place to standing at the next one: what one key costs while stepping through disagreements.

Promise: within 50 ms of work everything has followed a decision (scores, list, the next place outlined and shown), on
240 x 240 x 155 voxels of uint8 with 4 labels and some two hundred places. What counts is the processor time of the
window's own thread, which other work on the machine does not change; drawing the picture comes on top and is told
beside it.

    python benchmarks/stepping.py [--decisions 40] [--difference]

It needs a screen; without one: xvfb-run -a -s '-screen 0 1920x1080x24' python benchmarks/stepping.py
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from live import bent, made_up
from machine import describe
from review_window import ReviewWindow, own_preferences

DECISION_MS = 50.0


def main() -> int:
    """Measure; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decisions", type=int, default=40)
    parser.add_argument("--difference", action="store_true", help="with the difference layer shown")
    choices = parser.parse_args()
    print(describe())
    with own_preferences():
        decided, drawn = measure(choices.decisions, difference=choices.difference)
    p95 = float(np.percentile(decided, 95))
    print(f"a decision and the next place: median {np.median(decided):.0f}, p95 {p95:.0f} ms of work")
    print(f"with the picture: median {np.median(drawn):.0f}, p95 {np.percentile(drawn, 95):.0f} ms of work")
    print("yes" if p95 <= DECISION_MS else "NO ", f"at most {DECISION_MS:.0f} ms")
    return int(p95 > DECISION_MS)


def measure(decisions: int, *, difference: bool) -> tuple[list[float], list[float]]:
    """Take the truth's version of one place after the other; return ms of work without and with the picture."""
    from qtpy.QtWidgets import QApplication

    from napari_seg3d.gui.layers import image_layer, prediction_layer, truth_layer
    from napari_seg3d.volumes.volume import Volume

    window = ReviewWindow()
    viewer, page = window.viewer, window.dock.page("Review")

    def rest(seconds: float) -> None:
        end = time.monotonic() + seconds
        window.wait(lambda: time.monotonic() > end)

    rng = np.random.default_rng(0)
    truth = made_up(rng)
    image = rng.normal(size=truth.data.shape).astype(np.float32)
    viewer.add_layer(image_layer(Volume(image, truth.geometry), name="image"))
    viewer.add_layer(truth_layer(truth))
    viewer.add_layer(prediction_layer(truth.with_data(bent(truth.data, rng))))
    window.wait(lambda: bool(page.steps.places))
    page.show_difference(difference)
    page.steps.step(1)
    rest(1)
    decided, drawn = [], []
    for _ in range(decisions + 2):
        begin = time.thread_time()
        page.steps.accept_place()
        there = time.thread_time()
        QApplication.processEvents()
        decided.append(1000 * (there - begin))
        drawn.append(1000 * (time.thread_time() - begin))
        rest(0.2)
    window.close()
    # The first ones make what the others use.
    return decided[2:], drawn[2:]


if __name__ == "__main__":
    sys.exit(main())
