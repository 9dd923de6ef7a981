"""Volumes and label maps as napari layers, and label layers back as label maps: what the screen shows, decided once.

Every study appears as radiologists read it: patient's right on the viewer's left, anterior up, superior up. napari
draws axis 0 as slices, axis 1 downwards and axis 2 to the right, so a layer gets a *view* of the array turned to (I,
P, L): slices from superior to inferior, rows towards posterior, columns to the patient's left. The view shares memory
with the array in the file's own voxel order: no voxel is copied or resampled, and what the brush paints stands in the
stored order at once.

A layer has scale and translation only, because napari slices other affines wrongly in 2D. Its world is −(S, A, R) in
millimetres; oblique grids are shown along their own axes, with their centre in the right place. The true affine stays
with the layer's origin, in ``layer.metadata["seg3d"]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from nibabel.orientations import apply_orientation
from numpy.typing import NDArray

from ..comparison.difference import DIFFERENCE_TABLE
from ..errors import GeometryError, LabelError
from ..volumes.geometry import Geometry
from ..volumes.volume import LabelMap, LabelTable, Source, Volume, distinct_values

#: Axes of the screen: slices towards Inferior, rows towards Posterior, columns towards Left.
SCREEN = "IPL"
#: Where an origin is kept in a layer's metadata.
KEY = "seg3d"
#: Order of the layer axes (slices, rows, columns) that shows each plane.
PLANES: Mapping[str, tuple[int, int, int]] = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}

#: Name of the layer of a case's truth.
TRUTH = "truth"

Role = Literal["image", "truth", "prediction", "difference", "patch"]


@dataclass(frozen=True)
class Display:
    """Grey values between which an image is shown, and the least and greatest that it holds."""

    low: float
    high: float
    least: float
    greatest: float


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a layer comes from: what is needed to turn it into a volume or label map again.

    `path` is the file of a prediction or correction; `source` what the file held besides the voxels. A consensus tells
    the names of its `raters`, and their files (or names, where they have none) as `parents`.
    """

    role: Role
    geometry: Geometry
    case_id: str = ""
    table: LabelTable = field(default_factory=LabelTable)
    name: str = ""
    path: Path | None = None
    source: Source | None = None
    raters: tuple[str, ...] = ()
    parents: tuple[Path | str, ...] = ()


