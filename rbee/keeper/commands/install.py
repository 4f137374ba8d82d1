"""Puts the program, its other names, its settings and its services where a machine expects them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rbee.adapters import zipapp
from rbee.adapters.arguments import UsageError
from rbee.adapters.daemon import process
from rbee.adapters.files import atomic
from rbee.errors import StorageError
from rbee.keeper.install import layout as layouts
from rbee.keeper.install import settings_file, summary, units
from rbee.keeper.install.layout import LINKS, PROGRAM
from rbee.keeper.output.result import Result

if TYPE_CHECKING:
    from argparse import Namespace

    from rbee.adapters.config import Settings
    from rbee.keeper.install.layout import Layout
    from rbee.keeper.output.terminal import Terminal

CARRIED: Final = ("RBEE_HOME", "RBEE_CONFIG", "RBEE_CACHE")
"""Variables that a user's services need as this command has them, to work with the same files."""


def run(options: Namespace, settings: Settings, terminal: Terminal) -> Result:
    """Install, or bring an installation up to date; settings that are there stay as they are.

    Raises StorageError; a program that was there before then still works. Raises UsageError for a bad prefix.
    """
    prefix = _prefix(options)
    if options.system:
        _require_rights(prefix)
        # Others shall be able to read it all, however careful root is otherwise.
        os.umask(0o022)
        layout = layouts.system(prefix or Path("/"))
    else:
        layout = layouts.user(_home())
    source = zipapp.locate(terminal.note)
    services = _services(options, settings, layout, prefix) if options.systemd else {}
    _refuse_strangers(layout, services)
    before = zipapp.version_of(layout.programs / PROGRAM)
    has_config = _place(layout, source, services, terminal, is_system=options.system)
    _try(layout.programs / PROGRAM)
    version = zipapp.version_of(layout.programs / PROGRAM)
    lines = [summary.headline(before, version), *summary.places(layout, services, has_config=has_config)]
    if not options.system:
        lines += summary.older_daemons(settings, layout, version)
    lines += summary.path(layout, _home())
    lines += summary.next_steps(layout, is_elsewhere=prefix is not None, has_services=bool(services))
    return Result(notes=tuple(lines))


def _prefix(options: Namespace) -> Path | None:
    given: str | None = options.prefix
    if given is None:
        return None
    hint = "`rbee install --system --prefix DIR` puts into DIR what --system puts into /"
    if not options.system:
        raise UsageError("--prefix goes with --system", hint)
    if not given.strip():
        raise UsageError("--prefix: the name of a folder is expected", hint)
    try:
        given.encode()
    except UnicodeEncodeError:
        raise UsageError("--prefix: the name of a folder must be UTF-8", hint) from None
    return Path(given).expanduser().absolute()


def _home() -> Path:
    return Path("~").expanduser().absolute()


def _require_rights(prefix: Path | None) -> None:
    if prefix is None and os.geteuid() != 0:
        command = shlex.join(["sudo", *process.program(), "install", "--system"])
        raise StorageError(
            "only root can install rbee for all users of this machine",
            hint=f"{command}\n"
            "or `rbee install` for yourself alone, or --prefix DIR to put the same files below another folder",
        )


def _refuse_strangers(layout: Layout, services: dict[str, str]) -> None:
    """Raise StorageError where a file that is none of ours has a name that we need."""
    strangers = []
    for name in (PROGRAM, *LINKS):
        path = layout.programs / name
        is_ours = zipapp.version_of(path) is not None or (name in LINKS and _leads_to(path, PROGRAM))
        if os.path.lexists(path) and not is_ours:
            strangers.append(path)
    for name in services:
        path = layout.units / name
        if os.path.lexists(path) and not _begins_with(path, units.MARK):
            strangers.append(path)
    if strangers:
        what, them = (
            ("is there already, and is", "it") if len(strangers) == 1 else ("are there already, and are", "them")
        )
        raise StorageError(
            f"{', '.join(map(str, strangers))} {what} not of rbee's making",
            hint=f"nothing was changed; move {them} away, then run this again",
        )


def _leads_to(path: Path, target: str) -> bool:
    return path.is_symlink() and str(path.readlink()) == target


def _begins_with(path: Path, text: str) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(text)) == text.encode()
    except OSError:
        return False


def _services(options: Namespace, settings: Settings, layout: Layout, prefix: Path | None) -> dict[str, str]:
    """Return the units: file name → text."""
    environment = {}
    if not options.system:
        environment = {name: value for name in CARRIED if (value := os.environ.get(name))}
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


def _place(layout: Layout, source: Path, services: dict[str, str], terminal: Terminal, *, is_system: bool) -> bool:
    """Write everything; returns whether there were settings already, which then stay."""

    def wait() -> None:
        terminal.note("Waiting for another rbee that is installing …")

    # Folders first: what cannot be made is found out before anything is replaced.
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


def _try(program: Path) -> None:
    """Start the installed file as a user would. Raises StorageError with the reason why it does not start."""
    try:
        done = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as exc:
        reason = exc.strerror or str(exc)
    else:
        if done.returncode == 0:
            return
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        reason = lines[-1].removeprefix("rbee: ") if lines else process.describe_end(done.returncode)
    raise StorageError(
        f"{program} is installed, but does not start: {reason}",
        hint=f"it needs a `python3` in PATH that fits; otherwise: {shlex.join([sys.executable, str(program)])}",
    )
