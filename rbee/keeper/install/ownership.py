"""Tells the files that rbee has installed from those of others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rbee.adapters import zipapp
from rbee.keeper.install import units
from rbee.keeper.install.layout import LINKS, PROGRAM

if TYPE_CHECKING:
    from pathlib import Path


def is_program(path: Path) -> bool:
    """Whether this is our file, or a link beside it that is another name of it."""
    return zipapp.version_of(path) is not None or (path.name in LINKS and _links_to(path, PROGRAM))


def is_unit(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(units.MARK)) == units.MARK.encode()
    except OSError:
        return False


def programs(folder: Path) -> list[Path]:
    """Return the paths of the program and its other names, whether they are there or not."""
    return [folder / name for name in (PROGRAM, *LINKS)]


def foreign(paths: list[Path], unit_paths: list[Path]) -> list[Path]:
    """Return those that exist and are not ours."""
    return [
        *(path for path in paths if os.path.lexists(path) and not is_program(path)),
        *(path for path in unit_paths if os.path.lexists(path) and not is_unit(path)),
    ]


def _links_to(path: Path, target: str) -> bool:
    return path.is_symlink() and str(path.readlink()) == target
