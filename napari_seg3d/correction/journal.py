r"""Every edit on disk as it happens, so that a crash costs no stroke.

One file for each case that is open, ``<case>.journal``, readable by its owner only. `Journal.append` hands an edit to a
background thread and returns at once; the thread has given it to the operating system a few milliseconds later (at most
`WRITTEN_S`), where it survives the end of the process, and asks for it to be put on the disk, where it survives a power
cut, within `SYNCED_S`. After a save that was read back, `Journal.saved` begins the file anew on the version saved.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ..errors import CorrectionError, FileError, Seg3dError
from ..volumes.atomic import sweep_leftovers, write_whole
from ..volumes.files import read_label_map
from ..volumes.volume import LabelMap
from .journal_file import (
    EDIT,
    REDO,
    SNAPSHOT,
    SUFFIX,
    UNDO,
    Base,
    base_of,
    check_base,
    content_of,
    digest_of,
    flat_labels,
    header_bytes,
    header_of,
    holds_records,
    journal_path,
    packed,
    records_of,
    unpacked,
)

#: After so many seconds an appended edit is with the operating system, at most, and on the disk.
WRITTEN_S, SYNCED_S = 0.5, 2.0
#: A journal is written anew as one snapshot when it is larger than this and than the compressed mask so many times.
LEAST_BYTES, TIMES_MASK = 4 << 20, 8

#: Edits of one stroke come in quick succession; the disk is asked when there is a pause, or when it is time.
_PAUSE_S, _SYNC_S, _RETRY_S = 0.2, 1.0, 2.0
#: A mark or a change of base waits for the edits before it, not for ever.
_TASK_S = 60.0


@dataclass(frozen=True)
class Pending:
    """A journal that a crash, or a decision not to save, has left.

    Parameters
    ----------
    path : Path
    case_id : str
    edits : int
        Edits, undos and redos in it.
    when : datetime, optional
        Of the last edit, UTC.
    base : Base, optional
        None if the file cannot be read.
    problem : str
        Why it cannot be read, or what is wrong with it; mostly empty.
    """

    path: Path
    case_id: str
    edits: int
    when: datetime | None = None
    base: Base | None = None
    problem: str = ""

    @property
    def words(self) -> str:
        """In words: "214 edits to case 017"."""
        return f"{self.edits} edit{'' if self.edits == 1 else 's'} to case {self.case_id}"


@dataclass(frozen=True, eq=False)
class Restored:
    """A label array as it was at the last edit in a journal.

    Parameters
    ----------
    data : (X, Y, Z) integer ndarray
        In the type and memory order of the array it began with.
    edits : int
        Edits, undos and redos in it.
    when : datetime, optional
        Of the last edit, UTC.
    dropped_bytes : int
        What follows the last whole record: an edit that was being written when the machine stopped.
    damaged : bool
        Whether whole records lie behind a damaged one. They cannot be applied: later edits are lost.
    """

    data: NDArray[Any] = field(repr=False)
    edits: int
    when: datetime | None
    dropped_bytes: int
    damaged: bool


@dataclass(frozen=True, eq=False)
class Mark:
    """The labels at one moment, about to be saved; from `Journal.mark`."""

    sequence: int
    data: NDArray[Any] = field(repr=False)


@dataclass(frozen=True, eq=False)
class _Edit:
    kind: int
    sequence: int
    when_s: float
    indices: tuple[NDArray[np.intp], ...]
    new: Any
    words: str


@dataclass(frozen=True, eq=False)
class _Task:
    """Something else to do in the writer's thread, in its turn."""

    run: Callable[[], None]
    done: threading.Event
    failed: list[Exception]


# ---------------------------------------------------------------------------------------------------- restoring


def pending(folder: Path) -> tuple[Pending, ...]:
    """Return the journals that a crash has left in a folder, by case id; those that are open somewhere do not count.

    Half-written files of killed processes are swept away. Journals without edits are passed over.
    """
    if not folder.is_dir():
        return ()
    sweep_leftovers(folder)
    found = []
    for path in sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith(".")):
        with contextlib.suppress(CorrectionError), _locked(path):
            try:
                left = _look_at(path)
            except Seg3dError as error:
                left = Pending(path, path.name.removesuffix(SUFFIX), 0, problem=str(error))
            if left.edits or left.problem:
                found.append(left)
    return tuple(found)


