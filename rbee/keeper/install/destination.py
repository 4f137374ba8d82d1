"""Chooses where `rbee install` and `rbee uninstall` work, and checks that they may."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from rbee.adapters.arguments import UsageError
from rbee.adapters.daemon import process
from rbee.adapters.files import home as homes
from rbee.errors import InvalidConfigurationError, StorageError
from rbee.keeper.install import layout as layouts

if TYPE_CHECKING:
    from rbee.keeper.command_line.typed import PlaceOptions
    from rbee.keeper.install.layout import Layout

Verb = Literal["install", "uninstall"]


class Destination(NamedTuple):
    """Where an installation is; `prefix` is the folder that stands for / there."""

    layout: Layout
    prefix: Path | None


def choose(options: PlaceOptions, verb: Verb) -> Destination:
    """Return the place that the options name. Raises UsageError for a bad prefix, StorageError without the rights."""
    prefix = _prefix(options, verb)
    if not options.system:
        return Destination(layouts.user(home(verb)), prefix)
    if prefix is None and os.geteuid() != 0:
        command = shlex.join(["sudo", *process.program(), verb, "--system"])
        what, other = ("install rbee for", "install") if verb == "install" else ("remove rbee from", "remove")
        raise StorageError(
            f"only root can {what} all users of this machine",
            hint=f"{command}\nor `rbee {verb}` for yourself only, or --prefix DIR to {other} below another folder",
        )
    return Destination(layouts.system(prefix or Path("/")), prefix)


def home(verb: Verb) -> Path:
    """Return the user's home folder. Raises InvalidConfigurationError where there is none."""
    try:
        return homes.expanded("~")
    except InvalidConfigurationError as exc:
        below = "below which it is installed" if verb == "install" else "below which it was installed"
        exc.hint = f"set HOME to the folder {below}; `rbee {verb} --system` is for all users, and needs none"
        raise


def _prefix(options: PlaceOptions, verb: Verb) -> Path | None:
    given: str | None = options.prefix
    if given is None:
        return None
    hint = f"`rbee {verb} --system --prefix DIR` {verb}s below DIR what --system {verb}s below /"
    if not options.system:
        raise UsageError("--prefix goes with --system", hint)
    if not given.strip():
        raise UsageError("--prefix: the name of a folder is expected", hint)
    try:
        given.encode()
    except UnicodeEncodeError:
        raise UsageError("--prefix: the name of a folder must be UTF-8", hint) from None
    return homes.expanded(given).absolute()
