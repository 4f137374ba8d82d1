"""Reserves disk space to free when the disk is full: a database needs room even to delete."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

SIZE: Final = 1024 * 1024
SMALLEST: Final = 64 * 1024


class Ballast:
    """A file of SIZE bytes, or of as many as there was room for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_whole = False

    def drop(self) -> bool:
        """Free the reserved space; returns whether there was any."""
        self._is_whole = False
        try:
            held = self._path.stat().st_size
            os.truncate(self._path, 0)
        except OSError:
            return False
        return held > 0

    def restore(self) -> None:
        """Reserve what is missing, or as much as the disk has. Costs nothing while the ballast is whole."""
        if self._is_whole:
            return
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                self._is_whole = _grow(descriptor)
            finally:
                os.close(descriptor)


def _grow(descriptor: int) -> bool:
    held = os.fstat(descriptor).st_size
    size = SIZE
    while size > held and size >= SMALLEST:
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError:
            os.ftruncate(descriptor, held)  # some file systems keep what they had found until they found no more
            size //= 2
        else:
            break
    return os.fstat(descriptor).st_size >= SIZE
