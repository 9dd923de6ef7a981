"""Edits survive kills, torn and flipped bytes, full disks; nothing wrong is ever restored in silence."""

from __future__ import annotations

import resource
import signal
import stat
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_seg3d.cases.corrections import save_correction
from napari_seg3d.correction import journal as module
from napari_seg3d.correction import journal_file
from napari_seg3d.correction.journal import Journal, discard, pending, restore
from napari_seg3d.correction.journal_file import REDO, UNDO, journal_path
from napari_seg3d.errors import CorrectionError, FileError, GeometryError, Seg3dError
from napari_seg3d.volumes.geometry import Geometry
from napari_seg3d.volumes.volume import LabelMap

SHAPE = (13, 17, 9)
OBLIQUE = np.array([[0.8, 0.72, 0, -5], [-0.6, 0.96, 0, 3], [0, 0, -2.5, 7], [0, 0, 0, 1]])


def label_map(dtype: str = "u1", order: str = "C") -> LabelMap:
    data = np.random.default_rng(0).integers(0, 4, SHAPE).astype(dtype)
    return LabelMap(np.asarray(data, order=order), Geometry(SHAPE, OBLIQUE))


def an_edit(seed: int) -> tuple[tuple[NDArray[np.intp], ...], NDArray[np.uint8]]:
    """Voxels, some of them twice, and their new labels."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 40))
    return tuple(rng.integers(0, size, count) for size in SHAPE), rng.integers(0, 4, count).astype(np.uint8)


def edited(base: LabelMap, edits: int) -> NDArray[np.integer]:
    """The labels after edits 1 to `edits`, made by numpy alone."""
    data = base.data.copy()
    for seed in range(1, edits + 1):
        indices, new = an_edit(seed)
        data[indices] = new
    return data


def journal_of(folder: Path, base: LabelMap, edits: int) -> Journal:
    journal = Journal.start(folder, "017", base, version="p.nii.gz", source_sha256="ab")
    for seed in range(1, edits + 1):
        assert journal.append(*an_edit(seed), f"Paint {seed}") == seed
    assert journal.wait_written()
    return journal


@pytest.mark.parametrize(("dtype", "order"), [("u1", "C"), ("u1", "F"), (">u2", "F"), ("i4", "C")])
def test_what_was_edited_is_restored(tmp_path: Path, dtype: str, order: str) -> None:
    base = label_map(dtype, order)
    journal = journal_of(tmp_path, base, 60)
    # Nothing of it is pending while it is open; a crash is a copy of the file as it is at this moment.
    assert pending(tmp_path) == ()
    elsewhere = tmp_path / "crashed"
    elsewhere.mkdir()
    (elsewhere / "017.journal").write_bytes(journal.path.read_bytes())
    (left,) = pending(elsewhere)
    assert (left.words, left.problem) == ("60 edits to case 017", "")
    assert left.base is not None
    assert (left.base.version, left.base.source_sha256, left.base.shape) == ("p.nii.gz", "ab", SHAPE)
    assert left.when is not None
    assert abs(left.when.timestamp() - time.time()) < 60
    restored = restore(left.path, base)
    np.testing.assert_array_equal(restored.data, edited(base, 60))
    assert restored.data.dtype == base.data.dtype
    assert restored.data.flags.f_contiguous == base.data.flags.f_contiguous
    assert (restored.edits, restored.dropped_bytes, restored.damaged) == (60, 0, False)
    journal.discard()
    assert list(tmp_path.glob("*.journal")) == []


def test_undo_and_redo_are_edits_too(tmp_path: Path) -> None:
    base = label_map()
    journal = journal_of(tmp_path, base, 1)
    indices, new = an_edit(1)
    journal.append(indices, base.data[indices], "Undo", kind=UNDO)
    assert journal.wait_written()
    np.testing.assert_array_equal(restore(journal.path, base).data, base.data)
    journal.append(indices, new, "Redo", kind=REDO)
    assert journal.wait_written()
    restored = restore(journal.path, base)
    np.testing.assert_array_equal(restored.data, edited(base, 1))
    assert restored.edits == journal.edits == 3
    journal.close()


def test_the_disk_is_asked_in_time(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, label_map(), 3)
    end = time.monotonic() + module.SYNCED_S + 3  # a busy machine
    while journal.synced < 3 and time.monotonic() < end:
        time.sleep(0.02)
    assert journal.synced == 3
    journal.close()


def test_a_closed_journal_without_edits_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal.start(tmp_path, "017", label_map())
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    journal.close()
    journal.close()
    assert list(tmp_path.glob("*.journal")) == []
    with pytest.raises(CorrectionError, match="is closed"):
        journal.append(*an_edit(1))


def test_going_on_after_a_crash(tmp_path: Path) -> None:
    base = label_map()
    journal_of(tmp_path, base, 20).close()
    with pytest.raises(CorrectionError, match="20 edits to case 017 that were not saved"):
        Journal.start(tmp_path, "017", base)
    with (tmp_path / "017.journal").open("ab") as file:
        file.write(b"EDIT torn")
    journal, restored = Journal.resume(tmp_path / "017.journal", base)
    np.testing.assert_array_equal(restored.data, edited(base, 20))
    assert (restored.edits, restored.dropped_bytes) == (20, 9)
    for seed in range(21, 31):
        assert journal.append(*an_edit(seed)) == seed
    journal.close()
    restored = restore(tmp_path / "017.journal", base)
    np.testing.assert_array_equal(restored.data, edited(base, 30))
    assert (restored.edits, restored.dropped_bytes) == (30, 0)
    discard(tmp_path / "017.journal")
    assert pending(tmp_path) == ()


def test_a_save_begins_the_journal_anew_and_keeps_later_edits(tmp_path: Path) -> None:
    base = label_map()
    journal = journal_of(tmp_path, base, 20)
    mark = journal.mark()
    saved = base.with_data(edited(base, 20))
    # Strokes go on while the file is written.
    for seed in range(21, 26):
        journal.append(*an_edit(seed))
    path = save_correction(tmp_path / "corrections", "017", saved, based_on=base)
    journal.saved(mark, path)
    assert journal.edits == 5
    journal.append(*an_edit(26))
    journal.close()
    (left,) = pending(tmp_path)
    assert left.base is not None
    assert (left.edits, left.base.version) == (6, "v001.nii.gz")
    restored = restore(left.path, saved)
    np.testing.assert_array_equal(restored.data, edited(base, 26))
    with pytest.raises(CorrectionError, match=r"began with other labels.*Load v001"):
        restore(left.path, base)


def test_a_save_of_something_else_keeps_the_journal(tmp_path: Path) -> None:
    base = label_map()
    journal = journal_of(tmp_path, base, 20)
    path = save_correction(tmp_path / "corrections", "017", base)
    with pytest.raises(CorrectionError, match=r"v001.nii.gz was saved but differs in \d+ voxels"):
        journal.saved(journal.mark(), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileError):
        journal.saved(journal.mark(), path)
    journal.close()
    np.testing.assert_array_equal(restore(tmp_path / "017.journal", base).data, edited(base, 20))


def test_it_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_BYTES", 4000)
    monkeypatch.setattr(module, "TIMES_MASK", 4)
    base = label_map()
    journal = journal_of(tmp_path, base, 1)
    largest = 0
    for seed in range(2, 401):
        journal.append(*an_edit(seed))
        if seed % 10 == 0:
            assert journal.wait_written()
            largest = max(largest, journal.path.stat().st_size)
    journal.close()
    mask = len(zlib.compress(base.data.tobytes(), 1))
    assert largest < 2 * max(4000, 8 * mask)
    restored = restore(tmp_path / "017.journal", base)
    np.testing.assert_array_equal(restored.data, edited(base, 400))
    assert restored.edits == 400


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[2]]
from test_journal import an_edit, label_map
from napari_seg3d.correction.journal import Journal
journal = Journal.start(Path(sys.argv[1]), "017", label_map())
seed = 0
while True:
    seed += 1
    journal.append(*an_edit(seed))
    if seed % 3 == 0:
        journal.wait_written()
    print(journal.written, flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
def test_a_killed_process_loses_no_edit_that_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(Path(__file__).parent)]
    base = label_map()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        written = 0
        for _ in range(int(rng.integers(5, 200))):
            written = int(child.stdout.readline())
        child.kill()
        told = [int(line) for line in child.stdout.read().splitlines() if line.strip()]
    written = max([written, *told])
    (left,) = pending(tmp_path)
    assert left.edits >= written
    restored = restore(left.path, base)
    np.testing.assert_array_equal(restored.data, edited(base, restored.edits))


def test_another_window_is_told(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, label_map(), 2)
    for touch in (
        lambda: Journal.start(tmp_path, "017", label_map()),
        lambda: Journal.resume(journal.path, label_map()),
        lambda: discard(journal.path),
    ):
        with pytest.raises(CorrectionError, match="being edited in another window"):
            touch()
    journal.close()


def test_wherever_it_is_cut_the_edits_before_are_restored(tmp_path: Path) -> None:
    base = label_map()
    journal_of(tmp_path, base, 12).close()
    path = tmp_path / "017.journal"
    whole = path.read_bytes()
    states = [edited(base, edits) for edits in range(13)]
    _, start = journal_file.header_of(whole, path)
    seen = set()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        if end < start:
            with pytest.raises(FileError):
                restore(path, base)
            assert pending(tmp_path)[0].problem
            continue
        restored = restore(path, base)
        np.testing.assert_array_equal(restored.data, states[restored.edits])
        assert not restored.damaged
        seen.add(restored.edits)
    assert seen >= set(range(12))


def test_no_flipped_bit_is_restored(tmp_path: Path) -> None:
    base = label_map()
    journal_of(tmp_path, base, 12).close()
    path = tmp_path / "017.journal"
    whole = path.read_bytes()
    states = [edited(base, edits) for edits in range(13)]
    rng = np.random.default_rng(2)
    damaged = 0
    for _ in range(400):
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        try:
            restored = restore(path, base)
        except Seg3dError:
            continue
        np.testing.assert_array_equal(restored.data, states[restored.edits])
        assert restored.edits < 12, "a flip must not go unnoticed"
        assert restored.dropped_bytes > 0
        # Unless it was in the last edit, it is told that more is lost than a torn end.
        assert restored.damaged == (restored.edits < 11)
        damaged += restored.damaged
    assert damaged > 100
    assert pending(tmp_path)[0].edits <= 12


def crafted(path: Path, payload: bytes, voxels: int, base: LabelMap, *, sequence: int = 1) -> None:
    """A journal whose checksums are right."""
    header = journal_file.header_bytes(journal_file.base_of("017", base, "", "", first=1))
    head = journal_file._RECORD.pack(b"EDIT", 1, 0, 0, len(payload), sequence, 0.0, voxels)
    path.write_bytes(header + head + journal_file._CRC.pack(zlib.crc32(payload, zlib.crc32(head))) + payload)


@pytest.mark.parametrize(
    ("content", "voxels"),
    [
        (bytes(1 << 24), 2),  # unfolds to more than it says
        (b"", 1 << 60),
        (np.array([5, 0], "<u4").tobytes() + bytes(4), 2),  # one voxel twice
        (np.array([5, 4294967295], "<u4").tobytes() + bytes(4), 2),  # outside
        (np.array([1988, 5], "<u4").tobytes() + bytes(4), 2),  # outside in sum
        (np.array([5, 6], "<u4").tobytes() + bytes([77, 77, 1, 1]), 2),  # other labels before it
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, content: bytes, voxels: int) -> None:
    path = tmp_path / "017.journal"
    base = label_map()
    crafted(path, zlib.compress(content), voxels, base)
    with pytest.raises(FileError, match="damaged"):
        restore(path, base)
    crafted(path, b"no zlib stream", voxels, base)
    with pytest.raises(FileError, match="damaged"):
        restore(path, base)


@pytest.mark.parametrize(
    "content", [b"", b"seg3d-journal 1\n", b"seg3d-journal 2\n" + bytes(99), b"\x1f\x8b" + bytes(99)]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "017.journal"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"017\.journal"):
        restore(path, label_map())
    (left,) = pending(tmp_path)
    assert left.problem


def test_a_renamed_journal_is_refused(tmp_path: Path) -> None:
    base = label_map()
    journal_of(tmp_path, base, 2).close()
    (tmp_path / "017.journal").rename(tmp_path / "018.journal")
    with pytest.raises(FileError, match="damaged"):
        restore(tmp_path / "018.journal", base)


def test_another_grid_is_refused(tmp_path: Path) -> None:
    base = label_map()
    journal_of(tmp_path, base, 2).close()
    other = LabelMap(base.data, Geometry.with_spacing(SHAPE))
    with pytest.raises(GeometryError, match="another grid"):
        restore(tmp_path / "017.journal", other)


def test_edits_that_do_not_fit_are_refused_at_once(tmp_path: Path) -> None:
    journal = Journal.start(tmp_path, "017", label_map())
    for indices, new in (
        (([1], [2]), 1),
        (([1], [2], [3, 4]), 1),
        (([1], [2], [9]), 1),
        (([1], [2], [-1]), 1),
        (([1], [2], [3]), 256),
        (([1], [2], [3]), np.array([1, 2])),
    ):
        with pytest.raises(CorrectionError):
            journal.append(indices, new)
    assert journal.edits == 0
    journal.close()


@pytest.mark.parametrize("case_id", ["", "..", "a/b", "a\\b", ".hidden"])
def test_ids_that_are_no_file_are_refused(tmp_path: Path, case_id: str) -> None:
    with pytest.raises(CorrectionError, match="cannot be the name of a file"):
        journal_path(tmp_path, case_id)


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be made"):
        Journal.start(tmp_path / "file", "017", label_map())


def test_edits_wait_while_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.05)
    base = label_map()
    told: list[FileError] = []
    journal = Journal.start(tmp_path, "017", base, tell=told.append)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # The system's own limit on the size of files: a write stops in its middle, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 500, limits[1]))
        for seed in range(1, 41):
            journal.append(*an_edit(seed))
        assert not journal.wait_written(1.0)
        assert journal.failure is not None
        assert "cannot be written to the journal" in str(told[0])
        partly = restore(journal.path, base)
        np.testing.assert_array_equal(partly.data, edited(base, partly.edits))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert journal.wait_written()
    np.testing.assert_array_equal(restore(journal.path, base).data, edited(base, 40))
    journal.close()
    assert len(told) == 1
