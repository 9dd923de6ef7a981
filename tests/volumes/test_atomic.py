"""Whole or not at all: under errors, limits, missing permission and real failing system calls."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napari_seg3d.errors import FileError, LabelError
from napari_seg3d.volumes.atomic import PREFIX, STALE_S, sweep_leftovers, write_text_whole, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_new_and_replaced(tmp_path):
    target = tmp_path / "notes.txt"
    write_text_whole(target, "first µ\n")
    write_text_whole(target, "second µ\n")
    assert target.read_bytes() == "second µ\n".encode()
    assert names(tmp_path) == ["notes.txt"]


def test_temporary_lies_beside_hidden_and_ends_alike(tmp_path):
    with write_whole(tmp_path / "patient.01.nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")
        assert temporary.name.endswith(".nii.gz")


@pytest.mark.parametrize("error", [ValueError("no"), LabelError("no"), KeyboardInterrupt(), GeneratorExit()])
def test_an_error_in_the_body_changes_nothing(tmp_path, error):
    target = tmp_path / "notes.txt"
    target.write_text("old")

    def write() -> None:
        with write_whole(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["notes.txt"]


def test_existing_files_are_kept_unless_told(tmp_path):
    target = tmp_path / "notes.txt"
    target.write_text("old")
    with pytest.raises(FileError, match=r"Cannot write notes\.txt: a file of that name exists already"):
        write_text_whole(target, "new", overwrite=False)
    assert target.read_text() == "old"
    write_text_whole(tmp_path / "other.txt", "new", overwrite=False)
    assert names(tmp_path) == ["notes.txt", "other.txt"]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    target = tmp_path / "notes.txt"

    def write() -> None:
        with write_whole(target, overwrite=False) as temporary:
            temporary.write_text("mine")
            target.write_text("somebody else's")

    with pytest.raises(FileError, match="exists already"):
        write()
    assert target.read_text() == "somebody else's"
    assert names(tmp_path) == ["notes.txt"]


def test_links_are_followed_and_permissions_kept(tmp_path):
    real = tmp_path / "store" / "object.txt"
    real.parent.mkdir()
    real.write_text("old")
    real.chmod(0o640)
    link = tmp_path / "notes.txt"
    link.symlink_to(real)
    write_text_whole(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_new_files_obey_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_text_whole(tmp_path / "notes.txt", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "notes.txt").stat().st_mode) == 0o640


def test_a_protected_file_is_respected(tmp_path):
    target = tmp_path / "truth.txt"
    target.write_text("old")
    target.chmod(0o444)
    with pytest.raises(FileError, match="write-protected"):
        write_text_whole(target, "new")
    assert target.read_text() == "old"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("missing/notes.txt", "the folder does not exist"),
        ("file/notes.txt", "what should be its folder is a file"),
        ("folder", "there is a folder of that name"),
        ("x" * 300 + ".txt", "the name is too long"),
    ],
)
def test_impossible_places_are_told_in_words(tmp_path, place, words):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match=f"^Cannot write .*: {words}"):
        write_text_whole(tmp_path / place, "x")
    assert names(tmp_path) == ["file", "folder"]


def test_names_at_the_limit_unicode_and_spaces(tmp_path):
    for name in ("ä" * 125 + ".txt", "two words.txt", "-dash.txt", "日本.txt"):
        write_text_whole(tmp_path / name, name)
        assert (tmp_path / name).read_text() == name


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """A folder of somebody else's, seen with the rights of an ordinary user even where tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="seg3d-readonly-"))
    (folder / "notes.txt").write_text("old")
    folder.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_folder_without_permission():
    with ordinary_user() as folder:
        with pytest.raises(FileError, match="you have no permission to write there"):
            write_text_whole(folder / "new.txt", "x")
        with pytest.raises(FileError, match="you have no permission to write there"):
            write_text_whole(folder / "notes.txt", "x")
        assert (folder / "notes.txt").read_text() == "old"
        assert names(folder) == ["notes.txt"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may become larger than `size` bytes: write() then fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 1, 4096, 99_999])
