"""From one case to the next one in the review list: how long the window takes to show a case that was loaded ahead.

Promise: at most 0.5 s until every layer of a 240 x 240 x 155 case with four images, truth and prediction is there, by
the clock on a quiet machine. The processor time of the window's own thread, which other work changes less, and the
times of opening a case that was not loaded ahead stand beside it.

    python benchmarks/switch.py [--switches 4]

It needs a screen; without one: xvfb-run -a -s '-screen 0 1920x1080x24' python benchmarks/switch.py
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from machine import describe
from review_window import ReviewWindow, made_up_study, own_preferences

SWITCH_S = 0.5


def main() -> int:
    """Measure; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--switches", type=int, default=4)
    choices = parser.parse_args()
    print(describe())
    with own_preferences() as folder:
        study = made_up_study(folder / "study")
        ahead, cold = measure(study, choices.switches)
    slowest = max(wall for _, wall in ahead)
    print("loaded ahead:    " + ", ".join(f"{cpu:.2f} s of work, {wall:.2f} s" for cpu, wall in ahead))
    print("not loaded:      " + ", ".join(f"{cpu:.2f} s of work, {wall:.2f} s" for cpu, wall in cold))
    print("yes" if slowest <= SWITCH_S else "NO ", f"a switch takes at most {SWITCH_S} s ({slowest:.2f} s)")
    return int(slowest > SWITCH_S)


def measure(study: Path, switches: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Go to and fro between two cases; return processor time and time of each, loaded ahead and not."""
    window = ReviewWindow()
    first, second = window.open_dataset(study)

    def switch(case_id: str) -> tuple[float, float]:
        begun, cpu = time.perf_counter(), time.thread_time()
        window.open_case(case_id)
        return time.thread_time() - cpu, time.perf_counter() - begun

    cold = [switch(first)]
    ahead = []
    for number in range(switches):
        following = (second, first)[number % 2]
        window.settle()
        window.workspace.prepare_case(following)
        window.wait(lambda following=following: window.workspace.is_prepared(following))
        window.settle()
        ahead.append(switch(following))
    window.close()
    return ahead, cold


if __name__ == "__main__":
    sys.exit(main())
