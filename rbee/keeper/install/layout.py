"""Says where an installation puts its files (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM: Final = "rbee"
LINKS: Final = ("rbee-keeper", "queen-rbee", "rbee-hive", "llm-worker-rbee")
"""The other names of the program; by the last three it acts as that role."""


class Layout(NamedTuple):
    """The folders and files of one installation; all absolute."""

    programs: Path
    config: Path
    models: Path
    units: Path
    """systemd's folder for user units, see systemd.unit(5)."""


def user(home: Path) -> Layout:
    """Return the places of one user's installation."""
    return Layout(
        programs=home / ".local/bin",
        config=home / ".config/rbee/config.toml",
        models=home / ".local/share/rbee/models",
        units=home / ".config/systemd/user",
    )


def system(root: Path) -> Layout:
    """Return the places of an installation for all users, below `root`."""
    return Layout(
        programs=root / "usr/local/bin",
        config=root / "etc/rbee/config.toml",
        models=root / "var/lib/rbee/models",
        units=root / "etc/systemd/user",
    )
