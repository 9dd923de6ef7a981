"""Slices of a study as pictures: which voxels they show, turned how, in what colours.

They look as radiologists read them: the patient's right on the viewer's left, anterior and superior up. They are cut
along the voxel axes nearest to the anatomical ones, in true proportions, without resampling. A slice is named by its
number in the file's own order, from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from nibabel.orientations import apply_orientation
from numpy.typing import NDArray

from ..errors import GeometryError
from ..volumes.geometry import Geometry
from ..volumes.volume import LabelMap, LabelTable, Volume, distinct_values
from .canvas import INK
from .surface import boundary, common_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Plane = Literal["axial", "coronal", "sagittal"]
#: All planes, in the order in which they are shown.
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
#: With these axes a transposed slice across the third, second or first axis is an axial, coronal or sagittal picture.
_CODES = "LPI"
_AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
#: Opacity of a label's inside; its outline is opaque.
_FILL = 0.35


@dataclass(frozen=True, eq=False)
class View:
    """How slices are cut out of arrays on one grid.

    Parameters
    ----------
    geometry : Geometry
        The grid of the arrays.
    crop : tuple of three slices
        What is shown of an array whose axes grow to the patient's left, posterior and inferior.
    """

    geometry: Geometry
    crop: tuple[slice, slice, slice]

    @classmethod
    def of(cls, geometry: Geometry, *seen: NDArray[np.bool_]) -> View:
        """Return a view of what is to be seen, (X, Y, Z) masks: most heads fill half of their image."""
        turn = geometry.orientation_to(_CODES)
        boxes = [box for mask in seen if (box := common_box(apply_orientation(mask, turn))) is not None]
        if not boxes:
            return cls(geometry, (slice(None),) * 3)
        x, y, z = (slice(min(s.start for s in side), max(s.stop for s in side)) for side in zip(*boxes, strict=True))
        return cls(geometry, (x, y, z))

    def turned(self, array: NDArray[Any]) -> NDArray[Any]:
        """View of an (X, Y, Z) array with the axes of the screen, without the crop."""
        turned: NDArray[Any] = apply_orientation(array, self.geometry.orientation_to(_CODES))
        return turned

    def picture(self, array: NDArray[Any], plane: Plane, number: int) -> NDArray[Any]:
        """Return a slice of an (X, Y, Z) array: rows downwards, columns to the right.

        Raises
        ------
        GeometryError
            If there is no slice of that number.
        """
        axis = _AXES[plane]
        place = list(self.crop)
        shown: list[slice | int] = [*place]
        shown[axis] = self._turned_number(plane, number)
        return np.asarray(self.turned(array)[tuple(shown)]).T

    def count(self, plane: Plane) -> int:
        """Number of slices of the whole grid in a plane."""
        return self.geometry.shape[self._own_axis(plane)]

    def size_mm(self, plane: Plane) -> tuple[float, float]:
        """Width and height of a picture in mm."""
        spacing, shape = self._turned_spacing(), self.turned(np.broadcast_to(False, self.geometry.shape)).shape
        sizes = [len(range(*s.indices(n))) * mm for s, n, mm in zip(self.crop, shape, spacing, strict=True)]
        width, height = (size for axis, size in enumerate(sizes) if axis != _AXES[plane])
        return width, height

    def aspect(self, plane: Plane) -> float:
        """Height of a voxel relative to its width in a picture."""
        width, height = (mm for axis, mm in enumerate(self._turned_spacing()) if axis != _AXES[plane])
        return height / width

    def slice_with_most(self, mask: NDArray[np.bool_], plane: Plane) -> int:
        """Number of the slice that holds most of an (X, Y, Z) mask; the middle one if it is empty."""
        counts = self._counts(mask, plane)
        # Of equal ones the first on the screen, whatever the file's order.
        turned = counts if self._runs_forward(plane) else counts[::-1]
        place = int(turned.argmax()) if turned.any() else len(turned) // 2
        return place if self._runs_forward(plane) else len(counts) - 1 - place

    def middle(self, mask: NDArray[np.bool_], plane: Plane) -> int:
        """Number of the slice in the middle of what an (X, Y, Z) mask spans; of the volume if it is empty."""
        inside = np.flatnonzero(self._counts(mask, plane))
        return int(inside[0] + inside[-1]) // 2 if inside.size else (self.count(plane) - 1) // 2

    def evenly(self, mask: NDArray[np.bool_], plane: Plane, count: int) -> tuple[int, ...]:
        """Numbers of evenly spaced slices through what an (X, Y, Z) mask spans, or through everything if it is empty.

        The first and the last lie half a step inside, where there is something to see.
        """
        inside = np.flatnonzero(self._counts(mask, plane))
        first, last = (int(inside[0]), int(inside[-1])) if inside.size else (0, self.count(plane) - 1)
        steps = (np.arange(count) + 0.5) / count
        return tuple(dict.fromkeys(int(first + step * (last - first + 1)) for step in steps))

    def _counts(self, mask: NDArray[np.bool_], plane: Plane) -> NDArray[np.intp]:
        own = self._own_axis(plane)
        return np.asarray(np.count_nonzero(mask, axis=tuple(axis for axis in range(3) if axis != own)))

    def _own_axis(self, plane: Plane) -> int:
        """Axis of the file across which the slices of a plane lie."""
        return int(np.flatnonzero(self.geometry.orientation_to(_CODES)[:, 0] == _AXES[plane])[0])

    def _runs_forward(self, plane: Plane) -> bool:
        return bool(self.geometry.orientation_to(_CODES)[self._own_axis(plane), 1] > 0)

    def _turned_number(self, plane: Plane, number: int) -> int:
        count = self.count(plane)
        if not 0 <= number < count:
            raise GeometryError(f"There is no {plane} slice {number}: they are numbered from 0 to {count - 1}.")
        return number if self._runs_forward(plane) else count - 1 - number

    def _turned_spacing(self) -> tuple[float, float, float]:
        spacing = [0.0, 0.0, 0.0]
        for own, (axis, _) in enumerate(self.geometry.orientation_to(_CODES)):
            spacing[int(axis)] = self.geometry.spacing_mm[own]
        return spacing[0], spacing[1], spacing[2]


@dataclass(frozen=True, eq=False)
class Backdrop:
    """The image beneath the labels, with the grey values between which it is shown; black without an image."""

    data: NDArray[Any]
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, image: Volume | None, geometry: Geometry) -> Backdrop:
        """Return the backdrop of labels on a grid; contrast is that of most of what differs from the darkest value."""
        if image is None:
            return cls(np.broadcast_to(np.uint8(0), geometry.shape))
        inside = image.data[image.data > image.data.min()]
        if not inside.size:
            return cls(image.data)
        low, high = np.percentile(inside, (1, 99.5)).tolist()
        return cls(image.data, low, high if high > low else low + 1.0)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Where there is something to see."""
        return np.asarray(self.data > self.data.min())


