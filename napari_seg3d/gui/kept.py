"""The journals of a project's cases, without a window: begin one, find what a crash has left, go on with it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cases.names import natural_key
from ..correction.journal import Journal, Mark, Pending, Restored, discard, pending
from ..correction.journal_file import EDIT, REDO, UNDO, journal_path
from ..errors import CorrectionError, FileError, Seg3dError
from ..volumes.atomic import write_whole
from ..volumes.files import read_label_map
from ..volumes.volume import LabelMap, LabelTable

if TYPE_CHECKING:
    from ..cases.case import Case
    from .edits import Edit

#: What the first edit of a journal is called: what the layer held before anybody edited it.
OPENED = "As it was opened"
#: So many layers of one case, or windows, can have a journal at once.
_SLOTS = 9


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
    same = file is not None and sha256_of(file) == base.source_sha256
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


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; empty if it cannot be read."""
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
