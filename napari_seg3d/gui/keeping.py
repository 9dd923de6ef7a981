"""Every edit of a corrected layer on disk as it happens, and back in the layer after a crash.

One journal for each layer of a case that is edited, in ``journals/`` beside the corrections. It begins with an empty
grid and, as its first edit, with what the layer held: so it needs no other file to be restored, until a saved version
(which is never written over) takes that place. Beside it a note tells which images were corrected on.

All disk work is done in one thread; a stroke only hands over its voxels.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, Signal

from ..cases.names import natural_key
from ..correction.change import Change
from ..correction.journal import Journal, Mark, Pending, Restored, discard, pending
from ..correction.journal_file import EDIT, REDO, UNDO, journal_path
from ..errors import CorrectionError, FileError, Seg3dError
from ..volumes.atomic import write_whole
from ..volumes.files import read_label_map
from ..volumes.volume import LabelMap, LabelTable
from .edits import STROKE, Edit
from .layers import adopt, label_map_of, origin_or_none, prediction_layer

if TYPE_CHECKING:
    from napari import Viewer

    from ..cases.case import Case
    from .case_view import CaseView
    from .edits import LayerEdits
    from .saving import Saver
    from .workspace import Workspace

#: What the first edit of a journal is called: what the layer held before anybody edited it.
OPENED = "As it was opened"
#: So many layers of one case, or windows, can have a journal at once.
_SLOTS = 9
#: Milliseconds are enough at the end of the program, unless the disk hangs.
_END_S = 4.0


# ------------------------------------------------------------------------------------------------- without a window


@dataclass(frozen=True)
class Offer:
    """Edits that were not saved and can be restored.

    Parameters
    ----------
    pending : Pending
    doubt : str
        Why to think twice: an image or the file that was corrected has changed since.
    """

    pending: Pending
    doubt: str = ""

    @property
    def case_id(self) -> str:
        """Of which case."""
        return self.pending.case_id

    @property
    def edits(self) -> int:
        """Edits, undos and redos of the user."""
        return edits_in(self.pending)

    @property
    def words(self) -> str:
        """In words: "214 edits to case 017"."""
        return replace(self.pending, edits=self.edits).words


@dataclass(frozen=True, eq=False)
class Found:
    """A journal that was read and goes on: what the layer is to hold, and what it held when it was begun."""

    journal: Journal
    restored: Restored
    base: LabelMap
    path: Path | None = field(default=None)


def edits_in(left: Pending) -> int:
    """Return the number of edits of the user in a journal: the first one may be what was opened."""
    return max(0, left.edits - (left.base is not None and left.base.first == 1))


def slots(folder: Path) -> Iterator[Path]:
    """Yield the folders in which journals lie, each with at most one of a case."""
    yield folder
    yield from (folder / str(number) for number in range(2, _SLOTS + 1))


def left_over(folder: Path) -> tuple[Offer, ...]:
    """Return what can be restored, by case; journals in which nothing was edited are removed."""
    found: list[Offer] = []
    for slot in slots(folder):
        for left in pending(slot):
            if left.problem or edits_in(left):
                found.append(Offer(left))
            else:
                with contextlib.suppress(Seg3dError):
                    forget(left.path)
    return tuple(sorted(found, key=lambda offer: natural_key(offer.case_id)))


def forget(path: Path) -> None:
    """Delete a journal and its note.

    Raises
    ------
    CorrectionError
        If it is open in another window.
    """
    discard(path)
    _images_file(path).unlink(missing_ok=True)


def begin(
    folder: Path,
    case_id: str,
    content: LabelMap,
    *,
    version: str = "",
    sha256: str = "",
    own: frozenset[Path] = frozenset(),
    tell: Callable[[FileError], None] | None = None,
) -> tuple[Journal, bool]:
    """Begin a journal in the first free place, and tell whether another window edits the case too.

    Parameters
    ----------
    folder : Path
    case_id : str
    content : LabelMap
        What the layer holds; becomes the first edit.
    version, sha256 : str
        The file it came from, if there is one.
    own : set of Path
        Journals of this window.
    tell : callable, optional
        As of `Journal.start`.

    Raises
    ------
    CorrectionError, FileError
        As `Journal.start`, and if there are too many journals of the case.
    """
    empty = content.with_data(np.zeros_like(content.data))
    elsewhere = False
    for slot in slots(folder):
        path = journal_path(slot, case_id)
        if path in own:
            continue
        left = next((left for left in pending(slot) if left.path == path), None)
        if left is not None and (left.problem or edits_in(left)):
            continue
        try:
            if left is not None:
                forget(path)
            journal = Journal.start(slot, case_id, empty, version=version, source_sha256=sha256, tell=tell)
        except CorrectionError:
            elsewhere = True
            continue
        places = content.data.nonzero()
        journal.append(places, content.data[places], OPENED)
        return journal, elsewhere
    raise CorrectionError(f"There are {_SLOTS} journals of edits to {case_id} already. Restore or discard them first.")


def fingerprints(case: Case) -> dict[str, int]:
    """Return a checksum of each image's voxels."""
    found = {}
    for name, volume in case.modalities.items():
        # In the order in which it lies in memory: nothing is copied.
        voxels: Any = volume.data.ravel("K").view(np.uint8)
        found[name] = zlib.crc32(voxels)
    return found


