"""Makes the folders that hold what nobody but the user shall read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make_private(path: Path) -> None:
    """Make a folder, and those above it that are missing, for the user alone; one that is there stays as it is.

    Raises OSError. `Path.mkdir` would give its mode to the last one, and make the ones above for everybody.
    """
    if not path.parent.exists():
        make_private(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
