"""Every edit of a corrected layer on disk as it happens, and back in the layer after a crash.

One journal for each layer of a case that is edited, in ``journals/`` beside the corrections. It begins with an empty
grid and, as its first edit, with what the layer held: so it needs no other file to be restored, until a saved version
(which is never written over) takes that place. Beside it a note tells which images were corrected on.

All disk work is done in one thread; a stroke only hands over its voxels.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, Signal

from ..correction.change import Change
from ..errors import CorrectionError, FileError, Seg3dError
from ..volumes.volume import LabelMap
from .edits import STROKE, Edit
from .kept import Found, Kept, Offer, begin, find, forget, left_over, note_images, sha256_of
from .layers import adopt, label_map_of, origin_or_none, prediction_layer

if TYPE_CHECKING:
    from napari import Viewer

    from ..cases.case import Case
    from .case_view import CaseView
    from .edits import LayerEdits
    from .saving import Saver
    from .workspace import Workspace

#: Milliseconds are enough at the end of the program, unless the disk hangs.
_END_S = 4.0


class _Layer:
    """One layer that is kept: its edits go to its journal."""

    def __init__(self, keeper: Keeper, layer: Labels, edits: LayerEdits, kept: Kept) -> None:
        self.layer, self.edits, self.kept = layer, edits, kept
        self.restoring = False
        self._keeper = keeper
        edits.made.connect(self._made)
        layer.events.mode.connect(self._mode_changed)

    def close(self) -> None:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            self.edits.made.disconnect(self._made)
        self.layer.events.mode.disconnect(self._mode_changed)

    def _made(self, edit: Edit) -> None:
        if not self.restoring:
            self.kept.add(edit)
            self._keeper._begin(self)

    def _mode_changed(self) -> None:
        # The journal is open before the first stroke ends.
        if str(self.layer.mode) not in ("pan_zoom", "transform", "pick"):
            self._keeper._begin(self)


class Keeper(QObject):
    """Keeps the edits of all layers of one viewer, and restores what a crash has left.

    Parameters
    ----------
    workspace : Workspace
    viewer : napari.Viewer
    view : CaseView
    saver : Saver
    """

    #: Edits were found that can be restored, or there are none any more.
    offers_changed = Signal()
    _in_window = Signal(object)

    def __init__(
        self, workspace: Workspace, viewer: Viewer, view: CaseView, saver: Saver, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._workspace, self._viewer, self._view, self._saver = workspace, viewer, view, saver
        self.offers: tuple[Offer, ...] = ()
        self._later: set[Path] = set()
        self._wanted: tuple[Offer, bool] | None = None
        self._layers: dict[Labels, _Layer] = {}
        self._own: frozenset[Path] = frozenset()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keeping edits")
        self._closed = False
        self._in_window.connect(self._call)
        viewer.layers.events.inserted.connect(self._look_at_layers)
        viewer.layers.events.removed.connect(self._look_at_layers)
        view.edited.connect(self._attach)
        view.shown.connect(self._case_shown)
        saver.begun.connect(self._save_begun)
        saver.saved.connect(self._save_ended)
        workspace.dataset_changed.connect(self.look)
        self._look_at_layers()

    def close(self) -> None:
        """Let go of all journals; those with edits that are not saved stay."""
        if self._closed:
            return
        self._closed = True
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
            event.disconnect(self._look_at_layers)
        for layer in list(self._layers):
            self._detach(layer)
        self._thread.shutdown(wait=False)
        ended = threading.Thread(target=self._thread.shutdown, daemon=True)
        ended.start()
        ended.join(_END_S)

    def wait(self) -> None:
        """Wait until all disk work so far is done; its answers come with the next events of the window."""
        self._thread.submit(lambda: None).result()

    @property
    def folder(self) -> Path | None:
        """Where the journals of the open project lie."""
        return None if self._workspace.output is None else self._workspace.output / "journals"

    # Keeping

    def _look_at_layers(self) -> None:
        for layer in [layer for layer in self._layers if layer not in self._viewer.layers]:
            self._detach(layer)
        for layer in self._viewer.layers:
            self._attach(layer)

    def _attach(self, layer: Layer) -> None:
        if not isinstance(layer, Labels) or layer in self._layers or self._closed or layer not in self._viewer.layers:
            return
        origin = origin_or_none(layer)
        if origin is None:
            # napari keeps one connection of a method, however often it is connected.
            layer.events.paint.connect(self._painted)
            return
        if not origin.case_id or origin.role != "prediction" or layer.locked:
            return
        try:
            edits = self._view.edits_of(layer)
            saved = self._view.saved_map(layer)
            now = label_map_of(layer)
        except Seg3dError:
            return
        # What the user began himself begins with nothing: all that is in it is an edit.
        content = now.with_data(np.zeros_like(now.data)) if saved is None else saved
        one = self._layers[layer] = _Layer(self, layer, edits, Kept(origin.case_id, content, origin.path, self._refuse))
        if saved is None and now.data.any():
            x, y, z = now.data.nonzero()
            painted = now.data[x, y, z]
            one.kept.add(Edit(Change((x, y, z), painted, STROKE), np.zeros_like(painted)))
            self._begin(one)

    def _painted(self, event: Any) -> None:
        """Let a layer of the user's own be part of the case as soon as something is painted in it."""
        layer = event.source
        images = (other for other in self._viewer.layers if isinstance(other, Image))
        image = next((other for other in images if (found := origin_or_none(other)) and found.case_id), None)
        free = origin_or_none(layer) is None and layer in self._viewer.layers and not self._closed
        if image is not None and free:
            # One that does not fit the case is the user's own affair.
            with contextlib.suppress(Seg3dError):
                adopt(layer, image)
                self._view.watch(layer)

    def _detach(self, layer: Labels) -> None:
        one = self._layers.pop(layer)
        one.close()
        kept = one.kept
        keep = not kept.unwanted and not np.array_equal(one.edits.labels, kept.last_saved.data)
        self._do(lambda: self._end(kept, keep))

    def _end(self, kept: Kept, keep: bool) -> None:
        if kept.journal is not None:
            self._own -= {kept.journal.path}
        kept.end(keep=keep)

    def _begin(self, one: _Layer) -> None:
        kept, folder, case = one.kept, self.folder, self._workspace.case
        if kept.begun or folder is None:
            return
        kept.begun = True
        output = self._workspace.output or folder.parent
        self._do(lambda: self._begin_journal(kept, folder, output, case))

    def _begin_journal(self, kept: Kept, folder: Path, output: Path, case: Case | None) -> None:
        inside = kept.path is not None and kept.path.is_relative_to(output)
        version = kept.path.relative_to(output).as_posix() if kept.path is not None and inside else ""
        sha256 = sha256_of(kept.path) if kept.path is not None and inside else ""
        try:
            journal, elsewhere = begin(
                folder, kept.case_id, kept.content, version=version, sha256=sha256, own=self._own, tell=self._tell
            )
        except Seg3dError as error:
            kept.give_up()
            reason = str(error)
            self._say("warning", f"Edits to {kept.case_id} are not kept on disk until they are saved. {reason}")
            return
        self._own |= {journal.path}
        kept.go_on_with(journal)
        if elsewhere:
            self._say(
                "warning",
                f"The case {kept.case_id} is being edited in another window too. Both windows keep their edits and "
                "save versions of their own; neither sees the other's.",
            )
        if case is not None and case.id == kept.case_id:
            with contextlib.suppress(FileError):
                note_images(journal.path, case)

    def _save_begun(self, layer: Labels, label_map: LabelMap) -> None:
        if layer in self._layers:
            one = self._layers[layer]
            # A hidden layer that was undone has announced nothing.
            one.edits.look()
            self._do(lambda: one.kept.mark(label_map))

    def _save_ended(self, layer: Labels, path: Path) -> None:
        one = self._layers.get(layer)
        if one is not None and self._workspace.output is not None:
            one.kept.last_saved = self._view.saved_map(layer) or one.kept.last_saved
            # A file elsewhere is the user's own affair: the journal stays what leads back here.
            if path.parent.parent == self._workspace.corrections_folder:
                self._do(lambda: one.kept.saved(path))

    def discard_edits(self, layers: list[Labels]) -> None:
        """Keep the edits of these layers no longer than they are open: the user has said so."""
        for layer in layers:
            if layer in self._layers:
                self._layers[layer].kept.unwanted = True

    # Restoring

    def look(self) -> None:
        """Look for edits that a crash has left; `offers_changed` follows if there are others than before."""
        folder = self.folder
        if folder is None:
            self._set_offers(())
        else:
            self._do(lambda: self._answer(self._set_offers, left_over(folder)))

    def _set_offers(self, offers: tuple[Offer, ...]) -> None:
        offers = tuple(offer for offer in offers if offer.pending.path not in self._later)
        if offers != self.offers:
            self.offers = offers
            self.offers_changed.emit()

    def offer_for(self, case_id: str | None) -> Offer | None:
        """Return what can be restored of a case."""
        return next((offer for offer in self.offers if offer.case_id == case_id), None)

    def later(self, offer: Offer) -> None:
        """Do not ask again before the next start."""
        self._later.add(offer.pending.path)
        self._set_offers(self.offers)

    def discard(self, offer: Offer) -> None:
        """Delete edits that were not saved."""
        path = offer.pending.path
        self._set_offers(tuple(other for other in self.offers if other.pending.path != path))
        self._do(lambda: forget(path))

    def restore(self, offer: Offer) -> None:
        """Put edits back into the open case; of another case, as soon as that is shown."""
        sure = bool(offer.doubt)
        if self._workspace.case_id != offer.case_id or self._workspace.case is None:
            self._wanted = offer, sure
            return
        case, output = self._workspace.case, self._workspace.output
        if output is None:
            return
        self._set_offers(tuple(other for other in self.offers if other.pending.path != offer.pending.path))
        self._do(lambda: self._find(offer, case, output, sure))

    def _find(self, offer: Offer, case: Case, output: Path, sure: bool) -> None:
        try:
            found = find(offer.pending, case, output, sure=sure, tell=self._tell)
        except Seg3dError as error:
            self._say("error", f"The {offer.words} cannot be restored; they are kept. {error}")
            return
        if isinstance(found, str):
            doubtful = replace(offer, doubt=found)
            self._answer(lambda: self._set_offers((doubtful, *self.offers)))
            return
        self._own |= {found.journal.path}
        self._answer(self._put_back, offer, found)

    def _put_back(self, offer: Offer, found: Found) -> None:
        """Put what was read into a layer, as one step to undo."""
        case = self._workspace.case
        if case is None or case.id != offer.case_id:
            found.journal.close()
            self._own -= {found.journal.path}
            self.look()
            return
        one = self._layer_for(offer, found)
        labels, restored = one.edits.labels, found.restored.data
        x, y, z = np.nonzero(labels != restored)
        change = Change((x, y, z), restored[x, y, z].astype(labels.dtype), f"Restore {offer.words}")
        one.restoring = True
        try:
            one.edits.make(change)
        finally:
            one.restoring = False
        one.kept.go_on_with(found.journal)
        self._viewer.layers.selection.active = one.layer
        when = found.restored.when
        last = "" if when is None else f", the last of {when.astimezone():%d %b, %H:%M}"
        damaged = " The journal was damaged: later edits are lost." if found.restored.damaged else ""
        self._workspace.say(
            "warning" if damaged else "info",
            f"Restored {offer.words}{last}, in the layer {one.layer.name}. Ctrl+Z takes them back together.{damaged}",
        )

    def _layer_for(self, offer: Offer, found: Found) -> _Layer:
        """Return the untouched layer of the file that was edited, or a new one with what was opened then."""
        for layer, one in self._layers.items():
            origin = origin_or_none(layer)
            untouched = one.kept.journal is None and not one.kept.edits and not one.kept.begun
            if untouched and found.path is not None and origin is not None and origin.path == found.path:
                return one
        name = "restored" if found.path is None else f"{found.path.name.split('.')[0]} (restored)"
        layer = prediction_layer(found.base, name=name, case_id=offer.case_id, path=found.path)
        self._viewer.add_layer(layer)
        self._attach(layer)
        return self._layers[layer]

    def _case_shown(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is not None and wanted[0].case_id == self._workspace.case_id:
            self.restore(wanted[0])
        self.look()

    # Between the threads

    def _do(self, work: Callable[[], Any]) -> None:
        def guarded() -> None:
            try:
                work()
            except Seg3dError as error:
                self._say("warning", str(error))

        with contextlib.suppress(RuntimeError):
            self._thread.submit(guarded)

    def _call(self, call: Callable[[], Any]) -> None:
        call()

    def _answer(self, call: Callable[..., Any], *values: Any) -> None:
        # The window may have gone meanwhile.
        with contextlib.suppress(RuntimeError):
            self._in_window.emit(lambda: None if self._closed else call(*values))

    def _say(self, level: str, text: str) -> None:
        self._answer(self._workspace.say, level, text)

    def _refuse(self, error: CorrectionError) -> None:
        self._say("warning", f"Not every edit is kept on disk any more; save soon. {error}")

    def _tell(self, error: FileError) -> None:
        self._say("warning", f"{error} They are kept in memory and tried again. Save soon.")