def note_images(path: Path, case: Case) -> None:
    """Note beside a journal which images its edits were made on."""
    with write_whole(_images_file(path)) as temporary:
        os.chmod(temporary, 0o600)
        temporary.write_text(json.dumps(fingerprints(case)), encoding="utf-8")


def changed_images(path: Path, case: Case) -> list[str]:
    """Return the names of images that are not those on which a journal's edits were made."""
    try:
        before: Mapping[str, Any] = dict(json.loads(_images_file(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        # The note follows the journal by a moment; without it nothing is known.
        return []
    now = fingerprints(case)
    return [name for name, value in before.items() if now.get(name) != value]


def find(left: Pending, case: Case, output: Path, *, sure: bool, tell: Callable[[FileError], None]) -> Found | str:
    """Read a journal and go on with it; or return why to think twice, unless the user is `sure`.

    Raises
    ------
    Seg3dError
        If it cannot be restored; the journal is left as it is.
    """
    base = left.base
    if base is None:
        raise FileError(left.problem or f"{left.path.name} cannot be read.")
    table = LabelTable() if case.files is None else case.files.table
    grid = LabelMap(np.zeros(case.geometry.shape, base.dtype), case.geometry, table)
    file = _file_of(base.version, left.case_id, output)
    doubts = [f"the image {name} is another than then" for name in changed_images(left.path, case)]
    same = file is not None and _sha256(file) == base.source_sha256
    if base.source_sha256 and not same:
        doubts.append(f"{base.version} has changed or is gone")
    if doubts and not sure:
        return "; ".join(doubts)
    labels = read_label_map(file, table) if file is not None and same else grid
    journal, restored = Journal.resume(left.path, grid if base.first == 1 else labels, tell=tell)
    return Found(journal, restored, labels, file if same else None)


def _file_of(version: str, case_id: str, output: Path) -> Path | None:
    """Return the file that a journal began with: named below the project folder, or a version of the case."""
    if not version:
        return None
    named = Path(version)
    file = output / ("corrections/" + case_id if len(named.parts) == 1 else "") / named
    return file if not named.is_absolute() and ".." not in named.parts and file.is_file() else None


def _images_file(path: Path) -> Path:
    return path.with_suffix(".images.json")


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


class Kept:
    """The journal of one layer: begun in the background at the first edit, which waits for it in memory.

    Parameters
    ----------
    case_id : str
    content : LabelMap
        What the layer holds now; must not change afterwards.
    path : Path, optional
        The file it came from.
    refused : callable, optional
        Told, once, that the journal cannot hold an edit: a label that is too large for the layer's own type.
    """

    def __init__(
        self,
        case_id: str,
        content: LabelMap,
        path: Path | None = None,
        refused: Callable[[CorrectionError], None] | None = None,
    ) -> None:
        self.case_id = case_id
        self.content = content
        #: What was read or saved last.
        self.last_saved = content
        self.path = path
        self.journal: Journal | None = None
        #: Why edits are not kept.
        self.failed = False
        #: Whether the user does not want the edits.
        self.unwanted = False
        self.begun = False
        self.edits = 0
        self._refused = refused
        self._waiting: list[Edit] = []
        self._mark: Mark | None = None
        self._lock = threading.Lock()

    def add(self, edit: Edit) -> None:
        """Keep an edit; takes well under a millisecond for a stroke."""
        self.edits += 1
        with self._lock:
            if self.journal is None:
                if not self.failed:
                    self._waiting.append(edit)
                return
        self._append(self.journal, edit)

    def _append(self, journal: Journal, edit: Edit) -> None:
        what = edit.what
        kind = UNDO if what.startswith("Undo: ") else REDO if what.startswith("Redo: ") else EDIT
        try:
            journal.append(edit.change.indices, edit.change.values, what, kind=kind)
        except CorrectionError as error:
            refused, self._refused = self._refused, None
            if refused is not None:
                refused(error)

    def go_on_with(self, journal: Journal) -> None:
        """Write edits to this journal from now on, after those that waited for it."""
        while True:
            with self._lock:
                waiting, self._waiting = self._waiting, []
                if not waiting:
                    self.journal, self.begun = journal, True
                    return
            for edit in waiting:
                self._append(journal, edit)

    def give_up(self) -> None:
        """Keep no edits: there is no place for them."""
        with self._lock:
            self.failed = True
            self._waiting.clear()

    def mark(self, saving: LabelMap) -> None:
        """Take down the moment of a save, if the journal holds exactly what is being saved."""
        self._mark = None
        if self.journal is None:
            return
        mark = self.journal.mark()
        # A stroke that is half drawn is saved but not an edit yet: then the journal simply goes on as it is.
        if np.array_equal(mark.data, np.ascontiguousarray(saving.data).reshape(-1)):
            self._mark = mark

    def saved(self, path: Path) -> None:
        """Begin the journal anew on a version that was saved; it is read once more."""
        mark, self._mark = self._mark, None
        if mark is not None and self.journal is not None:
            self.journal.saved(mark, path)

    def end(self, *, keep: bool) -> None:
        """Close the journal; without `keep` its edits are not wanted any more."""
        if self.journal is None:
            return
        journal = self.journal
        if keep:
            journal.close()
        else:
            journal.discard()
            journal.path.unlink(missing_ok=True)
            _images_file(journal.path).unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------- in a window


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
        sha256 = _sha256(kept.path) if kept.path is not None and inside else ""
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