def test_a_write_that_fails_half_way(tmp_path, size):
    target = tmp_path / "notes.txt"
    target.write_text("old")
    with largest_file(size), pytest.raises(FileError, match="larger than the system allows"):
        write_text_whole(target, "x" * 100_000)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["notes.txt"]


def write_with_failing(call: str, error: str, target: Path, *, overwrite: bool = True) -> str:
    """Write in another process whose next system call of that name fails, below Python; return what it says."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed, so no system call can be made to fail")
    script = (
        "import sys\n"
        "from napari_seg3d.errors import FileError\n"
        "from napari_seg3d.volumes.atomic import write_text_whole\n"
        f"try: write_text_whole(sys.argv[1], 'new', overwrite={overwrite})\n"
        "except FileError as error: sys.exit(str(error))"
    )
    inject = [
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        f"trace={call}",
        "-e",
        f"inject={call}:error={error}:when=1",
    ]
    done = subprocess.run(
        [*inject, sys.executable, "-B", "-c", script, target], capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace here")
    return done.stderr


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ("write", "ENOSPC", "no space left on the disk"),
        ("write", "EDQUOT", "disk quota is used up"),
        ("fsync", "EIO", "the disk reports an error"),
        ("rename", "EACCES", "no permission"),
        ("rename", "EROFS", "the disk is read-only"),
    ],
)
def test_system_calls_that_fail(tmp_path, call, error, words):
    target = tmp_path / "notes.txt"
    target.write_text("old")
    assert words in write_with_failing(call, error, target)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["notes.txt"]


def test_the_order_of_things(tmp_path):
    """Content to the disk, then the name, then the folder: what a loss of power needs."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed, so system calls cannot be seen")
    log = tmp_path / "log"
    target = tmp_path / "folder" / "notes.txt"
    target.parent.mkdir()
    script = "import sys; from napari_seg3d.volumes.atomic import *; write_text_whole(sys.argv[1], 'new')"
    done = subprocess.run(
        ["strace", "-f", "-y", "-o", log, "--trace=fsync,rename", sys.executable, "-B", "-c", script, target],
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace here")
    calls = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines() if str(target.parent) in line]
    assert [call.partition("(")[0] for call in calls] == ["fsync", "rename", "fsync"]
    assert PREFIX in calls[0]
    assert f'"{target}"' in calls[1]
    assert f"<{target.parent}>" in calls[2]


def test_a_disk_without_hard_links(tmp_path):
    target = tmp_path / "notes.txt"
    assert write_with_failing("link", "EPERM", target, overwrite=False) == ""
    assert target.read_text() == "new"
    assert names(tmp_path) == ["notes.txt"]
    assert "exists already" in write_with_failing("link", "EPERM", target, overwrite=False)


def test_a_full_disk(tmp_path):
    """On a real disk of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no small disk may be mounted here")
    try:
        target = disk / "notes.txt"
        write_text_whole(target, "x" * 40_000)
        with pytest.raises(FileError, match=r"no space left on the disk\. Free some space"):
            write_text_whole(target, "y" * 40_000)
        assert target.read_text() == "x" * 40_000
        assert names(disk) == ["notes.txt"]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_sweeping_takes_what_dead_processes_left(tmp_path):
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with write_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("in work")
        computer = temporary.name.removeprefix(PREFIX).partition("-")[0]
        left_over = tmp_path / f"{PREFIX}{computer}-{dead}-0123abcd.txt"
        elsewhere = tmp_path / f"{PREFIX}ffffffff-{dead}-0123abcd.txt"
        old_elsewhere = tmp_path / f"{PREFIX}ffffffff-{dead}-4567abcd.txt"
        users_own = tmp_path / ".seg3d-notes"
        for path in (left_over, elsewhere, old_elsewhere, users_own):
            path.write_text("half")
        os.utime(old_elsewhere, (0, old_elsewhere.stat().st_mtime - STALE_S - 60))
        assert sweep_leftovers(tmp_path) == sorted([left_over, old_elsewhere])
    assert names(tmp_path) == sorted(["a.txt", elsewhere.name, users_own.name])
    assert sweep_leftovers(tmp_path / "missing") == []
