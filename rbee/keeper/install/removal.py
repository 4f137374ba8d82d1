"""Removes what `rbee install` wrote, and what rbee has made since."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.adapters.files import atomic
from rbee.errors import StorageError
from rbee.keeper.install import ownership, settings_file, units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from rbee.keeper.install.layout import Layout

ENABLED: Final = "default.target.wants"
"""The folder beside the units in which `systemctl enable` links those that start by themselves."""


class Folder(NamedTuple):
    """A folder that rbee fills while it runs; `own` means that it has the place and name which rbee gives it."""

    what: str
    path: Path
    option: str
    own: bool

    def size(self) -> int:
        return _size(self.path)


def remove_program(layout: Layout, wait: Callable[[], None]) -> list[Path]:
    """Remove the program, its other names and its services; returns what was there. Raises StorageError."""
    unit_paths = [layout.units / units.name(role) for role in units.ROLES]
    links = [layout.units / ENABLED / path.name for path in unit_paths]
    found = [path for path in ownership.programs(layout.programs) if ownership.is_program(path)]
    found += [path for path in links if path.is_symlink() and any(path.readlink() == unit for unit in unit_paths)]
    found += [path for path in unit_paths if ownership.is_unit(path)]
    if layout.programs.is_dir():
        with atomic.AtomicFolder(layout.programs, wait):  # no installation at the same time
            for path in found:
                _remove(path)
    return found


def remove_settings(layout: Layout, models: Path | None, *, changed: bool) -> Path | None:
    """Remove the settings file where nobody has changed it, or with `changed` in any case; returns what was removed."""
    if not os.path.lexists(layout.config):
        return None
    if not changed and not _is_untouched(layout.config, settings_file.text(models)):
        return None
    _remove(layout.config)
    return layout.config


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those folders that hold nothing."""
    for path in folders:
        try:
            path.rmdir()
        except OSError:
            continue


def remove_folder(path: Path) -> None:
    """Remove a folder with all that it holds. Raises StorageError, also for a link to one."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StorageError(f"{exc.filename or path} could not be removed: {exc.strerror}") from exc


def _is_untouched(path: Path, text: str) -> bool:
    try:
        return not path.is_symlink() and path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise StorageError(f"{path} could not be removed: {exc.strerror}") from exc


def _size(path: Path) -> int:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118 (os.walk gives strings)
            except OSError:
                continue
    return total
