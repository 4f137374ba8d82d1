"""Tells which processes write into a pipe."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def writers(descriptor: int) -> set[int]:
    """Return the processes that can write into a pipe, of those whose descriptors we may see: mostly our own user's."""
    own = os.fstat(descriptor)
    return {int(folder.parent.name) for folder in Path("/proc").glob("[0-9]*/fd") if _has_write_end(folder, own)}


def ancestors() -> set[int]:
    """Return this process, its parent, and so on."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            # The name, in parentheses, may hold anything; see proc_pid_stat(5).
            pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
        except OSError:
            break
    return found


def _has_write_end(folder: Path, pipe: os.stat_result) -> bool:
    try:
        for path in folder.iterdir():
            found = path.stat()
            # The link's own mode says how the descriptor is opened, see proc_pid_fd(5).
            if (found.st_dev, found.st_ino) == (pipe.st_dev, pipe.st_ino) and path.lstat().st_mode & stat.S_IWUSR:
                return True
    except OSError:
        pass  # the process has ended, has closed a descriptor, or is another user's
    return False