def on_screen(data: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """View of an (X, Y, Z) array as (I, P, L), sharing its memory."""
    view: NDArray[Any] = apply_orientation(data, geometry.orientation_to(SCREEN))
    return view


def stored(data: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """View of an (I, P, L) array as (X, Y, Z) of `geometry`: undoes `on_screen`."""
    to_screen = geometry.orientation_to(SCREEN)
    back = np.empty_like(to_screen)
    for axis, (screen_axis, flip) in enumerate(to_screen):
        back[int(screen_axis)] = (axis, flip)
    view: NDArray[Any] = apply_orientation(data, back)
    return view


def voxel_on_screen(voxel: Iterable[float], geometry: Geometry) -> tuple[float, float, float]:
    """Index along (I, P, L) of a voxel index along (X, Y, Z)."""
    indices = [0.0, 0.0, 0.0]
    for index, size, (screen_axis, flip) in zip(voxel, geometry.shape, geometry.orientation_to(SCREEN), strict=True):
        indices[int(screen_axis)] = index if flip > 0 else size - 1 - index
    return indices[0], indices[1], indices[2]


def placement(geometry: Geometry) -> dict[str, Any]:
    """Return scale and translation in mm, units and axis labels of a layer on this grid."""
    view_of_axes = on_screen(np.broadcast_to(np.zeros(1), geometry.shape), geometry)
    order = np.argsort(geometry.orientation_to(SCREEN)[:, 0])
    scale = np.asarray(geometry.spacing_mm)[order]
    right, anterior, superior = geometry.world((np.asarray(geometry.shape) - 1) / 2)
    centre = -np.array([superior, anterior, right])
    return {
        "scale": tuple(scale.tolist()),
        "translate": tuple((centre - scale * (np.asarray(view_of_axes.shape) - 1) / 2).tolist()),
        "units": ("mm", "mm", "mm"),
        "axis_labels": tuple(SCREEN),
    }


def orientation_note(geometry: Geometry) -> str:
    """One quiet sentence on an oblique grid; empty for a straight one."""
    return "Oblique: shown along its own axes, on its own grid." if geometry.is_oblique else ""


def display_range(volume: Volume, foreground: NDArray[np.bool_] | None = None) -> Display:
    """Contrast that makes the organ readable: from the 0.5th to the 99.5th percentile of its voxels.

    Parameters
    ----------
    volume : Volume
    foreground : (X, Y, Z) bool ndarray, optional
        Where the organ is. Without it, or if it is empty, all voxels that differ from the corner's value count.
    """
    data = volume.data
    if foreground is None or not foreground.any():
        foreground = data != data[0, 0, 0]
    # Every third voxel tells the percentiles well enough, in a ninth of the time or less.
    values = data[::2, ::2, ::2][foreground[::2, ::2, ::2]]
    if values.size < 1000:
        values = data[foreground] if foreground.any() else data.ravel()
    low, high = np.percentile(values, (0.5, 99.5)).tolist()
    least, greatest = float(data.min()), float(data.max())
    if not low < high:
        low, high = (least, greatest) if least < greatest else (least, least + 1.0)
    return Display(low, high, min(least, low), max(greatest, high))


def label_colours(table: LabelTable) -> DirectLabelColormap:
    """Return the table's colours; background is transparent, values outside the table are plain grey."""
    colours: dict[int | None, Any] = {None: (0.6, 0.6, 0.6, 1.0), 0: (0.0, 0.0, 0.0, 0.0)}
    colours.update({label.value: (*label.rgb, 1.0) for label in table})
    return DirectLabelColormap(color_dict=colours)


def label_names(table: LabelTable) -> dict[str, list[Any]]:
    """Return the table as napari's layer features, which the status bar and tooltips show."""
    return {"index": [0, *table.values], "name": ["background", *(label.name for label in table)]}


def image_arguments(
    volume: Volume, *, name: str = "", case_id: str = "", display: Display | None = None, visible: bool = True
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return data and keyword arguments of the image layer of a volume, also for napari's readers."""
    display = display or display_range(volume)
    origin = Origin("image", volume.geometry, case_id, name=volume.name, source=volume.source)
    return on_screen(volume.data, volume.geometry), {
        "name": name or volume.name,
        "colormap": "gray",
        "contrast_limits": (display.low, display.high),
        "visible": visible,
        "metadata": {KEY: origin},
        **placement(volume.geometry),
    }


def image_layer(
    volume: Volume, *, name: str = "", case_id: str = "", display: Display | None = None, visible: bool = True
) -> Image:
    """Image layer of a volume in grey, with a contrast for its foreground (`display`, else found here)."""
    display = display or display_range(volume)
    data, arguments = image_arguments(volume, name=name, case_id=case_id, display=display, visible=visible)
    layer = Image(data, **arguments)
    # The sliders shall reach every value, not only those between the first limits.
    layer.contrast_limits_range = (display.least, display.greatest)
    return layer


def labels_arguments(
    label_map: LabelMap, *, role: Role = "prediction", name: str = "", case_id: str = "", path: Path | None = None
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return data and keyword arguments of the labels layer of a label map, also for napari's readers.

    The data share memory with the label map.
    """
    table = label_map.table.covering(distinct_values(label_map.data).tolist())
    origin = Origin(role, label_map.geometry, case_id, table, label_map.name, path, label_map.source)
    return on_screen(label_map.data, label_map.geometry), {
        "name": name or label_map.name or role,
        "colormap": label_colours(table),
        "features": label_names(table),
        "opacity": 0.6,
        "metadata": {KEY: origin},
        **placement(label_map.geometry),
    }


def truth_layer(label_map: LabelMap, *, name: str = TRUTH, case_id: str = "") -> Labels:
    """Layer of a truth: locked, so that no stroke can change it by accident."""
    data, arguments = labels_arguments(label_map, role="truth", name=name, case_id=case_id)
    layer = Labels(data, **arguments)
    layer.editable = False
    layer.locked = True
    return layer


def prediction_layer(
    label_map: LabelMap, *, name: str = "prediction", case_id: str = "", path: Path | None = None
) -> Labels:
    """Layer of a prediction or correction, to be painted on. It holds its own copy of the voxels.

    Parameters
    ----------
    label_map : LabelMap
    name : str
    case_id : str
        Of which case it is.
    path : Path, optional
        The file that holds it.
    """
    own = np.array(label_map.data, order="K", subok=False)
    data, arguments = labels_arguments(
        label_map.with_data(own), role="prediction", name=name, case_id=case_id, path=path
    )
    layer = Labels(data, **arguments)
    table = origin_of(layer, Labels).table
    layer.selected_label = table.values[0] if table else 1
    layer.brush_size = 4
    return layer


def can_show(layer: Layer, content: Volume | LabelMap, name: str) -> bool:
    """Whether the layer of an image or a truth can go on with that of another case.

    Not if the user has moved or renamed it, and never a layer that is edited: napari would keep its history.
    """
    origin = origin_or_none(layer)
    role = "truth" if isinstance(content, LabelMap) else "image"
    if origin is None or origin.role != role or layer.name != name or layer.dtype != content.data.dtype:
        return False
    placed = placement(origin.geometry)
    return (
        np.allclose(layer.scale, placed["scale"])
        and np.allclose(layer.translate, placed["translate"])
        and np.array_equal(layer.rotate, np.eye(3))
        and not np.any(layer.shear)
        and np.array_equal(layer.affine.affine_matrix, np.eye(4))
    )


def show_image_instead(layer: Image, volume: Volume, *, case_id: str, display: Display | None, visible: bool) -> None:
    """Let an image layer go on with the volume of another case (see `can_show`), which is faster than a new one.

    Colours, opacity and gamma stay as the user has set them; the contrast becomes that of a new layer.
    """
    display = display or display_range(volume)
    data, arguments = image_arguments(volume, name=layer.name, case_id=case_id, display=display, visible=visible)
    _exchange(layer, data, arguments)
    # The range must hold the old limits while it is set, and the new ones when they are.
    layer.contrast_limits = arguments["contrast_limits"]
    layer.contrast_limits_range = (display.least, display.greatest)
    if visible:
        layer.visible = True


def show_truth_instead(layer: Labels, label_map: LabelMap, *, case_id: str) -> None:
    """Let the layer of a truth go on with that of another case (see `can_show`)."""
    before = origin_of(layer, Labels).table
    data, arguments = labels_arguments(label_map, role="truth", name=layer.name, case_id=case_id)
    _exchange(layer, data, arguments)
    if origin_of(layer, Labels).table != before:
        layer.colormap = arguments["colormap"]
        layer.features = arguments["features"]
    layer.opacity = arguments["opacity"]
    layer.visible = True
    # napari makes a layer editable that gets other data.
    layer.editable = False
    layer.locked = True


def _exchange(layer: Image | Labels, data: NDArray[Any], arguments: Mapping[str, Any]) -> None:
    """Put other data in their place, unseen: what is hidden is not drawn.

    What stays as it is is not set, for napari draws or slices anew all the same; a grid of the same voxels differs by
    rounding from one case to the next.
    """
    if layer.visible:
        layer.visible = False
    layer.mode = "pan_zoom"
    layer.metadata = arguments["metadata"]
    layer.data = data
    for name in ("scale", "translate"):
        if not np.allclose(getattr(layer, name), arguments[name], rtol=1e-6, atol=1e-6):
            setattr(layer, name, arguments[name])


def difference_layer(
    difference: NDArray[np.uint8],
    geometry: Geometry,
    *,
    name: str = "difference",
    case_id: str = "",
    table: LabelTable = DIFFERENCE_TABLE,
) -> Labels:
    """Locked layer of a `comparison.difference.difference_map` (X, Y, Z), or of other marks that `table` names."""
    label_map = LabelMap(difference, geometry, table)
    data, arguments = labels_arguments(label_map, role="difference", name=name, case_id=case_id)
    layer = Labels(data, **arguments | {"opacity": 0.9})
    layer.editable = False
    layer.locked = True
    return layer


def origin_or_none(layer: Layer) -> Origin | None:
    """Return where a layer comes from, or None if this package did not make it."""
    origin = layer.metadata.get(KEY)
    return origin if isinstance(origin, Origin) else None


def origin_of(layer: Layer, kind: type[Layer] = Layer) -> Origin:
    """Return where a layer comes from.

    Raises
    ------
    LabelError
        If it is not of this `kind`, or this package did not make it.
    """
    origin = origin_or_none(layer)
    if origin is None or not isinstance(layer, kind):
        raise LabelError(
            f"The layer {layer.name} was not made by napari-seg3d, so its place in the patient is unknown."
        )
    return origin


def adopt(layer: Labels, image: Layer) -> None:
    """Let a labels layer that the user made himself stand on the grid of one of our image layers.

    Raises
    ------
    LabelError
        If its shape or place differs from the image's.
    """
    origin = origin_of(image)
    grid = placement(origin.geometry)
    if layer.data.shape != image.data.shape:
        raise LabelError(
            f"The layer {layer.name} has {layer.data.shape} voxels, the image {image.name} {image.data.shape}. "
            "Make a new labels layer while the image is open, and paint on that."
        )
    if not (np.allclose(layer.scale, grid["scale"]) and np.allclose(layer.translate, grid["translate"], atol=1e-3)):
        raise LabelError(
            f"The layer {layer.name} is not placed like the image {image.name}. "
            "Make a new labels layer while the image is open, and paint on that."
        )
    layer.metadata[KEY] = Origin("prediction", origin.geometry, origin.case_id, name=layer.name)


def label_map_of(layer: Labels) -> LabelMap:
    """Label map of a labels layer, in stored order, voxel for voxel; shares memory with the layer.

    Raises
    ------
    LabelError
        If this package did not make the layer (see `adopt`), or it holds negative values.
    GeometryError
        If its voxels were replaced by an array of another shape.
    """
    label_map = _stored_map(layer)
    values = distinct_values(label_map.data).tolist()
    if values and values[0] < 0:
        raise LabelError(f"The layer {layer.name} holds the negative value {values[0]}; labels start at 0.")
    return replace(label_map, table=label_map.table.covering(values))


def _stored_map(layer: Labels) -> LabelMap:
    origin = origin_of(layer, Labels)
    data = np.asarray(layer.data)
    expected = tuple(
        origin.geometry.shape[int(axis)] for axis in np.argsort(origin.geometry.orientation_to(SCREEN)[:, 0])
    )
    if data.shape != expected:
        raise GeometryError(f"The layer {layer.name} has shape {data.shape}, its source {expected}; undo the change.")
    return LabelMap(stored(data, origin.geometry), origin.geometry, origin.table, origin.name, origin.source)


def mark_saved(layer: Labels, path: Path) -> None:
    """Remember the file that now holds the layer's voxels."""
    layer.metadata[KEY] = replace(origin_of(layer, Labels), path=path)


def snapshot(layer: Labels) -> LabelMap:
    """Copy of the layer's label map, for work in the background while the user paints on.

    Its table is that of the layer's source: looking up which values occur would hold up the window.

    Raises
    ------
    LabelError, GeometryError
        As `label_map_of`.
    """
    label_map = _stored_map(layer)
    return label_map.with_data(np.array(label_map.data, order="K", subok=False))


def warm_up() -> None:
    """Make and forget a tiny layer: napari reads its table of units and pandas with the first one, which takes 0.6 s.

    For the worker thread, so that the window does not wait for it.
    """
    geometry = Geometry.with_spacing((1, 1, 1))
    truth_layer(LabelMap(np.zeros(geometry.shape, np.uint8), geometry))


def geometry_on_screen(shape: Sequence[int], scale: Sequence[float], translate: Sequence[float]) -> Geometry:
    """Geometry of a layer that this package did not make, taking its world for the screen's −(S, A, R) in mm.

    Raises
    ------
    GeometryError
        If the layer is not 3-D.
    """
    if len(shape) != 3:
        raise GeometryError(f"Expected a layer with 3 dimensions, got {len(shape)}.")
    affine = np.zeros((4, 4))
    # Rows of the affine are R, A, S; its columns the layer's axes I, P, L.
    for row, axis in enumerate((2, 1, 0)):
        affine[row, axis] = -scale[axis]
        affine[row, 3] = -translate[axis]
    affine[3, 3] = 1
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)