def discard(path: Path) -> None:
    """Delete a journal that is not open anywhere.

    Raises
    ------
    CorrectionError
        If it is open in another window.
    """
    with _locked(path):
        path.unlink(missing_ok=True)


def restore(path: Path, base: LabelMap) -> Restored:
    """Return the labels as they were at the last edit.

    Parameters
    ----------
    path : Path
        The journal.
    base : LabelMap
        What was loaded when the journal began, voxel for voxel.

    Raises
    ------
    FileError
        If the file is no journal, or its header is damaged.
    CorrectionError
        If it began with other labels than `base`.
    GeometryError
        If it began on another grid.
    """
    content = content_of(path)
    begun, start = header_of(content, path)
    check_base(begun, base, path)
    data = base.data.copy(order="K")
    end, last = start, None
    sequence = begun.first - 1
    for record, after in records_of(content, start, begun):
        end = after
        sequence, last = record.sequence, record.when_s
        flat, old, new = unpacked(record, begun, path)
        indices = np.unravel_index(flat, begun.shape)
        if not np.array_equal(data[indices], old):
            raise FileError(f"Edit {sequence} in {path.name} does not fit the edits before it; the file is damaged.")
        data[indices] = new
    return Restored(
        data=data,
        edits=sequence - begun.first + 1,
        when=None if last is None else _moment(last),
        dropped_bytes=len(content) - end,
        damaged=holds_records(content, end, sequence),
    )


# ---------------------------------------------------------------------------------------------------- writing


