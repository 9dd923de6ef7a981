"""The bytes of a file, plain or gzipped, read in one pass and checked to the last.

A gzip stream ends with a checksum. Whoever stops reading at the last voxel, as nibabel does, never sees it, and a
flipped bit passes for a slightly different label map.
"""

from __future__ import annotations

import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import FileError

#: Deflate, the compression of gzip, shrinks at most this much.
MOST_DEFLATED = 1032
FRESH_COPY = "Get a fresh copy."

_GZIP_MAGIC = b"\x1f\x8b"
# Small enough for the processor's cache, large enough that the loop costs nothing.
_PIECE = 1 << 17


@dataclass(frozen=True)
class Stream:
    """An open file that is read once, front to back.

    `shown` is how messages name it, `size` and `mtime_ns` are those of the file on disk, `most_bytes` is what it can
    unpack to at most.
    """

    shown: str
    size: int
    mtime_ns: int
    most_bytes: int
    unpacked: io.RawIOBase | BinaryIO

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes; raises `FileError` if the file ends before."""
        taken = bytearray(count)
        self.fill(memoryview(taken))
        return bytes(taken)

    def fill(self, view: memoryview) -> None:
        """Fill a memory view of bytes from the file; raises `FileError` if the file ends before."""
        filled = 0
        while filled < len(view):
            count = self.unpacked.readinto(view[filled:])  # type: ignore[union-attr]
            if not count:
                raise FileError(f"{self.shown} is cut off: it ends before its voxels do. {FRESH_COPY}")
            filled += count

    def skip(self, count: int) -> None:
        """Read over `count` bytes; raises `FileError` if the file ends before."""
        scratch = memoryview(bytearray(min(count, _PIECE)))
        while count:
            step = min(count, _PIECE)
            self.fill(scratch[:step])
            count -= step

    def rest(self, most: int) -> bytes:
        """Return what is left, and with it make sure that the file is whole; raises `FileError` beyond `most` bytes."""
        pieces = []
        while piece := self.unpacked.read(_PIECE):
            pieces.append(piece)
            most -= len(piece)
            if most < 0:
                raise FileError(f"{self.shown} holds far more than its voxels, more than fits in memory. {FRESH_COPY}")
        return b"".join(pieces)


@contextmanager
def opened(path: Path, shown: str) -> Iterator[Stream]:
    """Open a file, unpacked if its name ends in ``.gz``.

    Parameters
    ----------
    path : Path
        The file.
    shown : str
        How messages name it.

    Raises
    ------
    FileError
        If it is missing, empty, unreadable, or gzipped or not against its name; while it is read, if its compressed
        data are cut off or fail their check.
    """
    try:
        # Before it is opened: a pipe would wait for ever.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise FileError(f"{shown} is a folder; expected an image file. Choose a file in it.")
        if not stat.S_ISREG(mode):
            raise FileError(f"{shown} is a device or a pipe; expected an image file. Choose a file.")
        with path.open("rb") as file:
            yield _stream(file, shown, packed=path.name.lower().endswith(".gz"))
    except FileError:
        raise
    except FileNotFoundError:
        raise FileError(f"{shown} does not exist. Check the folder and the name.") from None
    except zlib.error:
        raise FileError(f"{shown} is damaged: its compressed data fail their check. {FRESH_COPY}") from None
    except EOFError:
        raise FileError(f"{shown} is cut off in the middle of its compressed data. {FRESH_COPY}") from None
    except OSError as error:
        raise FileError(f"{shown} cannot be read: {error.strerror or error}.") from error


def _stream(file: BinaryIO, shown: str, *, packed: bool) -> Stream:
    facts = os.fstat(file.fileno())
    if facts.st_size == 0:
        raise FileError(f"{shown} is empty (0 bytes). {FRESH_COPY}")
    starts_packed = file.read(2) == _GZIP_MAGIC
    file.seek(0)
    if packed != starts_packed:
        state = "gzipped although its name has no .gz" if starts_packed else "not gzipped although its name says so"
        raise FileError(f"{shown} is {state}. Rename it, or get a fresh copy.")
    most = facts.st_size * MOST_DEFLATED if packed else facts.st_size
    return Stream(shown, facts.st_size, facts.st_mtime_ns, most, _Inflater(file) if packed else file)


class _Inflater(io.RawIOBase):
    """The unpacked bytes of a gzip file. zlib checks length and checksum of each member as it ends.

    Twice as fast as the standard library's `gzip.GzipFile`, which reads in small pieces.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflater = zlib.decompressobj(wbits=31)
        self._packed = b""

    def readable(self) -> bool:
        """Whether it can be read from: yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the front of `buffer` and return the number of bytes, 0 at the end of the last member."""
        view = memoryview(buffer).cast("B")
        while not self._inflater.eof or self._next_member():
            self._packed = self._packed or self._file.read(_PIECE)
            at_end = not self._packed
            piece = self._inflater.decompress(self._packed, min(len(view), _PIECE))
            self._packed = self._inflater.unconsumed_tail
            if piece:
                view[: len(piece)] = piece
                return len(piece)
            if at_end and not self._inflater.eof:
                raise EOFError
        return 0

    def _next_member(self) -> bool:
        # Members may follow each other and zeros may pad the end. Anything else is taken for a member and fails as one.
        rest = self._inflater.unused_data.lstrip(b"\0")
        while not rest and (more := self._file.read(_PIECE)):
            rest = more.lstrip(b"\0")
        if not rest:
            return False
        self._inflater, self._packed = zlib.decompressobj(wbits=31), rest
        return True
