"""Folders that only the user may read, and paths as users write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters.files import home

if TYPE_CHECKING:
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
