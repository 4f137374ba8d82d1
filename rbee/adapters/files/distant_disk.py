"""Tells whether a file is on a disk of another machine, or of a program: their files may change their numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

MOUNTS = Path("/proc/self/mountinfo")
_DISTANT: Final = ("fuse", "nfs", "cifs", "smb", "9p", "virtiofs", "ceph", "afs", "lustre")
"""How the names of such file systems begin (proc_pid_mountinfo(5)); `fuse.sshfs` is one."""


def is_distant(path: Path) -> bool:
    """Whether the file is on such a disk, as far as the system says. Raises OSError where it is not there."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    mounts = [line.partition(" - ") for line in lines]
    kinds = [rest.partition(" ")[0] for first, _, rest in mounts if first.split()[2:3] == [number]]
    return any(kind.startswith(_DISTANT) for kind in kinds)