def check_grids(truth: Geometry, *others: LabelMap | Volume | None) -> None:
    """Refuse to draw what does not lie on one grid.

    Raises
    ------
    GeometryError
        With the name of what differs, and how.
    """
    for other in others:
        if other is not None and (difference := truth.difference(other.geometry)):
            raise GeometryError(f"{other.name or 'The image'} does not lie on the truth's grid ({difference}).")


def common_table(*maps: LabelMap) -> LabelTable:
    """Names and colours for every value of several label maps; those of the first count."""
    table = maps[0].table
    return table.covering([value for each in maps for value in (*each.table.values, *distinct_values(each.data))])


def label_colors(labels: NDArray[Any], table: LabelTable) -> NDArray[np.float32]:
    """Colours of a slice of labels: (rows, columns) integers become (rows, columns, 4) RGBA from 0 to 1.

    The inside of a label is translucent, its outline opaque, background transparent.
    """
    colors = np.zeros((*labels.shape, 4), np.float32)
    for label in table:
        inside = labels == label.value
        if inside.any():
            colors[inside] = (*label.rgb, _FILL)
            colors[boundary(inside)] = (*label.rgb, 1.0)
    return colors


def draw_slice(
    axes: Axes,
    view: View,
    plane: Plane,
    number: int,
    backdrop: Backdrop | None = None,
    labels: NDArray[Any] | None = None,
    table: LabelTable | None = None,
    *,
    cmap: str = "gray",
) -> None:
    """Draw a slice of an image, and of (X, Y, Z) labels over it in the colours of their table."""
    aspect = view.aspect(plane)
    if backdrop is not None:
        picture = view.picture(backdrop.data, plane, number)
        axes.imshow(picture, cmap=cmap, vmin=backdrop.low, vmax=backdrop.high, aspect=aspect, interpolation="nearest")
    if labels is not None:
        overlay = label_colors(view.picture(labels, plane, number), table or LabelTable())
        axes.imshow(overlay, aspect=aspect, interpolation="nearest")
    bare(axes)


def labels_legend(figure: Figure, *tables: LabelTable) -> None:
    """Name the colours of label tables below a figure."""
    from matplotlib.patches import Patch

    entries = [Patch(color=label.color, label=label.name) for table in tables for label in table]
    if entries:
        columns = min(len(entries), 5)
        figure.legend(handles=entries, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def bare(axes: Axes) -> None:
    """Take ticks and frame away: a picture needs none."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def row_label(axes: Axes, text: str) -> None:
    """Name a row of pictures at its left."""
    axes.set_ylabel(text, fontsize=9, color=INK)


def chosen_slices(
    view: View, plane: Plane, slices: Sequence[int] | None, mask: NDArray[np.bool_], count: int = 5
) -> tuple[int, ...]:
    """Return the slices that were asked for, or evenly spaced ones through a mask.

    Raises
    ------
    GeometryError
        If there is no slice of a number.
    """
    chosen = view.evenly(mask, plane, count) if not slices else tuple(slices)
    for number in chosen:
        view._turned_number(plane, number)
    return chosen
