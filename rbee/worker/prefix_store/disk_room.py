"""Bounds what all workers of this user keep on the disk, over all models: what was used longest ago goes.

Workers know nothing of each other: each counts what it writes itself, and looks at the folders again after a 64th of
the bound, or where it may be reached. So four that write at once stay below it, and more go beyond it by a 64th each.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.worker.prefix_store.part_file import PartName

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNFINISHED: Final = ".new-"
"""How names begin under which files are written first."""
UNFINISHED_SECONDS: Final = 60.0
"""The age from which one counts as left behind by a process that was killed; its writer loses it."""
UNUSED_SECONDS: Final = 24 * 3600.0
"""The age from which a model's folder is removed when it is empty."""
MOST_FILES: Final = 20_000
"""Each file counts as this part of the bound at least: so many names are looked through in 20 ms."""
LEAST_FREE_SHARE: Final = 0.05
LEAST_FREE: Final = 2_000_000_000
"""The share of the disk that stays free for others, and the bytes that suffice on a large one."""
RESCAN_SHARE: Final = 1 / 64
KEPT_SHARE: Final = 15 / 16
"""What of the bound is left when it was reached."""
RESCAN_SECONDS: Final = 60.0
SAME_TIME_SECONDS: Final = 256
"""Parts used within this time count as used together; of those the ones behind go first, which need those before."""
LOCK_SECONDS: Final = 1.0
_BLOCK: Final = 4096
_MODEL_FOLDER: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


class NoDiskRoomError(Exception):
    """There is no room on the disk, which is nearly full; or the bound is too small for one part."""


class _Candidate(NamedTuple):
    """A file that may go, in the order in which they go."""

    used: int
    before_end: int
    size: int
    path: str


class DiskRoom:
    """The bound of `limit` bytes for the folder `root`, which holds one folder for each model. For one thread."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._least_cost = limit // MOST_FILES
        self._found = self._added = 0
        self._looked_at = -RESCAN_SECONDS

    def make(self, size: int) -> list[Path]:
        """Make room for a file of so many bytes, and return the files that had to go.

        Raises NoDiskRoomError, also where only files of others could make room, and OSError.
        """
        if (cost := self._cost(size)) > self._limit:
            raise NoDiskRoomError
        if (
            self._added > self._limit * RESCAN_SHARE
            or self._found + self._added + cost > self._limit
            or time.monotonic() - self._looked_at > RESCAN_SECONDS
        ):
            self._look()
        gone = []
        is_over, lacking = self._found + self._added + cost > self._limit, self._lacking(size)
        if is_over or lacking > 0:
            with self._locked():
                gone = self._evict(int(self._limit * KEPT_SHARE) - cost if is_over else self._limit, lacking)
            if self._found + cost > self._limit or self._lacking(size) > 0:
                raise NoDiskRoomError
        self._added += cost
        return gone

    def _lacking(self, size: int) -> int:
        """Return how many bytes the disk lacks for a file, beside those that stay free for others."""
        disk = os.statvfs(self._root)
        return (
            size
            + min(int(disk.f_blocks * disk.f_frsize * LEAST_FREE_SHARE), LEAST_FREE)
            - (disk.f_bavail * disk.f_frsize)
        )

    def _cost(self, size: int) -> int:
        return max(-(-size // _BLOCK) * _BLOCK, self._least_cost)

    def _look(self) -> None:
        """Count what is there, by the names alone."""
        found = 0
        for folder in _model_folders(self._root):
            if not (entries := _entries(folder)):
                _remove_if_unused(folder)
            for entry in entries:
                if (name := PartName.parse(entry.name)) is not None:
                    found += self._cost(name.size)
                elif entry.name.startswith(UNFINISHED):
                    found += self._cost(_size_unless_left(entry))
        self._found, self._added, self._looked_at = found, 0, time.monotonic()

    def _evict(self, most: int, lacking: int) -> list[Path]:
        """Remove what was used longest ago, until at most `most` bytes count, and `lacking` more are free."""
        candidates = []
        for folder in _model_folders(self._root):
            for entry in _entries(folder):
                if (name := PartName.parse(entry.name)) is not None:
                    with contextlib.suppress(OSError):
                        used = int(entry.stat(follow_symlinks=False).st_mtime) // SAME_TIME_SECONDS
                        candidates.append(_Candidate(used, -name.end, name.size, entry.path))
        found, gone = sum(self._cost(candidate.size) for candidate in candidates), []
        for candidate in sorted(candidates):
            if found <= most and lacking <= 0:
                break
            path = self._root / candidate.path
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                found -= self._cost(candidate.size)
                lacking -= candidate.size
                gone.append(path)
        self._found, self._added, self._looked_at = found, 0, time.monotonic()
        return gone

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one worker at a time remove files: two would remove twice as many.

        After a second it is done without the lock: its holder may be stopped, and more that goes is no harm.
        """
        descriptor = os.open(self._root / ".lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + LOCK_SECONDS
            while time.monotonic() < until:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.02)
                except OSError:
                    break  # a file system without locks
            yield
        finally:
            os.close(descriptor)


def _model_folders(root: Path) -> list[str]:
    """Return the folders of models; nothing else that is there is ours."""
    return [
        entry.path
        for entry in _entries(os.fspath(root))
        if _MODEL_FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
    ]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _remove_if_unused(folder: str) -> None:
    """Remove an empty folder that nothing was written to for long; a worker that has it open makes it anew."""
    with contextlib.suppress(OSError):
        if time.time() - os.stat(folder).st_mtime > UNUSED_SECONDS:  # noqa: PTH116 (as scandir has it)
            os.rmdir(folder)  # noqa: PTH106


def _size_unless_left(entry: os.DirEntry[str]) -> int:
    """Return the size of an unfinished file; one that was left behind is removed."""
    try:
        found = entry.stat(follow_symlinks=False)
        if abs(time.time() - found.st_mtime) > UNFINISHED_SECONDS:
            os.unlink(entry.path)  # noqa: PTH108 (a path as text, as scandir has it)
            return 0
    except OSError:
        return 0
    return found.st_size
