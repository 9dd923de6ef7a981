"""Files are written whole or not at all.

What is new grows in a temporary file beside the old one, is flushed to the disk, and takes its place in one step. A
full disk, an error or a killed process leaves the old file as it was, at worst with a temporary file beside it, which
`sweep_leftovers` removes at the next start.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import secrets
import stat
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil

from ..errors import FileError, Seg3dError

#: Temporary files are hidden, so that no dataset takes them for images.
PREFIX = ".seg3d-part-"
#: A temporary file of another computer (on a network drive) counts as left over after a day.
STALE_S = 24 * 3600.0

_REASONS = {
    errno.ENOSPC: "there is no space left on the disk. Free some space, or choose another folder",
    errno.EDQUOT: "your disk quota is used up. Free some space, or choose another folder",
    errno.EFBIG: "the file would be larger than the system allows here. Choose another folder",
    errno.EACCES: "you have no permission to write there. Choose another folder",
    errno.EPERM: "you have no permission to write there. Choose another folder",
    errno.EROFS: "the disk is read-only. Choose another folder",
    errno.ENOENT: "the folder does not exist. Create it, or choose another one",
    errno.ENOTDIR: "what should be its folder is a file. Choose another folder",
    errno.EISDIR: "there is a folder of that name. Choose another name",
    errno.ENAMETOOLONG: "the name is too long. Choose a shorter one",
    errno.EIO: "the disk reports an error. Check it, and choose another folder",
    errno.EEXIST: "a file of that name exists already. Choose another name, or allow it to be overwritten",
}


@contextlib.contextmanager
def write_whole(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; on leaving, flush it to the disk and let it take the place of `path`.

    The temporary name ends like `path`, so that libraries which look at the ending write the right format. If the body
    raises, the temporary file is removed and nothing else has changed. A symbolic link is followed; permissions of the
    old file are kept.

    Parameters
    ----------
    path : path
        What to write. Its folder exists.
    overwrite : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    FileError
        With the cause in words (no space, no permission, no folder, exists already …).

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder) / "notes.txt"
    ...     with write_whole(target) as temporary:
    ...         _ = temporary.write_text("all or nothing")
    ...     target.read_text()
    'all or nothing'
    """
    target = Path(os.path.realpath(path))
    temporary = target.parent / _temporary_name(Path(path))
    try:
        mode = _mode_of_old(target, overwrite)
        # Created here and exclusively, so that a folder without permission is told before the work in the body.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield temporary
        if mode is not None:
            os.chmod(temporary, mode)
        _flush(temporary)
        _put_in_place(temporary, target, overwrite)
        _flush_folder(target.parent)
    except Seg3dError:
        raise
    except OSError as error:
        raise FileError(f"Cannot write {target.name}: {_reason(error)}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text_whole(path: str | os.PathLike[str], text: str, *, overwrite: bool = True) -> None:
    """Write `text` as UTF-8, whole or not at all; raises as `write_whole` does."""
    with write_whole(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def sweep_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed processes left half-written in `folder` (not below it), and return the paths removed.

    Files that a living process of this computer is writing stay; those of other computers stay for a day.
    """
    removed = []
    for path in Path(folder).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if _is_left_over(path):
                path.unlink()
                removed.append(path)
    return sorted(removed)


def _temporary_name(path: Path) -> str:
    # Short, so that it fits where the name itself fits; process and computer tell later whether it is left over.
    suffixes = "".join(path.suffixes[-2:])
    ending = suffixes if len(suffixes) <= 16 else ""
    return f"{PREFIX}{_this_computer()}-{os.getpid()}-{secrets.token_hex(4)}{ending}"


def _this_computer() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _is_left_over(path: Path) -> bool:
    computer, _, rest = path.name.removeprefix(PREFIX).partition("-")
    process = rest.partition("-")[0]
    if computer == _this_computer() and process.isdigit():
        return not psutil.pid_exists(int(process))
    return time.time() - path.stat().st_mtime > STALE_S


def _mode_of_old(target: Path, overwrite: bool) -> int | None:
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not overwrite:
        raise FileExistsError(errno.EEXIST, "exists")
    # Replacing needs permission for the folder only; a file that its owner has protected is respected all the same.
    if not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        raise FileError(f"Cannot write {target.name}: the file is write-protected. Choose another name.")
    return stat.S_IMODE(mode)


def _flush(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _put_in_place(temporary: Path, target: Path, overwrite: bool) -> None:
    if not overwrite:
        # A link, unlike a rename, fails if somebody else has created the file meanwhile.
        try:
            os.link(temporary, target)
            return
        except FileExistsError:
            raise
        except OSError:
            # This file system has no links (FAT, some network drives); the gap to the look-up is then tiny.
            _mode_of_old(target, overwrite)
    os.replace(temporary, target)


def _flush_folder(folder: Path) -> None:
    # The new name itself must reach the disk. Windows and some network drives cannot flush folders; the file is whole
    # and in place by now, so that is no reason to report a failure.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0) or f"{error.strerror or error} (system error {error.errno})"
