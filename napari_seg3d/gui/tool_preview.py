"""What a tool would change, shown as a layer of its own before it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Labels

from .layers import labels_arguments
from .tool_runs import preview_map

if TYPE_CHECKING:
    from napari import Viewer

    from ..correction.change import Change
    from ..volumes.geometry import Geometry
    from ..volumes.volume import LabelMap, LabelTable

#: Names of the layers that are no part of a case, but help to work on it.
PREVIEW, SEEDS = "preview", "seeds"


def preview_layer(change: Change, geometry: Geometry, table: LabelTable, case_id: str) -> Labels:
    """Layer of what a change would paint; it cannot be painted on."""
    layer = helping_layer(preview_map(change, geometry, table), PREVIEW, case_id)
    layer.opacity = 0.9
    layer.editable = False
    return layer


def helping_layer(label_map: LabelMap, name: str, case_id: str) -> Labels:
    """Layer on the grid of a case that is no label map of it: it is neither judged nor saved."""
    data, arguments = labels_arguments(label_map, role="patch", name=name, case_id=case_id)
    layer = Labels(data, **arguments)
    # Locked layers of ours are left as they are when they come in.
    layer.locked = True
    return layer


def remove_layer(viewer: Viewer, layer: Labels | None) -> None:
    """Take a layer out of the viewer, if it is still there."""
    if layer is not None and layer in viewer.layers:
        layer.locked = False
        viewer.layers.remove(layer)
