"""From one case to the next one in the review list: how long the window takes to show a case that was loaded ahead.

Promise: at most 0.5 s until every layer of a 240 x 240 x 155 case with four images, truth and prediction is there. What
counts is the processor time of the window's own thread, which other work on the machine does not change; the time by
the clock and that of opening a case that was not loaded ahead stand beside it.

    python benchmarks/switch.py [--switches 4]

It needs a screen; without one: xvfb-run -a -s '-screen 0 1920x1080x24' python benchmarks/switch.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machine import describe

SHAPE = (240, 240, 155)
SWITCH_S = 0.5
PATIENCE_S = 240.0


def main() -> int:
    """Measure; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--switches", type=int, default=4)
    choices = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        # The user's own preferences stay as they are.
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "napari.yaml")
        os.environ["XDG_CONFIG_HOME"] = folder
        study = made_up_study(Path(folder) / "study")
        ahead, cold = measure(study, choices.switches)
    work = max(seconds for seconds, _ in ahead)
    print("loaded ahead:    " + ", ".join(f"{cpu:.2f} s of work, {wall:.2f} s" for cpu, wall in ahead))
    print("not loaded:      " + ", ".join(f"{cpu:.2f} s of work, {wall:.2f} s" for cpu, wall in cold))
    print("yes" if work <= SWITCH_S else "NO ", f"a switch takes at most {SWITCH_S} s of work ({work:.2f} s)")
    return int(work > SWITCH_S)


def made_up_study(folder: Path) -> Path:
    """Write two cases with predictions."""
    from napari_seg3d.cases.dataset import open_dataset
    from napari_seg3d.cases.phantoms import write_phantom_dataset
    from napari_seg3d.events import result_of
    from napari_seg3d.volumes.files import read_label_map, write_label_map

    result_of(write_phantom_dataset(folder, 2, shape=SHAPE))
    for case in open_dataset(folder).cases:
        if case.truth is not None:
            path = folder.with_name("study-seg3d") / "predictions" / "run" / f"{case.id}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_label_map(path, read_label_map(case.truth))
    return folder


def measure(study: Path, switches: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Go to and fro between two cases; return processor time and time of each, loaded ahead and not."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_seg3d.gui.dock import Seg3DDock
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

    workspace.open_dataset(study)
    wait(lambda: workspace.dataset is not None)
    first, second = (case.id for case in workspace.dataset.cases)
    shown: list[str] = []
    session.view.shown.connect(lambda: shown.append(str(workspace.case_id)))

    def switch(case_id: str) -> tuple[float, float]:
        begun, cpu = time.perf_counter(), time.thread_time()
        workspace.open_case(case_id)
        wait(lambda: shown and shown[-1] == case_id)
        return time.thread_time() - cpu, time.perf_counter() - begun

    def settle() -> None:
        wait(lambda: workspace.quick.current is None and not workspace.quick.queue)

    cold = [switch(first)]
    ahead = []
    for number in range(switches):
        following = (second, first)[number % 2]
        settle()
        workspace.prepare_case(following)
        wait(lambda following=following: workspace.is_prepared(following))
        settle()
        ahead.append(switch(following))
    session.shutdown()
    viewer.close()
    return ahead, cold


if __name__ == "__main__":
    sys.exit(main())
