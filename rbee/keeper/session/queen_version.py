"""Compares the version of a command with that of the queen that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee import __version__
from rbee.errors import VersionMismatchError
from rbee.wire.queen import API_VERSION

if TYPE_CHECKING:
    from rbee.keeper.session.running_queen import RunningQueen

_FIRST: Final = "v2"
"""The interface of queens that do not say which one they have."""


def check(found: RunningQueen) -> None:
    """Raise VersionMismatchError for a queen of another interface; of the same one, any version will do."""
    health = found.health
    if (health.api_version or _FIRST) == API_VERSION:
        return
    if found.own is not None:
        hint = "`rbee down` ends the queen; the next command starts one of this version"
    else:
        machine = found.address.machine
        hint = (
            f"`python3 rbee.pyz install` brings one version here and to {machine}; there, `rbee down` and `rbee up` "
            "then start the queen anew"
        )
    raise VersionMismatchError(
        f"keeper and queen are not of the same version\n  rbee-keeper {__version__}\n  queen-rbee  {health.version}",
        hint=hint,
        keeper=__version__,
        queen=health.version,
    )


def note(found: RunningQueen) -> str | None:
    """Return what to say of a queen of a neighbouring version, which is used as it is."""
    version = found.health.version
    if version == __version__:
        return None
    anew = "; `rbee down`, then `rbee up`, starts this one" if found.own is not None else ""
    return f"The queen is rbee {version}, and this command rbee {__version__}: they work together{anew}"


def unknown() -> VersionMismatchError:
    """Return the error for a request that the queen, or a hive behind it, is too old to know."""
    return VersionMismatchError(
        f"the queen, or a hive, is of an earlier version than this command (rbee {__version__}), and does not know "
        "this yet",
        hint="`python3 rbee.pyz install` on its machine, `rbee down` and `rbee up` bring the queen up to date, then "
        "`rbee setup install --all` the nodes",
    )
