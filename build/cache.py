"""The cache folder that several checkouts share, and a lock that lets one process at a time set something up."""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def folder() -> Path:
    """The cache folder outside the checkout: $RBEE_CACHE, else rbee in the user's cache folder."""
    if own := os.environ.get("RBEE_CACHE"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rbee"


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path` (made if missing). The kernel releases it when the holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another rbee that is being set up …", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
