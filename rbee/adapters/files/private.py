"""Makes the folders that hold what nobody but the user shall read, and shows paths as users write them."""

from __future__ import annotations

from pathlib import Path


def shown(path: Path) -> str:
    """Return a path for a person to read and to type: one of the home folder begins with ~/."""
    path = path.expanduser()
    home = Path("~").expanduser()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def make_private(path: Path) -> None:
    """Make a folder, and those above it that are missing, for the user alone; one that is there stays as it is.

    Raises OSError. `Path.mkdir` would give its mode to the last one, and make the ones above for everybody.
    """
    if not path.parent.exists():
        make_private(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
