"""Reads one log file that another process writes, rotates and removes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from rbee.adapters.logs.redaction import Lines

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.adapters.logs.redaction import Entry

READ_BYTES: Final = 1 << 18
"""Bytes of new text per read."""
MOST: Final = 1 << 20
"""Bytes of old text that are read at most."""


class LogReader:
    """The log at `path`, as `LogFile` writes it: what was rotated away is in `<path>.1`. Close it.

    Every method blocks for as long as the disk does.
    """

    def __init__(self, path: Path, source: str) -> None:
        self._path = path
        self._older = path.with_name(f"{path.name}.1")
        self._source = source
        self._lines = Lines(source)
        self._descriptor: int | None = None
        self.is_gone = False
        """Whether the file was removed, and all that was in it has been read."""

    def last(self, count: int) -> list[Entry]:
        """Return the newest lines, oldest first; `more` goes on after them."""
        self._open()
        found: list[Entry] = []
        if self._descriptor is not None:
            size = os.lseek(self._descriptor, 0, os.SEEK_END)
            found = self._lines.feed(_end_of(self._descriptor, size, count))
        if len(found) < count:
            found[:0] = self._rotated(count)
        return found[-count:] if count else []

    def _rotated(self, count: int) -> list[Entry]:
        try:
            descriptor = os.open(self._older, os.O_RDONLY)
        except OSError:
            return []
        try:
            lines = Lines(self._source)
            return lines.feed(_end_of(descriptor, os.fstat(descriptor).st_size, count)) + lines.end()
        finally:
            os.close(descriptor)

    def unfinished(self) -> list[Entry]:
        """Return the last line although it has no end yet, for a caller that reads no more."""
        return self._lines.end()

    def more(self) -> list[Entry]:
        """Return what was written since the last read, or from the beginning; at most one read of it.

        A file that was replaced is read to its end before its successor.
        """
        if self._descriptor is None:
            self._open()
            if self._descriptor is None:
                self.is_gone = True
                return []
        if os.fstat(self._descriptor).st_size < os.lseek(self._descriptor, 0, os.SEEK_CUR):
            os.lseek(self._descriptor, 0, os.SEEK_SET)  # it was emptied
        data = os.read(self._descriptor, READ_BYTES)
        found = self._lines.feed(data)
        if len(data) == READ_BYTES or self._is_in_place():
            return found
        # Once more: it may have been written to before it was replaced, and after it was read.
        data = os.read(self._descriptor, READ_BYTES)
        found += self._lines.feed(data)
        if len(data) < READ_BYTES:
            found += self._lines.end()
            has_gap = not self._is_at(self._older)
            self.close()
            self._open()
            self.is_gone = self._descriptor is None
            if self._descriptor is not None:
                if has_gap:
                    found.append(self._lines.note("lines may be missing here: the log was removed, or grew too fast"))
                found += self._lines.feed(os.read(self._descriptor, READ_BYTES))
        return found

    def _is_in_place(self) -> bool:
        if self._path.exists():
            return self._is_at(self._path)
        # Between two steps of its writer there is no file of either name: it was renamed, and the next is not made yet.
        return self._is_at(self._older)

    def _is_at(self, path: Path) -> bool:
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.fstat(self._descriptor), path.stat())
        except OSError:
            return False

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY)
        except OSError:
            self._descriptor = None

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _end_of(descriptor: int, size: int, count: int) -> bytes:
    """Return the last `count` lines before offset `size`, or as many as may be read; the last one may have no end."""
    if count == 0:
        return b""
    data, start = b"", size
    while start > 0 and size - start < MOST and data.count(b"\n") <= count:
        step = min(READ_BYTES, start)
        start -= step
        data = os.pread(descriptor, step, start) + data
    # Reading seldom begins where a line does, and half a line is of no use.
    return data.partition(b"\n")[2] if start else data
