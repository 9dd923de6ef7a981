"""What was decided about places without painting: "kept" or "checked", on disk as it happens.

Each line of the file is one mark, or takes one back. A mark holds its voxels with the labels they had: it stands for as
long as these are the labels, in whatever layer. So it is there again when the case is opened anew, also after a crash,
and hides nothing that another model or a later stroke has brought.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from ..errors import FileError
from .change import Indices
from .journal_file import journal_path

SUFFIX = ".marks.jsonl"


@dataclass(frozen=True, eq=False)
class Mark:
    """One place that was decided about.

    Parameters
    ----------
    verdict : str
        "kept" or "checked".
    what : str
        The place in words.
    among : str
        What was stepped through: a mark does not count in another list.
    voxels : (voxels,) intp ndarray
        Flat places in C order, ascending.
    labels : (voxels,) integer ndarray
        The labels there.
    author, date : str
        Who, and when (ISO 8601, UTC).
    """

    verdict: str
    what: str
    among: str
    voxels: NDArray[np.intp] = field(repr=False)
    labels: NDArray[Any] = field(repr=False)
    author: str = ""
    date: str = ""
    id: str = field(default_factory=lambda: uuid4().hex[:12], repr=False)

    @classmethod
    def on(
        cls, indices: Indices, labels: NDArray[Any], verdict: str, what: str, among: str, *, author: str = ""
    ) -> Mark:
        """Return a mark on voxels of a label map (X, Y, Z)."""
        voxels = np.ravel_multi_index(indices, labels.shape)
        order = np.argsort(voxels, kind="stable")
        date = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(verdict, what, among, voxels[order], labels[indices][order], author, date)


class Marks:
    """All marks on the places of one case.

    Parameters
    ----------
    shape : (int, int, int)
        Of the case's label maps; marks on other grids are passed over.
    path : Path, optional
        The file, see `marks_path`; without it the marks last as long as this object.

    Raises
    ------
    FileError
        If the file cannot be read. What a power cut has left of the last line is passed over.
    """

    def __init__(self, shape: tuple[int, int, int], path: Path | None = None) -> None:
        self.shape, self.path = shape, path
        self._marks: dict[str, Mark] = {}
        self._by_list: dict[str, tuple[NDArray[np.bool_], NDArray[Any]]] = {}
        if path is not None:
            self._read(path)

    def __len__(self) -> int:
        return len(self._marks)

    def add(self, mark: Mark) -> None:
        """Take a mark down.

        Raises
        ------
        FileError
            If it cannot be written; it counts all the same.
        """
        self._marks[mark.id] = mark
        self._by_list.pop(mark.among, None)
        facts = {
            "mark": mark.verdict,
            "id": mark.id,
            "what": mark.what,
            "among": mark.among,
            "author": mark.author,
            "date": mark.date,
            "shape": self.shape,
            "runs": _runs(mark.voxels, mark.labels),
        }
        self._write(facts)

    def take_back(self, mark: Mark) -> None:
        """Take a mark back.

        Raises
        ------
        FileError
            If that cannot be written; it holds all the same.
        """
        if self._marks.pop(mark.id, None) is not None:
            self._by_list.pop(mark.among, None)
            self._write({"back": mark.id})

    def standing(self, among: str, labels: NDArray[Any]) -> tuple[Mark, ...]:
        """Return the marks of a list on places whose labels (X, Y, Z) are what they were, the newest last."""
        of_list = (mark for mark in self._marks.values() if mark.among == among)
        return tuple(mark for mark in of_list if np.array_equal(_at(labels, mark.voxels), mark.labels))

    def settles(self, among: str, indices: Indices, labels: NDArray[Any]) -> bool:
        """Whether all voxels of a place were marked when they had the labels that they have now."""
        if among not in self._by_list:
            self._by_list[among] = self._drawn(among)
        marked, then = self._by_list[among]
        first = tuple(int(along[0]) for along in indices)
        if not marked[first]:
            return False
        return bool(marked[indices].all() and (then[indices] == labels[indices]).all())

    def _drawn(self, among: str) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        marks = [mark for mark in self._marks.values() if mark.among == among]
        if not marks:
            nothing = np.zeros(1, np.bool_)
            return np.broadcast_to(nothing, self.shape), np.broadcast_to(nothing, self.shape)
        marked = np.zeros(self.shape, np.bool_)
        then = np.zeros(self.shape, np.result_type(*{mark.labels.dtype for mark in marks}))
        for mark in marks:
            marked.reshape(-1)[mark.voxels] = True
            then.reshape(-1)[mark.voxels] = mark.labels
        return marked, then

    def _write(self, facts: dict[str, Any]) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not self.path.exists()
            with self.path.open("ab+") as file:
                if is_new:
                    # Names of people and places in a patient.
                    os.chmod(self.path, 0o600)
                # A line that was cut short must not take the next one along.
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - 1))
                cut = file.read(1) not in (b"", b"\n")
                file.write(b"\n" * cut + json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            raise FileError(
                f"The mark is not kept on disk: {self.path.name} cannot be written ({error.strerror})."
            ) from error

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            raise FileError(f"The marks in {path.name} cannot be read ({error.strerror}).") from error
        size = int(np.prod(self.shape))
        for line in lines:
            try:
                facts = json.loads(line)
                if "back" in facts:
                    self._marks.pop(str(facts["back"]), None)
                elif tuple(facts["shape"]) == self.shape:
                    voxels, labels = _voxels(facts["runs"], size)
                    verdict, what, among, author, date, known = (
                        str(facts[name]) for name in ("mark", "what", "among", "author", "date", "id")
                    )
                    mark = Mark(verdict, what, among, voxels, labels, author, date, known)
                    self._marks[mark.id] = mark
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
                # A line that was cut short: one mark is lost, not all of them.
                continue


def marks_path(folder: Path, case_id: str) -> Path:
    """Return where the marks of a case lie, beside its journal.

    Raises
    ------
    CorrectionError
        If the case id cannot be a file's name.
    """
    return journal_path(folder, case_id).with_name(f"{case_id}{SUFFIX}")


def _at(labels: NDArray[Any], voxels: NDArray[np.intp]) -> NDArray[Any]:
    found: NDArray[Any] = labels[np.unravel_index(voxels, labels.shape)]
    return found


def _runs(voxels: NDArray[np.intp], labels: NDArray[Any]) -> list[int]:
    """Return first voxel, length and label of each run of neighbours with one label, one after the other."""
    if not len(voxels):
        return []
    starts = np.flatnonzero(np.diff(voxels, prepend=voxels[0] - 2) != 1)
    starts = np.union1d(starts, np.flatnonzero(np.diff(labels.astype(np.int64), prepend=-1)))
    lengths = np.diff(starts, append=len(voxels))
    runs: list[int] = np.stack([voxels[starts], lengths, labels[starts].astype(np.int64)], 1).ravel().tolist()
    return runs


def _voxels(runs: Iterable[int], size: int) -> tuple[NDArray[np.intp], NDArray[Any]]:
    firsts, lengths, labels = np.asarray(list(runs), np.int64).reshape(-1, 3).T
    fits = len(lengths) > 0 and min(firsts.min(), lengths.min() - 1, labels.min()) >= 0
    if not fits or lengths.max() > size or (firsts + lengths).max() > size or lengths.sum() > size:
        raise ValueError("Expected runs within the grid.")
    ends = np.cumsum(lengths)
    voxels = np.arange(ends[-1]) + np.repeat(firsts - (ends - lengths), lengths)
    return voxels.astype(np.intp), np.repeat(labels.astype(np.min_scalar_type(int(labels.max()))), lengths)
