"""Reads files that others name: a pipe in place of one would hold the reader up for ever."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import BinaryIO

_NOTHING: Final = Path(os.devnull)


def opened(path: Path) -> BinaryIO:
    """Open a file for reading. Raises OSError, also for a pipe, a socket, or a device other than /dev/null."""
    # Without O_NONBLOCK the kernel waits for a pipe's writer; for regular files it means nothing.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) or found.st_rdev == _NOTHING.stat().st_rdev:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is no file")


def read(path: Path, most: int = -1) -> bytes:
    """Return the content of a file, of at most so many bytes. Raises as `opened` does."""
    with opened(path) as file:
        return file.read(most)
