"""Tells a full disk from other failures of the file system, with advice."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from rbee.errors import StorageError

ADVICE: Final = "free some space on that disk; RBEE_HOME names another folder"


def is_full(exc: OSError) -> bool:
    """Whether the disk, or the user's quota on it, was full."""
    return exc.errno in (errno.ENOSPC, errno.EDQUOT)


def refused(what: str, exc: OSError) -> StorageError:
    """Return the error for an operation, named by `what`, that failed with `exc`."""
    if is_full(exc):
        return StorageError(f"{what}: the disk is full", hint=ADVICE)
    name = Path(exc.filename).name if isinstance(exc.filename, str) else ""
    return StorageError(f"{what}: {exc.strerror}" + (f" ({name})" if name and name not in what else ""))
