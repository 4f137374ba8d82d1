"""Composes what `rbee install` prints: what was installed where, and the next steps."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rbee.adapters.daemon import instance
from rbee.keeper.install import shell, units
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
    ]
    return [f"  {what:<9} {where}" for what, where in rows]


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


def path(layout: Layout, home: Path) -> list[str]:
    """Return what to do if `rbee` in PATH is not the installed program."""
    if not shell.is_in_path(layout.programs, os.environ.get("PATH", "")):
        lines = shell.path_lines(layout.programs, home, os.environ.get("SHELL", ""))
        return ["", f"{layout.programs} is not in PATH. For this shell and for new ones:", *(f"  {x}" for x in lines)]
    found = shutil.which(PROGRAM)
    if found is not None and not Path(found).samefile(layout.programs / PROGRAM):
        return ["", f"`rbee` still means {found}: its folder comes before {layout.programs} in PATH."]
    return []


def next_steps(layout: Layout, *, is_elsewhere: bool, has_services: bool) -> list[str]:
    """Return the next steps; `is_elsewhere` means that rbee does not look there for its settings by itself."""
    steps = [
        ('rbee infer --prompt "Once upon a time"', "text from the model that ships with rbee"),
        ("rbee up", "a queen in the background: models stay warm"),
    ]
    if has_services:
        names = " ".join(units.name(role).removesuffix(".service") for role in units.ROLES)
        steps[-1] = (f"systemctl --user enable --now {names}", "start the services, now and at each login")
        steps.append(("loginctl enable-linger", "keep them running while nobody is logged in"))
    if is_elsewhere:
        steps.insert(0, (f"export RBEE_CONFIG={shlex.quote(str(layout.config))}", "rbee does not look there by itself"))
    width = max(len(command) for command, _ in steps)
    return ["", "Next steps:", *(f"  {command:<{width}}  # {what}" for command, what in steps)]
