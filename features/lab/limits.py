"""Gives programs less memory than the machine has, by a control group (cgroups(7)); only root may make one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


class MemoryLimit:
    """A control group; `prefix` runs a command in it. Raises OSError where none can be made."""

    def __init__(self) -> None:
        is_first = (MOUNT / "memory").is_dir()
        root = MOUNT / "memory" if is_first else MOUNT
        if not is_first and "memory" not in (root / "cgroup.subtree_control").read_text().split():
            (root / "cgroup.subtree_control").write_text("+memory")
        self._folder = root / f"rbee-test-{os.getpid()}"
        self._file = self._folder / ("memory.limit_in_bytes" if is_first else "memory.max")
        self._folder.mkdir()
        self.size = 0

    @property
    def prefix(self) -> list[str]:
        """Words before a command: the process enters the group, then becomes the command."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._folder / "cgroup.procs")]

    def set(self, size: int) -> None:
        """Let the processes of the group use `size` bytes together."""
        self._file.write_text(str(size))
        self.size = size

    def close(self) -> None:
        """Remove the group; its processes must have ended."""
        with contextlib.suppress(OSError):
            self._folder.rmdir()
