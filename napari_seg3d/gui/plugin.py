"""What napari.yaml names: widgets, reader, writer, sample data. Quick to import; the rest comes when it is used."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari import Viewer
    from qtpy.QtWidgets import QWidget

    from ..cases.case import Case

LayerTuple = tuple[Any, dict[str, Any], str]
#: File names that speak of labels, as the field writes them.
_LABEL_NAME = re.compile(
    r"(^|[\W_])(seg|dseg|segmentation|mask|brainmask|labels?|labelmap|truth|gt|roi|lesions?|otmulticlass)($|[\W_])",
    re.IGNORECASE,
)
#: More different values than this, and integers without such a name are taken for intensities.
_FEW_VALUES = 16


def seg3d_dock(napari_viewer: Viewer | None = None) -> QWidget:
    """Make the dock with all four pages."""
    from .dock import Seg3DDock

    return Seg3DDock(_open_viewer(napari_viewer))


def data_page(napari_viewer: Viewer | None = None) -> QWidget:
    """Make the Data page alone."""
    from .dock import make_page

    return make_page("Data", _open_viewer(napari_viewer))


def train_page(napari_viewer: Viewer | None = None) -> QWidget:
    """Make the Train page alone."""
    from .dock import make_page

    return make_page("Train", _open_viewer(napari_viewer))


def predict_page(napari_viewer: Viewer | None = None) -> QWidget:
    """Make the Predict page alone."""
    from .dock import make_page

    return make_page("Predict", _open_viewer(napari_viewer))


def review_page(napari_viewer: Viewer | None = None) -> QWidget:
    """Make the Review page alone."""
    from .dock import make_page

    return make_page("Review", _open_viewer(napari_viewer))


def _open_viewer(given: Viewer | None) -> Viewer:
    """Return the viewer that napari hands over, or else the open one: functions, unlike classes, are handed none."""
    import napari

    viewer = given or napari.current_viewer()
    if viewer is None:
        raise RuntimeError("A page of Seg3D needs an open napari viewer.")
    return viewer


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerTuple]] | None:
    """Return the reader for NIfTI files, or None if one of the files is of another kind."""
    paths = [path] if isinstance(path, str) else list(path)
    if not all(str(one).lower().endswith((".nii", ".nii.gz")) for one in paths):
        return None
    return read_files


def read_files(path: str | Sequence[str]) -> list[LayerTuple]:
    """Read NIfTI files as image or labels layers, shown as radiologists read them.

    A file holds labels if its name says so, or if it stores a handful of small integers; else intensities. The volumes
    of a 4-D file become one layer each.

    Raises
    ------
    FileError, GeometryError, LabelError
        As `volumes.files` does.
    """
    from ..errors import LabelError
    from ..volumes.files import inspect_file, read_label_map, read_volume, strip_suffix
    from .layers import image_arguments, labels_arguments

    layers: list[LayerTuple] = []
    for one in [path] if isinstance(path, str) else path:
        info = inspect_file(one)
        if info.channels > 1:
            for channel in range(info.channels):
                volume = read_volume(one, channel=channel)
                name = f"{strip_suffix(one)} [{channel}]"
                layers.append((*image_arguments(volume, name=name, visible=channel == 0), "image"))
            continue
        if _holds_labels(Path(one), info.dtype):
            try:
                label_map = read_label_map(one)
                layers.append((*labels_arguments(label_map, name=strip_suffix(one), path=Path(one)), "labels"))
                continue
            except LabelError:
                # The name promised labels but the voxels are intensities: the voxels are right.
                pass
        layers.append((*image_arguments(read_volume(one), name=strip_suffix(one)), "image"))
    return layers


def _holds_labels(path: Path, dtype: str) -> bool:
    from ..volumes.files import read_volume, strip_suffix
    from ..volumes.volume import distinct_values

    folder_says = path.parent.name.lower() in ("labels", "labelstr", "labelsts", "predictions", "masks")
    if folder_says or _LABEL_NAME.search(strip_suffix(path)):
        return True
    if not dtype.startswith(("int", "uint")):
        return False
    values = distinct_values(read_volume(path).data)
    return len(values) <= _FEW_VALUES and values.min() >= 0 and values.max() < 256


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write one labels layer as NIfTI with its source's geometry; the file is read again and compared.

    A layer that this package did not make is written with its scale and translation, as the viewer shows it.

    Raises
    ------
    LabelError, FileError
        If the layer cannot be written.
    """
    from napari.layers import Labels

    from ..volumes.files import write_label_map
    from .layers import KEY, Origin, geometry_on_screen, label_map_of

    target = path if path.lower().endswith((".nii", ".nii.gz")) else f"{path}.nii.gz"
    metadata = dict(meta.get("metadata", {}))
    if not isinstance(metadata.get(KEY), Origin):
        metadata[KEY] = Origin("prediction", geometry_on_screen(data.shape, meta["scale"], meta["translate"]))
    layer = Labels(data, name=meta.get("name", "labels"), metadata=metadata)
    # napari's own dialogue has asked already whether a file of that name may be replaced.
    return [str(write_label_map(target, label_map_of(layer), overwrite=True))]


def sample_brain() -> list[LayerTuple]:
    """Make a brain study with a tumour: FLAIR, T1, T1c, T2 and the truth."""
    from ..cases.phantoms import brain_phantom

    return _case_layers(brain_phantom(1))


def sample_brain_fine() -> list[LayerTuple]:
    """Make a brain study with a tumour with twice as many voxels along each axis."""
    from ..cases.phantoms import brain_phantom

    return _case_layers(brain_phantom(2, shape=(144, 160, 64)))


def _case_layers(case: Case) -> list[LayerTuple]:
    from .layers import image_arguments, labels_arguments

    layers: list[LayerTuple] = []
    for place, (name, volume) in enumerate(case.modalities.items()):
        layers.append((*image_arguments(volume, name=name, visible=place == 0), "image"))
    if case.truth is not None:
        layers.append((*labels_arguments(case.truth, role="truth", name="truth"), "labels"))
    return layers
