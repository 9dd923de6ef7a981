"""Painting and scrolling with further views beside the canvas: what a step costs, and when the canvas shows it.

A window with four images of 240 x 240 x 155 voxels and labels, without views, with the other two planes, and with the
other three images. The real canvas gets the mouse, the real slider is moved; the views may come later than the canvas,
and are drawn as often as the window has time for. Promise: with the two planes a step of a stroke or of the slider
takes at most 1.5 times the processor time that it takes without, and the worst step of a stroke at most 120 ms by the
clock, as without views. On a busy machine the views are drawn less often, and cost less; the time by the clock, until
the canvas shows its picture, stands beside it.

    python benchmarks/linked_views.py

It needs a screen; without one: xvfb-run -a -s '-screen 0 1920x1080x24' python benchmarks/linked_views.py
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from machine import describe
from review_window import own_preferences
from window import PAINT_WORST_MS, SHAPE, Window, percentile

RATIO = 1.5
#: Slices that the slider goes through.
SLICES = range(60, 100)


def main() -> int:
    """Measure and print the table; 1 if two planes cost too much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    choices = parser.parse_args()
    print(describe())
    with own_preferences():
        window = WindowWithViews()
        works: dict[str, tuple[float, float]] = {}
        worst: dict[str, float] = {}
        print(f"{'':18}{'brush, ms by the clock':>28}{'work':>8}{'slice, ms by the clock':>28}{'work':>8}")
        print(f"{'':18}{'median':>10}{'p95':>9}{'worst':>9}{'ms':>8}{'median':>10}{'p95':>9}{'worst':>9}{'ms':>8}")
        for _ in range(choices.rounds):
            for mode, name in (("", "no views"), ("planes", "other 2 planes"), ("images", "other 3 images")):
                window.show_views(mode)
                strokes, stroke_work = window.timed(window.paint)
                slices, slice_work = window.timed(window.drag)
                works[mode], worst[mode] = (stroke_work, slice_work), max(strokes)
                print(f"{name:18}{line(strokes, stroke_work)}{line(slices, slice_work)}", flush=True)
        window.viewer.close()
    stroke, scroll = (works["planes"][which] / works[""][which] for which in (0, 1))
    kept = {
        f"work beside two planes: brush {stroke:.2f}, slice {scroll:.2f} times (promise {RATIO})": max(stroke, scroll)
        <= RATIO,
        f"worst step of the brush beside two planes {worst['planes']:.0f} ms (promise {PAINT_WORST_MS:.0f})": worst[
            "planes"
        ]
        <= PAINT_WORST_MS,
    }
    for what, holds in kept.items():
        print("yes" if holds else "NO ", what)
    return int(not all(kept.values()))


def line(times: list[float], work: float) -> str:
    """Four columns of the table."""
    return f"{percentile(times, 50):10.1f}{percentile(times, 95):9.1f}{max(times):9.1f}{work:8.1f}"


class WindowWithViews(Window):
    """A window with a case of four images."""

    def __init__(self) -> None:
        super().__init__()
        import numpy as np

        from napari_seg3d.gui.layers import image_layer
        from napari_seg3d.gui.session import session_for
        from napari_seg3d.volumes.geometry import Geometry
        from napari_seg3d.volumes.volume import Volume

        rng = np.random.default_rng(1)
        geometry = Geometry.with_spacing(SHAPE)
        for name in ("T1", "T1c", "T2"):
            volume = Volume(rng.random(SHAPE, dtype=np.float32), geometry, name)
            self.viewer.layers.insert(1, image_layer(volume, name=name, visible=False))
        self.labels.data[:, 60:120, 60:120] = 1
        self.dock = session_for(self.viewer).linked_views

    def show_views(self, mode: str) -> None:
        """Show the views of a mode and wait until they are there."""
        self.dock.close()
        if mode:
            self.dock.open(mode)
            views: Any = self.dock.views
            if not self.wait(lambda: not views.is_behind, 300):
                raise TimeoutError("The views did not come up.")
        self.wait(lambda: False, 1.5)

    def drag(self, times: list[float]) -> None:
        """Move the slice slider through the middle of the volume."""
        slider = self.viewer.window._qt_viewer.dims.slider_widgets[0].slider
        slider.setValue(SLICES[0] - 1)
        self.wait(lambda: False, 0.3)
        self.until_pictures([lambda place=place: slider.setValue(place) for place in SLICES], times)

    def timed(self, action: Any) -> tuple[list[float], float]:
        """Milliseconds of each step by the clock, and mean processor time of a step, the views' drawing included."""
        times: list[float] = []
        begin = time.process_time()
        action(times)
        self.wait(lambda: False, 0.5)
        return times, 1000 * (time.process_time() - begin) / len(times)


if __name__ == "__main__":
    sys.exit(main())
