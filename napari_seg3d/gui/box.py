"""A box of voxels drawn as rectangles: each limits the two axes of the plane it was drawn in."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from napari.layers import Image, Shapes
from numpy.typing import NDArray

from ..volumes.geometry import Geometry
from .layers import SCREEN, origin_of

#: Ranges of voxels along X, Y, Z of the stored array.
Box = tuple[slice, slice, slice]
_NAME = "box to predict"


def drawing_layer(image: Image) -> Shapes:
    """Empty layer on the grid of an image, ready to draw a rectangle."""
    layer = Shapes(
        ndim=3,
        name=_NAME,
        scale=image.scale,
        translate=image.translate,
        units=image.units,
        axis_labels=image.axis_labels,
        face_color="transparent",
        edge_color="#ffd24a",
        edge_width=0.5,
    )
    layer.mode = "add_rectangle"
    return layer


def box_of(shapes: Shapes, image: Image) -> Box | None:
    """Return the voxels of an image that lie inside all shapes; None if there are none, or no shape is drawn.

    A rectangle drawn on an axial slice reaches through all slices, until another one, drawn on a coronal or sagittal
    slice, limits them.
    """
    if shapes.ndim != image.ndim:
        return None
    drawn = [np.array([image.world_to_data(shapes.data_to_world(point)) for point in points]) for points in shapes.data]
    return _stored_box(drawn, origin_of(image, Image).geometry)


def _stored_box(shapes: Iterable[NDArray[np.float64]], geometry: Geometry) -> Box | None:
    to_screen = geometry.orientation_to(SCREEN)
    size = np.empty(3, int)
    size[to_screen[:, 0].astype(int)] = geometry.shape
    start, stop = np.zeros(3, int), size.copy()
    drawn = False
    for points in shapes:
        low, high = points.min(axis=0), points.max(axis=0)
        # The axis into the screen is one slice thick: it limits nothing.
        limited = high - low > 0.5
        drawn = drawn or bool(limited.any())
        start = np.where(limited, np.maximum(start, np.round(low)), start).astype(int)
        stop = np.where(limited, np.minimum(stop, np.round(high) + 1), stop).astype(int)
    if not drawn or (start >= stop).any():
        return None
    ranges = []
    for (screen_axis, flip), n in zip(to_screen, geometry.shape, strict=True):
        first, last = int(start[int(screen_axis)]), int(stop[int(screen_axis)])
        ranges.append(slice(first, last) if flip > 0 else slice(n - last, n - first))
    return ranges[0], ranges[1], ranges[2]


def box_in_words(box: Box, geometry: Geometry) -> str:
    """Say how large a box is: "20×24×35 voxels, 21 % of the image"."""
    sizes = [part.stop - part.start for part in box]
    share = float(np.prod(sizes)) / float(np.prod(geometry.shape))
    return f"{'×'.join(map(str, sizes))} voxels, {100 * share:.0f} % of the image"