class Journal:
    """The journal of one open case. Make it with `start` or `resume`, and `close` it."""

    def __init__(
        self,
        path: Path,
        base: Base,
        data: NDArray[Any],
        lock: FileLock,
        tell: Callable[[FileError], None] | None,
        *,
        restored: NDArray[Any] | None = None,
        sequence: int | None = None,
    ) -> None:
        self.path = path
        #: Why edits cannot be written at present (a full disk …); None when all is well. They are kept and tried again.
        self.failure: FileError | None = None
        self._base = base
        self._lock = lock
        self._tell = tell
        # Both in C order and little endian: what a position in the file means.
        self._before = flat_labels(data, base.dtype)
        self._now = self._before.copy() if restored is None else flat_labels(restored, base.dtype)
        self._sequence = base.first - 1 if sequence is None else sequence
        self._written = self._synced = self._sequence
        self._unsynced_since: float | None = None
        self._largest = LEAST_BYTES
        self._measured = False
        self._wake = threading.Condition()
        self._todo: list[_Edit | _Task] = []
        self._stopping = False
        self._file: BinaryIO | None = None
        self._end = 0
        self._begin_anew()
        self._thread = threading.Thread(target=self._work, name=f"journal of {base.case_id}", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @classmethod
    def start(
        cls,
        folder: Path,
        case_id: str,
        base: LabelMap,
        *,
        version: str = "",
        source_sha256: str = "",
        tell: Callable[[FileError], None] | None = None,
    ) -> Journal:
        """Begin a journal.

        Parameters
        ----------
        folder : Path
            Where journals lie; made if it is missing.
        case_id : str
        base : LabelMap
            What was loaded; copied.
        version : str
            What that is, for example a file's name.
        source_sha256 : str
            Of that file.
        tell : callable, optional
            Called from the writing thread when edits cannot be written.

        Raises
        ------
        CorrectionError
            If the case id cannot be a file's name, if the case is open in another window, or if edits are left from
            before: `resume` or `discard` those first.
        FileError
            If the folder cannot be written to.
        """
        path = journal_path(folder, case_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"The folder {folder} cannot be made: {error.strerror}.") from error
        lock = _lock(path)
        try:
            if path.exists() and (left := _look_at(path)).edits:
                raise CorrectionError(f"There are {left.words} that were not saved. Restore or discard them first.")
            return cls(path, base_of(case_id, base, version, source_sha256, first=1), base.data, lock, tell)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def resume(
        cls, path: Path, base: LabelMap, *, tell: Callable[[FileError], None] | None = None
    ) -> tuple[Journal, Restored]:
        """Restore what a crash has left and go on with the same journal.

        Raises
        ------
        CorrectionError, FileError, GeometryError
            As `restore`; or if the case is open in another window. The file is then left as it is.
        """
        lock = _lock(path)
        try:
            restored = restore(path, base)
            begun, _ = header_of(content_of(path), path)
            sequence = begun.first - 1 + restored.edits
            journal = cls(path, begun, base.data, lock, tell, restored=restored.data, sequence=sequence)
        except BaseException:
            lock.release()
            raise
        return journal, restored

    @property
    def edits(self) -> int:
        """Edits, undos and redos since what was loaded or saved last."""
        return self._sequence - self._base.first + 1

    @property
    def written(self) -> int:
        """Number of the last edit that survives the end of this process."""
        return self._written

    @property
    def synced(self) -> int:
        """Number of the last edit that survives a power cut."""
        return self._synced

    def append(self, indices: Iterable[NDArray[Any]], new: Any, what: str = "", *, kind: int = EDIT) -> int:
        """Take down an edit and return its number; `written` tells when it is safe.

        Parameters
        ----------
        indices : three (voxels,) integer ndarrays
            Where, along X, Y, Z. Neither they nor `new` may be changed afterwards: they are not copied. Of a voxel that
            comes twice the last label counts; what stood there before is known.
        new : (voxels,) integer ndarray or int
            The new labels.
        what : str
            What was done, for a list.
        kind : int
            `EDIT`, `UNDO` or `REDO`.

        Raises
        ------
        CorrectionError
            If places and labels do not fit the grid or each other, or the journal is closed.
        """
        places = tuple(np.asarray(along, np.intp) for along in indices)
        if len(places) != 3 or any(along.shape != places[0].shape for along in places):
            raise CorrectionError("Expected as many places along X, Y and Z.")
        if np.ndim(new) and np.shape(new) != places[0].shape:
            raise CorrectionError(f"Expected one new label or {places[0].size}, got {np.size(new)}.")
        if kind not in (EDIT, UNDO, REDO):
            raise CorrectionError(f"An edit of kind {kind} is not known.")
        if places[0].size:
            for along, size in zip(places, self._base.shape, strict=True):
                if along.min() < 0 or along.max() >= size:
                    raise CorrectionError(f"A voxel of the edit lies outside the grid of {self._base.shape} voxels.")
            kinds = np.iinfo(self._base.dtype)
            if np.min(new) < kinds.min or np.max(new) > kinds.max:
                raise CorrectionError(f"A new label does not fit into labels of type {self._base.dtype}.")
        with self._wake:
            if self._stopping:
                raise CorrectionError(f"The journal of {self._base.case_id} is closed.")
            self._sequence += 1
            self._todo.append(_Edit(kind, self._sequence, time.time(), places, new, what))
            self._wake.notify_all()
            return self._sequence

    def wait_written(self, timeout_s: float = 10.0) -> bool:
        """Wait until every edit so far survives the end of this process; False if that takes longer."""
        with self._wake:
            wanted = self._sequence
            return self._wake.wait_for(lambda: self._written >= wanted, timeout_s)

    def mark(self) -> Mark:
        """Return the labels with every edit so far: what is about to be saved is to equal it."""
        marks: list[Mark] = []
        with self._wake:
            # Under the lock, so that no edit comes between the number and the copy.
            sequence = self._sequence
            task = _Task(lambda: marks.append(Mark(sequence, self._now.copy())), threading.Event(), [])
            self._queue(task)
        _finish(task)
        return marks[0]

    def saved(self, mark: Mark, path: Path) -> None:
        """Begin anew after a save: read the file again, and if it equals the mark, keep only the edits after it.

        Parameters
        ----------
        mark : Mark
            Taken when the labels were copied for saving.
        path : Path
            The label file that was written.

        Raises
        ------
        FileError
            If the file cannot be read.
        CorrectionError
            If it holds other labels than the mark; the journal stays as it is.
        """
        label_map = read_label_map(path)
        shape = label_map.data.shape
        differing = (
            int(np.count_nonzero(flat_labels(label_map.data, label_map.data.dtype.str) != mark.data))
            if shape == self._base.shape
            else -1
        )
        if differing:
            how = "has another shape" if differing < 0 else f"differs in {differing} voxels"
            raise CorrectionError(
                f"{path.name} was saved but {how} from what was edited; the journal of {self._base.case_id} is kept."
            )
        digest = hashlib.sha256(path.read_bytes()).hexdigest()

        def begin() -> None:
            self._base = Base(
                self._base.case_id,
                path.name,
                digest,
                digest_of(mark.data),
                self._base.shape,
                self._base.affine,
                self._base.dtype,
                mark.sequence + 1,
            )
            self._before = mark.data
            self._begin_anew()

        task = _Task(begin, threading.Event(), [])
        with self._wake:
            self._queue(task)
        _finish(task)

    def close(self) -> None:
        """Write what is left and let go of the file: without edits it is deleted, with edits it stays for `pending`."""
        with self._wake:
            if self._stopping:
                return
            self._stopping = True
            self._wake.notify_all()
        self._thread.join()
        atexit.unregister(self.close)
        if self._file is not None:
            self._file.close()
        if not self.edits:
            self.path.unlink(missing_ok=True)
        self._lock.release()

    def discard(self) -> None:
        """Close it and delete the file with all its edits."""
        if self._stopping:
            return
        with self._wake:
            self._todo.clear()
        self._sequence = self._base.first - 1
        self.close()

    # ------------------------------------------------------------------------------------------------ the thread

    def _queue(self, task: _Task) -> None:
        if self._stopping:
            raise CorrectionError(f"The journal of {self._base.case_id} is closed.")
        self._todo.append(task)
        self._wake.notify_all()

    def _work(self) -> None:
        while True:
            with self._wake:
                if self.failure is not None and not self._stopping:
                    self._wake.wait_for(lambda: self._stopping, _RETRY_S)
                else:
                    pause = None if self._unsynced_since is None else _PAUSE_S
                    self._wake.wait_for(lambda: self._todo or self._stopping, pause)
                batch, self._todo = self._todo, []
                stopping = self._stopping
            try:
                self._do(batch)
                waited = 0.0 if self._unsynced_since is None else time.monotonic() - self._unsynced_since
                if self._unsynced_since is not None and (not batch or stopping or waited >= _SYNC_S):
                    self._sync()
                self.failure = None
            except OSError as error:
                with self._wake:
                    # What was done is not done twice: numbers tell.
                    left = [item for item in batch if isinstance(item, _Task) or item.sequence > self._written]
                    self._todo = [
                        item for item in left if isinstance(item, _Edit) or not item.done.is_set()
                    ] + self._todo
                self._fail(error)
                if stopping:
                    return
                continue
            if stopping and not self._todo:
                return

    def _do(self, batch: list[_Edit | _Task]) -> None:
        edits: list[_Edit] = []
        for item in batch:
            if isinstance(item, _Edit):
                edits.append(item)
                continue
            self._write(edits)
            edits = []
            try:
                item.run()
            except Exception as error:
                item.failed.append(error)
            finally:
                item.done.set()
        self._write(edits)
        if self._end > self._largest:
            self._compact()

    def _write(self, edits: list[_Edit]) -> None:
        if not edits or self._file is None:
            return
        # The labels are changed only once the file holds the edits, so that after an error all can be tried again.
        now = self._now
        undone: list[tuple[NDArray[np.intp], NDArray[Any]]] = []
        parts = []
        for edit in edits:
            flat, new = _last_of_each(edit, self._base.shape, now.dtype)
            differs = now[flat] != new
            flat, new = flat[differs], new[differs]
            old = now[flat]
            parts.append(packed(edit.kind, edit.sequence, edit.when_s, edit.words, flat, old, new, now.size))
            undone.append((flat, old))
            now[flat] = new
        content = b"".join(parts)
        try:
            self._file.seek(self._end)
            left = memoryview(content)
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            for flat, old in reversed(undone):
                now[flat] = old
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise
        self._end += len(content)
        if self._unsynced_since is None:
            self._unsynced_since = time.monotonic()
        with self._wake:
            self._written = edits[-1].sequence
            self._wake.notify_all()

    def _sync(self) -> None:
        written = self._written
        if self._file is not None:
            os.fsync(self._file.fileno())
        self._synced, self._unsynced_since = written, None

    def _compact(self) -> None:
        if not self._measured:
            self._largest = max(LEAST_BYTES, TIMES_MASK * len(zlib.compress(self._now.tobytes(), 1)))
            self._measured = True
            if self._end <= self._largest:
                return
        try:
            self._begin_anew()
        except FileError as error:
            # The old file holds everything; it may grow until there is space for a second one.
            self._fail(error)
        self._largest = max(self._largest, 2 * self._end)

    def _begin_anew(self) -> None:
        """Write the file with one snapshot in place of all edits, and open it."""
        parts = [header_bytes(self._base)]
        sequence = self._sequence if self._file is None else self._written
        if sequence >= self._base.first:
            flat = np.flatnonzero(self._now != self._before)
            old, new = self._before[flat], self._now[flat]
            parts.append(packed(SNAPSHOT, sequence, time.time(), "", flat, old, new, self._now.size))
        if self._file is not None:
            # Windows does not replace open files.
            self._file.close()
        try:
            with write_whole(self.path) as temporary:
                os.chmod(temporary, 0o600)
                temporary.write_bytes(b"".join(parts))
        finally:
            if self.path.exists():
                self._file = open(self.path, "r+b", buffering=0)  # noqa: SIM115  # held open as long as the case
                self._end = self._file.seek(0, os.SEEK_END)
        self._synced, self._unsynced_since = sequence, None

    def _fail(self, error: OSError) -> None:
        reason = str(error) if isinstance(error, FileError) else (error.strerror or str(error))
        told = FileError(f"Edits to {self._base.case_id} cannot be written to the journal at present: {reason}.")
        first = self.failure is None
        self.failure = told
        if first and self._tell is not None:
            self._tell(told)


# ---------------------------------------------------------------------------------------------------- helpers


def _finish(task: _Task) -> None:
    if not task.done.wait(_TASK_S):
        raise FileError("The journal of edits cannot be written at present. See that there is space on its disk.")
    if task.failed:
        raise task.failed[0]


def _last_of_each(
    edit: _Edit, shape: tuple[int, int, int], dtype: np.dtype[Any]
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return the places of an edit as ascending numbers, each once, and the last new label of each."""
    flat = np.ravel_multi_index(edit.indices, shape).ravel()
    new = np.broadcast_to(np.asarray(edit.new, dtype), flat.shape)
    if np.any(flat[1:] <= flat[:-1]):
        flat, from_end = np.unique(flat[::-1], return_index=True)
        new = new[len(new) - 1 - from_end]
    return flat, new


def _look_at(path: Path) -> Pending:
    content = content_of(path)
    base, start = header_of(content, path)
    sequence, last, end = base.first - 1, None, start
    for record, after in records_of(content, start, base):
        end = after
        sequence, last = record.sequence, record.when_s
    damaged = holds_records(content, end, sequence)
    return Pending(
        path,
        base.case_id,
        sequence - base.first + 1,
        None if last is None else _moment(last),
        base,
        f"{path.name} is damaged in its middle: later edits are lost." if damaged else "",
    )


def _moment(when_s: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(when_s, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _lock(path: Path) -> FileLock:
    # Taken in one thread and released in another. The system lets go of it when the process ends, however it ends.
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0, mode=0o600, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise CorrectionError(
            f"The case {path.name.removesuffix(SUFFIX)} is being edited in another window. Close it there first."
        ) from None
    except OSError as error:
        raise FileError(f"The folder {path.parent} cannot be written to: {error.strerror or error}.") from error
    return lock


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = _lock(path)
    try:
        yield
    finally:
        lock.release()
