"""A predicted label file becomes a layer of its case, beside the truth and whatever else is there, never over it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Labels

from ..events import Event, Finished
from ..volumes.volume import LabelMap
from .layers import origin_or_none, prediction_layer
from .session import session_for
from .work import Job

if TYPE_CHECKING:
    from napari import Viewer

    from .workspace import Workspace


@dataclass(frozen=True)
class _Wish:
    case_id: str
    path: Path
    name: str


class LabelsFromFile:
    """Shows label files as layers of the open case; opens the case first if it is another one.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    """

    def __init__(self, workspace: Workspace, viewer: Viewer) -> None:
        self._workspace = workspace
        self._viewer = viewer
        self._pending: _Wish | None = None
        self._reading: dict[Job, _Wish] = {}
        # Held weakly by the signals: it goes with its panel.
        session_for(viewer).view.shown.connect(self._case_shown)
        workspace.job_event.connect(self._take)
        workspace.job_ended.connect(self._ended)

    def show(self, case_id: str, path: Path, name: str) -> None:
        """Show the label file of a case in a layer of that name, or bring the layer that holds it to the front."""
        wish = _Wish(case_id, path, name)
        if not path.is_file():
            self._workspace.say("warning", f"There is no file {path}; it has been moved or deleted.")
        elif self._workspace.case_id != case_id:
            if self._workspace.unsaved:
                names = ", ".join(sorted(self._workspace.unsaved))
                self._workspace.say("warning", f"Edits of {names} are not saved. Save them first, then open {case_id}.")
                return
            self._pending = wish
            self._workspace.open_case(case_id)
        else:
            self._read(wish)

    def add(self, label_map: LabelMap, case_id: str, name: str, path: Path | None = None) -> Labels | None:
        """Add labels in memory as a layer of the open case; None, with a message, if they do not fit it."""
        case = self._workspace.case
        if case is None or case.id != case_id:
            return None
        if difference := case.geometry.difference(label_map.geometry):
            self._workspace.say("error", f"The labels of {case_id} lie on another grid than its images ({difference}).")
            return None
        layer = prediction_layer(label_map, name=name, case_id=case_id, path=path)
        self._viewer.add_layer(layer)
        return layer

    def _read(self, wish: _Wish) -> None:
        if (layer := self._layer_of(wish)) is not None:
            layer.visible = True
            self._viewer.layers.selection.active = layer
            return
        dataset = self._workspace.dataset
        files = None if dataset is None else dataset[wish.case_id]
        kwargs = {"path": wish.path, "files": files}
        job = Job(f"Reading {wish.path.name}", "napari_seg3d.gui.tasks:read_labels", kwargs, "thread", "labels", True)
        self._reading[job] = wish
        self._workspace.start(job)

    def _layer_of(self, wish: _Wish) -> Labels | None:
        """Return the layer that already holds the file as it is now on disk."""
        for layer in self._viewer.layers:
            origin = origin_or_none(layer)
            if isinstance(layer, Labels) and origin is not None and origin.path == wish.path:
                source = origin.source
                if source is not None and source.mtime_ns == wish.path.stat().st_mtime_ns:
                    return layer
        return None

    def _case_shown(self) -> None:
        wish, self._pending = self._pending, None
        if wish is not None and wish.case_id == self._workspace.case_id:
            self._read(wish)

    def _take(self, job: Job, event: Event) -> None:
        wish = self._reading.get(job)
        if wish is not None and isinstance(event, Finished):
            self.add(event.result, wish.case_id, wish.name, wish.path)

    def _ended(self, job: Job, _how: str) -> None:
        self._reading.pop(job, None)
