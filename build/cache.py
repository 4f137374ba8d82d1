"""The cache folder that several checkouts share, and a lock that lets one process at a time set something up."""

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

UNUSED_DAYS = 30
"""Other checkouts share the folder, and making an engine anew takes minutes."""


def folder() -> Path:
    """The cache folder outside the checkout: $RBEE_CACHE, else rbee in the user's cache folder."""
    if own := os.environ.get("RBEE_CACHE"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rbee"


def remove_abandoned(parent: Path) -> None:
    """Removes what processes that were killed have left in `parent`: folders .KEY-…, beside the lock .KEY.lock."""
    for path in parent.glob(".*.lock"):
        with path.open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its work goes on
            for left in parent.glob(f"{path.name.removesuffix('.lock')}-*"):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)


def remove_unused(parent: Path, kept: Path) -> None:
    """Removes what was made in `parent` for versions that no checkout has used for UNUSED_DAYS, and says so.

    `kept` is in use now.
    """
    with contextlib.suppress(OSError):  # of somebody else, who shares it
        os.utime(kept)
    folders = [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".") and path != kept]
    for found in sorted(folders):
        if time.time() - found.stat().st_mtime < UNUSED_DAYS * 86400:
            continue
        shutil.rmtree(found, ignore_errors=True)
        found.with_name(f"{found.name}.log").unlink(missing_ok=True)
        print(f"removed {found}: no checkout has used it for {UNUSED_DAYS} days", file=sys.stderr)


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
