"""What the figures of the window need in the background: drawing, writing, and what is reached without learning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..cases.case import Case
from ..cases.labels import Region
from ..comparison.baselines import search_baselines
from ..comparison.canvas import save_pixels
from ..comparison.figures import curves_figure
from ..comparison.gallery import Choice, Material, draw
from ..errors import Seg3dError
from ..events import Event, Finished, Progress, Saved, job
from ..training.run import RunFolder, read_history

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure with its pixels, (rows, columns, 4) RGBA; or, without either, why there is none."""

    figure: Figure | None
    pixels: NDArray[np.uint8] | None
    problem: str = ""


@job
def draw_figure(choice: Choice, material: Material, revealed: bool = False) -> Iterator[Event]:
    """Draw a figure of the open case; Finished.result = Drawing."""
    yield Progress("drawing", 0)
    try:
        figure = draw(choice, material, revealed=revealed)
    except Seg3dError as error:
        # A wish that cannot be met, such as a slice that is not there, is no failure of the program.
        yield Finished(Drawing(None, None, str(error)))
        return
    yield Finished(_drawn(figure))


@job
def draw_curves(run: Path) -> Iterator[Event]:
    """Draw the curves of a run; Finished.result = Drawing."""
    yield Progress("drawing", 0)
    try:
        folder = RunFolder.open(run)
        figure = curves_figure(read_history(folder.folder), folder.plan.label_table)
    except Seg3dError as error:
        yield Finished(Drawing(None, None, str(error)))
        return
    yield Finished(_drawn(figure))


def _drawn(figure: Figure) -> Drawing:
    canvas = figure.canvas
    canvas.draw()
    return Drawing(figure, np.array(canvas.buffer_rgba()))  # type: ignore[attr-defined]  # new_figure's canvas is Agg's


@job
def write_picture(path: Path, pixels: NDArray[np.uint8]) -> Iterator[Event]:
    """Write a figure as it is shown as PNG, whole or not at all; Finished.result = its path."""
    yield Progress("saving", 0)
    save_pixels(path, pixels)
    yield Saved(path, "figure")
    yield Finished(path)


@job
def find_baselines(case: Case, regions: Sequence[Region]) -> Iterator[Event]:
    """Find what is reached without learning; Finished.result = (all background, best threshold)."""
    search = search_baselines(case, regions)
    while True:
        try:
            modality = next(search)
        except StopIteration as end:
            yield Finished(end.value)
            return
        # Between two modalities the search can be dropped.
        yield Progress(f"searching {modality}", 0)
