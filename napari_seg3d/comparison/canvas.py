"""Paper and ink of all figures: made without a window system, written as PNG files whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..volumes.atomic import write_whole

if TYPE_CHECKING:
    # matplotlib takes half a second to import, which only those who draw should pay.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PAPER, QUIET = "#1a1a1a", "#ffffff", "#8a8a8a"
DOTS_PER_INCH = 110


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches that can be drawn without a display."""
    # Not through pyplot: it keeps every figure and chooses a window system, both for the whole process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def quiet_frame(axes: Axes) -> None:
    """Leave of the axes' frame what is needed to read a plot."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, color="#e4e4e4", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)


def png_bytes(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    file = io.BytesIO()
    # No date and no program version: the same figure gives the same bytes.
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def save_pixels(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """Write (rows, columns, 4) RGBA pixels as a PNG file, whole or not at all; an older file is replaced."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    # None leaves the program's name out, which the stub does not know.
    imsave(file, pixels, format="png", metadata={"Software": None})  # type: ignore[dict-item]
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        temporary.write_bytes(file.getvalue())
    return path


def save_figure(path: Path, figure: Figure) -> Path:
    """Write the figure as a PNG file, whole or not at all; an older file of that name is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        temporary.write_bytes(png_bytes(figure))
    return path
