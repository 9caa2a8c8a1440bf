"""Storage files whose end is missing: a crash, a full disk, a copy that was broken off."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")  # what every record of MCAP begins with: what it is, and the bytes that follow
_FOOTER, _DATA_END = 0x02, 0x0F
# A footer that points to no summary, so that readers look through the whole file, and the magic at the end.
_END = _RECORD.pack(_FOOTER, 20) + bytes(20) + MAGIC


def is_cut_off(path: Path) -> bool:
    """Whether an MCAP file begins as one, but does not end as one."""
    with path.open("rb") as file:
        begins = file.read(len(MAGIC)) == MAGIC
        file.seek(-min(len(MAGIC), file.seek(0, io.SEEK_END)), io.SEEK_END)
        return begins and file.read() != MAGIC


def whole_records(path: Path) -> int:
    """How many bytes an MCAP file has up to its last whole record, or to its summary.

    Some file systems leave zeros behind after a crash. They are no record, and may be the end of the one before them,
    which does not count either.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        before = end = len(MAGIC)
        while True:
            file.seek(end)
            head = file.read(_RECORD.size)
            if len(head) < _RECORD.size:
                return end if any(head) or end == size else before
            kind, length = _RECORD.unpack(head)
            if kind == 0:
                return before
            if kind in (_FOOTER, _DATA_END) or end + _RECORD.size + length > size:
                return end
            before, end = end, end + _RECORD.size + length


def missing_pages(path: Path) -> int:
    """How many bytes a sqlite3 file lacks by its own header; 0 where it lacks none or is no such file.

    The header's count of pages holds only where the change counters beside it are equal; see the file format's page,
    https://www.sqlite.org/fileformat.html#in_header_database_size.
    """
    with path.open("rb") as file:
        head = file.read(100)
        size = file.seek(0, io.SEEK_END)
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        return 0
    (page,) = struct.unpack_from(">H", head, 16)
    changes, pages = struct.unpack_from(">II", head, 24)
    (valid_for,) = struct.unpack_from(">I", head, 92)
    if changes != valid_for:
        return 0
    return max(0, pages * (65536 if page == 1 else page) - size)


class CutOffMcap:
    """A cut-off MCAP file as a path of rosbags', by which it looks as if it had been ended after its last whole record.

    Attributes:
        end: bytes up to there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.end = whole_records(path)

    def __str__(self) -> str:
        return str(self._path)

    @property
    def stem(self) -> str:
        """As of a Path."""
        return self._path.stem

    @property
    def suffix(self) -> str:
        """As of a Path."""
        return self._path.suffix

    def exists(self) -> bool:
        """As of a Path."""
        return self._path.exists()

    def is_dir(self) -> bool:
        """As of a Path."""
        return False

    def open(self, *_arguments: Any, **_named: Any) -> BinaryIO:
        """The file up to its last whole record, and an end."""
        return io.BufferedReader(_WithEnd(self._path.open("rb", buffering=0), self.end))

    def read_text(self, encoding: str | None = None) -> str:
        """Not a text."""
        raise NotImplementedError

    def stat(self, *, follow_symlinks: bool = True) -> Any:
        """As of a Path."""
        return self._path.stat(follow_symlinks=follow_symlinks)

    def __truediv__(self, key: object) -> CutOffMcap:
        raise NotImplementedError


class _WithEnd(io.RawIOBase):
    """The first `size` bytes of a file, and `_END` after them."""

    def __init__(self, file: io.FileIO, size: int) -> None:
        self._file, self._size, self._place = file, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size + len(_END)}[whence]
        self._place = origin + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        if self._place < self._size:
            self._file.seek(self._place)
            count = self._file.readinto(view[: self._size - self._place]) or 0
        else:
            rest = _END[self._place - self._size :][: len(view)]
            count = len(rest)
            view[:count] = rest
        self._place += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
