"""Composes what `rbee install` prints: what was installed where, and the next steps."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rbee.adapters.daemon import instance
from rbee.adapters.files import home as homes
from rbee.keeper.install import ownership, shell, units
from rbee.keeper.install.layout import LINKS, PROGRAM

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rbee.adapters.config import Settings
    from rbee.keeper.install.layout import Layout


def headline(before: str | None, version: str | None) -> str:
    if before is None:
        return f"Installed rbee {version}"
    return f"Installed rbee {version} again" if before == version else f"Installed rbee {version} in place of {before}"


def places(layout: Layout, services: Iterable[str], *, has_config: bool) -> list[str]:
    config = f"{layout.config}{' (already there; unchanged)' if has_config else ''}"
    rows = [
        ("program", layout.programs / PROGRAM),
        ("links", ", ".join(LINKS)),
        ("settings", config),
        ("models", layout.models),
        *(("service", layout.units / name) for name in services),
        *(("service", f"{path} (already there; unchanged)") for path in _other_units(layout, services)),
    ]
    return [f"  {what:<9} {where}" for what, where in rows]


def _other_units(layout: Layout, services: Iterable[str]) -> list[Path]:
    """Return the units of an earlier installation that were not written now."""
    written = set(services)
    found = [layout.units / units.name(role) for role in units.ROLES if units.name(role) not in written]
    return [path for path in found if ownership.is_unit(path)]


def older_daemons(settings: Settings, layout: Layout, version: str | None) -> list[str]:
    """Return a line for each running daemon of another version, with how to replace it."""
    lines = []
    for role, advice in (("queen", "`rbee down` ends it"), ("hive", "end it; the queen then starts the new one")):
        running = instance.find(settings.state_dir, role)
        if running is None or running.version == version or running.started_by == "queen":
            continue
        is_service = (layout.units / units.name(role)).exists()
        how = f"`systemctl --user restart rbee-{role}` replaces it" if is_service else advice
        lines.append(f"The running {role} (pid {running.identity.pid}) is still version {running.version}; {how}.")
    return lines


def path(layout: Layout, home: Path | None) -> list[str]:
    """Return what to do if `rbee` in PATH is not the installed program."""
    if not shell.is_in_path(layout.programs, os.environ.get("PATH", "")):
        name = os.environ.get("SHELL", "")
        if _is_in_start_file(line := shell.path_line(layout.programs, home, name), name):
            head = f"{layout.programs} is not in PATH of this shell yet; {shell.start_file(name)} adds it for new ones."
            return ["", f"{head} For this one:", f"  {line}"]
        lines = shell.path_lines(layout.programs, home, name)
        return ["", f"{layout.programs} is not in PATH. For this shell and for new ones:", *(f"  {x}" for x in lines)]
    found = shutil.which(PROGRAM)
    if found is not None and not Path(found).samefile(layout.programs / PROGRAM):
        return ["", f"`rbee` still means {found}: its folder comes before {layout.programs} in PATH."]
    return []


def _is_in_start_file(line: str, shell_name: str) -> bool:
    try:
        return line in homes.found(shell.start_file(shell_name)).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False


def next_steps(layout: Layout, *, is_first: bool, is_elsewhere: bool, has_services: bool) -> list[str]:
    """Return the next steps; `is_elsewhere` means that rbee does not look there for its settings by itself.

    Someone who installs it again, `is_first` being false, knows how it is used.
    """
    steps: list[tuple[str, str]] = []
    if is_first:
        steps.append(('rbee infer --prompt "Once upon a time"', "text from the model that ships with rbee"))
        if not has_services:
            steps.append(("rbee up", "a queen in the background: models stay warm"))
    if has_services:
        names = " ".join(units.name(role).removesuffix(".service") for role in units.ROLES)
        steps.append((f"systemctl --user enable --now {names}", "start the services, now and at each login"))
        steps.append(("loginctl enable-linger", "keep them running while nobody is logged in"))
    if is_elsewhere:
        steps.insert(0, (f"export RBEE_CONFIG={shlex.quote(str(layout.config))}", "rbee does not look there by itself"))
    if not steps:
        return []
    width = max(len(command) for command, _ in steps)
    return ["", "Next steps:", *(f"  {command:<{width}}  # {what}" for command, what in steps)]
