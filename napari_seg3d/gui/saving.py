"""Saving a painted layer: as a new version among the corrections, or under a chosen name; in the background."""

from __future__ import annotations

import getpass
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from numpy.typing import NDArray
from psygnal import Signal

from ..errors import DatasetError, Seg3dError
from ..events import Event, Failed, Finished
from .layers import mark_saved, on_screen, origin_of, snapshot
from .work import Job

if TYPE_CHECKING:
    from ..volumes.volume import LabelMap
    from .case_view import CaseView
    from .workspace import Workspace


class Saver:
    """Saves layers, one job each, and tells how that ended.

    What is saved is a copy of the moment: strokes made meanwhile stay unsaved edits. Originals are never written over.

    Parameters
    ----------
    workspace : Workspace
    view : CaseView
    """

    #: Layer and copy of its labels: the moment that is being saved.
    begun = Signal(object, object)
    #: Layer and file: written, read again, identical.
    saved = Signal(object, Path)
    #: Layer, sentence, details.
    failed = Signal(object, str, str)

    def __init__(self, workspace: Workspace, view: CaseView) -> None:
        self._workspace = workspace
        self._view = view
        self._running: dict[Job, tuple[Labels, NDArray[Any]]] = {}
        workspace.job_event.connect(self._take_event)

    def save_version(self, layer: Labels) -> None:
        """Save a layer as the next version of its case.

        Raises
        ------
        Seg3dError
            If the layer cannot be saved; the message says why.
        """
        origin = origin_of(layer, Labels)
        if not origin.case_id:
            raise DatasetError(f"The layer {layer.name} belongs to no case of the dataset. Use “Save as…” instead.")
        kwargs = {
            "folder": self._workspace.corrections_folder,
            "case_id": origin.case_id,
            "based_on": self._view.saved_map(layer),
            "author": user(),
            "seconds": self._view.seconds_of_work(layer),
            "parents": origin.parents,
        }
        self._start(layer, "save_new_version", kwargs)

    def save_as(self, layer: Labels, path: Path, *, overwrite: bool) -> None:
        """Save a layer under a chosen name; `overwrite` only after the user has agreed.

        Raises
        ------
        Seg3dError
            If the layer cannot be saved, or `path` is one of the dataset's own files.
        """
        if path.resolve() in self._originals():
            raise DatasetError(f"{path.name} is an original of the dataset and is kept. Choose another name.")
        self._start(layer, "save_as", {"path": path, "overwrite": overwrite})

    def _originals(self) -> set[Path]:
        dataset = self._workspace.dataset
        cases = () if dataset is None else dataset.cases
        files = [file.path for case in cases for file in case.modalities.values()]
        files += [path for case in cases for path in (case.truth, case.mask) if path is not None]
        return {path.resolve() for path in files}

    def _start(self, layer: Labels, function: str, kwargs: dict[str, Any]) -> None:
        label_map = self._with_source(snapshot(layer))
        job = Job(
            f"Saving {layer.name}",
            f"napari_seg3d.gui.tasks:{function}",
            {**kwargs, "label_map": label_map},
            "thread",
            "save",
            quick=True,
        )
        self._running[job] = layer, on_screen(label_map.data, label_map.geometry)
        self.begun.emit(layer, label_map)
        self._workspace.start(job)

    def _with_source(self, label_map: LabelMap) -> LabelMap:
        """Give a map that comes from no file the place codes and units of the case's images."""
        case = self._workspace.case
        if label_map.source is not None or case is None or not case.geometry.same_grid(label_map.geometry):
            return label_map
        return replace(label_map, source=next(iter(case.modalities.values())).source)

    def _take_event(self, job: Job, event: Event) -> None:
        if job not in self._running:
            return
        if isinstance(event, Finished):
            layer, data = self._running.pop(job)
            self._view.mark_saved(layer, data)
            mark_saved(layer, event.result)
            self._workspace.refresh_results()
            self.saved.emit(layer, event.result)
        elif isinstance(event, Failed):
            layer, _ = self._running.pop(job)
            self.failed.emit(layer, event.message, event.details)


def user() -> str:
    """Return the name of who works here; empty if the computer knows none."""
    # A computer without a name for its user is no reason not to save.
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def save_all_or_tell(saver: Saver, view: CaseView, workspace: Workspace) -> bool:
    """Begin to save every layer with unsaved edits; return False, with a message, if one cannot be saved."""
    try:
        for layer in view.unsaved_layers():
            saver.save_version(layer)
    except Seg3dError as error:
        workspace.say("error", str(error))
        return False
    return True
