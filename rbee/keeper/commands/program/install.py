"""`rbee install`: installs the program, its other names, its settings and its services on this machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from rbee.adapters import config, zipapp
from rbee.adapters.daemon import process
from rbee.adapters.files import atomic, home
from rbee.errors import StorageError
from rbee.keeper.install import destination, ownership, settings_file, summary, units
from rbee.keeper.install.layout import LINKS, PROGRAM
from rbee.keeper.output.result import Result

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import InstallOptions
    from rbee.keeper.install.layout import Layout
    from rbee.keeper.output.terminal import Terminal

CARRIED: Final = ("RBEE_HOME", "RBEE_CONFIG", "RBEE_CACHE")
"""Variables passed on to a user's services, so that they use the same files as this command."""


def run(options: InstallOptions, settings: Settings, terminal: Terminal) -> Result:
    """Install or update; existing settings are left unchanged.

    Raises StorageError, and then a program installed before still works. Raises UsageError for a bad prefix.
    """
    layout, prefix = destination.choose(options, "install")
    if options.system:
        # All users must be able to read everything, whatever root's umask is.
        os.umask(0o022)
    source = zipapp.locate(terminal.note)
    services = _services(options, settings, layout, prefix) if options.systemd else {}
    _refuse_foreign_files(layout, services)
    before = zipapp.version_of(layout.programs / PROGRAM)
    has_config = _write(layout, source, services, terminal, is_system=options.system)
    _check_starts(layout.programs / PROGRAM)
    version = zipapp.version_of(layout.programs / PROGRAM)
    lines = [summary.headline(before, version), *summary.places(layout, services, has_config=has_config)]
    if not options.system:
        lines += summary.older_daemons(settings, layout, version)
    lines += summary.path(layout, home.folder())
    lines += summary.next_steps(
        layout, is_first=before is None, is_elsewhere=prefix is not None, has_services=bool(services)
    )
    return Result(notes=tuple(lines))


def _refuse_foreign_files(layout: Layout, services: dict[str, str]) -> None:
    """Raise StorageError if a file that is not ours has a name that we need."""
    foreign = ownership.foreign(ownership.programs(layout.programs), [layout.units / name for name in services])
    if foreign:
        what, them = ("exists already, and was", "it") if len(foreign) == 1 else ("exist already, and were", "them")
        raise StorageError(
            f"{', '.join(map(str, foreign))} {what} not made by rbee",
            hint=f"nothing was changed; move {them} away, then try again",
        )


def _services(options: InstallOptions, settings: Settings, layout: Layout, prefix: Path | None) -> dict[str, str]:
    """Return the units: file name → text."""
    environment = {}
    if not options.system:
        own = config.absolute_environment()
        environment = {name: own[name] for name in CARRIED if own.get(name)}
        if options.config is not None:
            environment["RBEE_CONFIG"] = options.config
    elif prefix is not None:
        environment["RBEE_CONFIG"] = str(layout.config)
    command = [zipapp.interpreter(), str(layout.programs / PROGRAM)]
    try:
        return {
            units.name(role): units.text(role, [*command, role], environment, stop_seconds=settings.timeouts.ending)
            for role in units.ROLES
        }
    except ValueError as exc:
        raise StorageError(f"no services can be written for systemd: {exc}") from exc


def _write(layout: Layout, source: Path, services: dict[str, str], terminal: Terminal, *, is_system: bool) -> bool:
    """Write all files; returns whether there was a settings file already, which is then unchanged."""

    def wait() -> None:
        terminal.note("Waiting for another `rbee install` …")

    # Folders first: if one cannot be made, nothing has been replaced yet.
    for path in (layout.models, layout.config.parent, *([layout.units] if services else [])):
        atomic.make_folder(path)
    with atomic.AtomicFolder(layout.programs, wait) as programs:
        program = layout.programs / PROGRAM
        if program.is_symlink() or not (program.exists() and program.samefile(source)):
            programs.copy(source, PROGRAM, mode=0o755)
        for name in LINKS:
            programs.link(name, PROGRAM)
    with atomic.AtomicFolder(layout.config.parent, wait) as configs:
        is_new = configs.add(layout.config.name, settings_file.text(layout.models if is_system else None))
    if services:
        with atomic.AtomicFolder(layout.units, wait) as units_folder:
            for name, text in services.items():
                units_folder.write(name, text)
    return not is_new


def _check_starts(program: Path) -> None:
    """Start the installed file as a user would. Raises StorageError with the reason if it does not start."""
    hint = f"it needs a suitable `python3` in PATH; without one: {shlex.join([sys.executable, str(program)])}"
    try:
        done = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as exc:
        reason = exc.strerror or str(exc)
    else:
        if done.returncode == 0:
            return
        said = done.stderr.decode("utf-8", "replace")
        lines = said.partition("\nhint: ")[0].splitlines()
        reason = lines[-1].removeprefix("rbee: ") if lines else process.describe_end(done.returncode)
        hint = said.partition("\nhint: ")[2].strip() or hint
    raise StorageError(f"{program} is installed, but does not start: {reason}", hint=hint)
