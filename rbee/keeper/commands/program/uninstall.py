"""`rbee uninstall`: removes what `rbee install` wrote, and says what stays."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from rbee.adapters import zipapp
from rbee.adapters.daemon import instance
from rbee.adapters.files.home import cache as cache_folder
from rbee.errors import InvalidConfigurationError, StorageError
from rbee.keeper.install import destination, removal, units
from rbee.keeper.install.layout import PROGRAM
from rbee.keeper.install.removal import Folder
from rbee.keeper.output import render
from rbee.keeper.output.result import Result

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import UninstallOptions
    from rbee.keeper.install.layout import Layout
    from rbee.keeper.output.terminal import Terminal


def run(options: UninstallOptions, settings: Settings, terminal: Terminal) -> Result:
    """Remove the program; models, state and changed settings only where the options say so.

    Raises StorageError, also while daemons run: their files would be missing. A folder that has another place than rbee
    gives it may hold other things, and is never removed.
    """
    layout, _ = destination.choose(options, "uninstall")
    _refuse_while_running(settings, layout)
    version = zipapp.version_of(layout.programs / PROGRAM)
    folders = _folders(options, settings, layout)

    def wait() -> None:
        terminal.note("Waiting for another `rbee install` …")

    removed = removal.remove_program(layout, wait)
    templated = layout.models if options.system else None
    if (config := removal.remove_settings(layout, templated, changed=options.all)) is not None:
        removed.append(config)
    kept = []
    if os.path.lexists(layout.config):
        kept.append(("settings", f"{layout.config} (changed)", "--all removes it"))
    # The cache comes last: this program may run from there.
    for folder in folders:
        if not folder.path.is_dir() or not any(folder.path.iterdir()):
            continue
        if folder.own and (options.all or getattr(options, folder.option)):
            removal.remove_folder(folder.path)
            removed.append(folder.path)
        else:
            how = (
                f"--{folder.option} removes it"
                if folder.own
                else f"yours: {shlex.join(['rm', '-r', str(folder.path)])}"
            )
            kept.append((folder.what, f"{folder.path} ({render.size(folder.size())})", how))
    removal.remove_empty([layout.models, layout.models.parent, layout.config.parent])
    return Result(notes=tuple(_story(removed, kept, version, layout)))


def _folders(options: UninstallOptions, settings: Settings, layout: Layout) -> list[Folder]:
    """Return the folders that rbee may have filled; those of a system-wide installation are its models alone."""
    if options.system:
        return [_folder("models", layout.models, "models", is_ours=True)]
    home = destination.home("uninstall")
    models, state = settings.paths.models, settings.state_dir
    folders = [
        _folder("models", models, "models", is_ours=models == layout.models),
        _folder("token, nodes and logs", state, "state", is_ours=state == home / ".rbee"),
    ]
    if settings.cache.dir is not None:
        folders.append(_folder("prompts", settings.cache.folder, "all", is_ours=False))
    return [*folders, _folder("cache", cache_folder(), "all", is_ours=not os.environ.get("RBEE_CACHE"))]


def _folder(what: str, path: Path, option: str, *, is_ours: bool) -> Folder:
    """Describe a folder; one behind a link has another place, and may hold other things."""
    return Folder(what, path, option, own=is_ours and not path.is_symlink())


def _refuse_while_running(settings: Settings, layout: Layout) -> None:
    try:
        state = settings.state_dir
    except InvalidConfigurationError:
        return  # without a home no daemon of this user can run
    running = {
        role: found
        for role in units.ROLES
        if (found := instance.find(state, role)) is not None and found.started_by != "queen"
    }
    if not running:
        return
    named = " and ".join(f"the {role} (pid {found.identity.pid})" for role, found in running.items())
    services = [f"rbee-{role}" for role in running if (layout.units / units.name(role)).exists()]
    if services:
        how = f"`systemctl --user disable --now {' '.join(services)}`"
    else:
        how = "`rbee down`" if "queen" in running else f"`kill {running['hive'].identity.pid}`"
    raise StorageError(f"nothing was removed: {named} still runs", hint=f"{how} ends it; then try again")


def _story(removed: list[Path], kept: list[tuple[str, str, str]], version: str | None, layout: Layout) -> list[str]:
    if removed:
        lines = [f"Removed rbee {version}" if version else "Removed", *(f"  {path}" for path in removed)]
    else:
        lines = [f"Nothing of rbee is installed in {layout.programs}"]
    if kept:
        widths = [max(len(row[column]) for row in kept) for column in (0, 1)]
        lines += ["", "Kept", *(f"  {what:<{widths[0]}}  {where:<{widths[1]}}  {how}" for what, where, how in kept)]
    return lines
