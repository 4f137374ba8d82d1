"""Which files a model was loaded from, and whether these are still the files at their paths."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class FileState(NamedTuple):
    """A file as it was found at a path, links followed: another one there differs in device, inode, size or time.

    `changed_ns` is the time of change, which other programs cannot set.
    """

    path: str
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    def is_same(self, other: FileState) -> bool:
        """Whether both are one file.

        Device and inode are not the same for good on network shares, which may be mounted anew or count files as they
        come; but a file that took the place of another has another time of change.
        """
        has_moved = (self.device, self.inode) != (other.device, other.inode) and self.changed_ns != other.changed_ns
        return not has_moved and (self.size, self.modified_ns) == (other.size, other.modified_ns)


def states(paths: Iterable[Path]) -> tuple[FileState, ...]:
    """Return the files at these paths. Raises OSError."""
    return tuple(_state(str(path)) for path in paths)


def are_unchanged(files: Iterable[FileState]) -> bool:
    """Whether the same files are there; so they are taken to be where that cannot be found out, as on a stale mount."""
    try:
        return all(_state(file.path).is_same(file) for file in files)
    except OSError as exc:
        return exc.errno not in _GONE


def changed_at(path: str) -> float | None:
    """Return when a file has come to its path or was last written; None without one.

    The time of change too (Unix seconds): a file that is renamed keeps the time at which it was written.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 (a path may be a reference that no Path can be made of)
    except (OSError, ValueError):
        return None
    return max(found.st_mtime, found.st_ctime)


def _state(path: str) -> FileState:
    found = os.stat(path)  # noqa: PTH116 (as above)
    return FileState(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
