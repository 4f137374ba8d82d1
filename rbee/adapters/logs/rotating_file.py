"""A log file of bounded size that survives a full disk and its own removal."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_STDERR: Final = 2


class LogFile(logging.Handler):
    """Appends to `path`; before it grows past `max_bytes` it is renamed to `<path>.1`, of which there is one.

    While the disk is full, lines are dropped and counted, and the callers go on. The file is opened again when it was
    removed, perhaps to make room.

    Where stderr leads to the file, as the process that starts a daemon arranges it, it is moved to each new file: what
    native code writes when it crashes belongs beside the newest lines. (The library's RotatingFileHandler leaves stderr
    behind, keeps in its buffer what a full disk did not take, and never notices that the file was removed.)
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__()
        self._path = path
        self._older = path.with_name(f"{path.name}.1")
        self._max_bytes = max_bytes
        self._takes_stderr = _stderr_leads_to(path)
        self._descriptor: int | None = None
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 (as every handler does: a bad logging call is reported on stderr)
            self.handleError(record)
            return
        try:
            if self._lost:
                self._append(self.format(_loss(record, self._lost)))
                self._lost = 0
            self._append(line)
        except OSError:
            self._lost += 1

    def close(self) -> None:
        self.acquire()
        try:
            self._let_go()
        finally:
            self.release()
        super().close()

    def _append(self, line: str) -> None:
        data = line.encode() + b"\n"
        descriptor = self._current()
        size = os.fstat(descriptor).st_size
        if size and size + len(data) > self._max_bytes:
            self._path.replace(self._older)
            descriptor, size = self._open(), 0
        if os.write(descriptor, data) < len(data):
            # The rest would not fit either, and half a line would spoil the next one.
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _current(self) -> int:
        if self._descriptor is not None:
            try:
                if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                    return self._descriptor
            except FileNotFoundError:
                pass
        return self._open()

    def _open(self) -> int:
        self._let_go()
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self._takes_stderr:
            os.dup2(self._descriptor, _STDERR)
        return self._descriptor

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _stderr_leads_to(path: Path) -> bool:
    """Whether stderr is this file, or /dev/null, as it is when the disk was too full to make the file."""
    try:
        stderr = os.fstat(_STDERR)
    except OSError:
        return True  # closed, and the next file that is opened must not be taken for it
    for file in (path, Path(os.devnull)):
        with suppress(OSError):
            if os.path.samestat(stderr, file.stat()):
                return True
    return False


def _loss(record: logging.LogRecord, count: int) -> logging.LogRecord:
    lines = "1 line was" if count == 1 else f"{count} lines were"
    message = f"{lines} lost here: the log could not be written (was the disk full?)"
    return logging.LogRecord(record.name, logging.WARNING, record.pathname, record.lineno, message, None, None)
