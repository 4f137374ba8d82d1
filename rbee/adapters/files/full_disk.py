"""Tells a full disk from other refusals, and what to do about it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from rbee.errors import StorageError

ADVICE: Final = "free some space on that disk; RBEE_HOME names another folder"


def is_full(exc: OSError) -> bool:
    """Tell whether the disk, or the user's share of it, had no room."""
    return exc.errno in (errno.ENOSPC, errno.EDQUOT)


def refused(what: str, exc: OSError) -> StorageError:
    """Return the error for `what` could not be done, with the reason that the system gave."""
    if is_full(exc):
        return StorageError(f"{what}: the disk is full", hint=ADVICE)
    name = Path(exc.filename).name if isinstance(exc.filename, str) else ""
    return StorageError(f"{what}: {exc.strerror}" + (f" ({name})" if name and name not in what else ""))
