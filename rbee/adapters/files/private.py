"""Folders and files that only the user may read, and paths as users write them."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rbee.adapters.files import home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def shown(path: Path) -> str:
    """Return a path for a person to read and type: one in the home folder begins with ~/."""
    path, folder = home.expanded(path), home.folder()
    return str(path) if folder is None or not path.is_relative_to(folder) else f"~/{path.relative_to(folder)}"


def make_private(path: Path) -> None:
    """Make a folder and its missing parents with mode 0700; a folder that exists stays as it is.

    Raises OSError. `Path.mkdir` would give that mode to the last one only, and make its parents readable for all.
    """
    if not path.parent.exists():
        make_private(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


@contextmanager
def written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """Have a file with `content` beside `path`, whole on the disk; the block gives it that name, or it is removed.

    Raises OSError.
    """
    # A name that no other writer has, nor one that was killed here: in a container pids come again soon.
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield scratch
    finally:
        scratch.unlink(missing_ok=True)
