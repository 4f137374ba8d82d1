"""Names the folders and files of an installation, for one user or for all (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM: Final = "rbee"
LINKS: Final = ("rbee-keeper", "queen-rbee", "rbee-hive", "llm-worker-rbee")
"""Other names of the program; called by one of the last three, it runs that role."""


class Layout(NamedTuple):
    """The folders and files of one installation, all absolute."""

    programs: Path
    config: Path
    models: Path
    units: Path
    """systemd's folder for user units, see systemd.unit(5)."""


def user(home: Path) -> Layout:
    return Layout(
        programs=home / ".local/bin",
        config=home / ".config/rbee/config.toml",
        models=home / ".local/share/rbee/models",
        units=home / ".config/systemd/user",
    )


def system(root: Path) -> Layout:
    return Layout(
        programs=root / "usr/local/bin",
        config=root / "etc/rbee/config.toml",
        models=root / "var/lib/rbee/models",
        units=root / "etc/systemd/user",
    )
