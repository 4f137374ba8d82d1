"""The queen that answers at our address, and is that of another swarm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from rbee.adapters import tokens
from rbee.adapters.http import port_users
from rbee.errors import PortInUseError, StorageError
from rbee.keeper.session.queen_address import configured

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.session.running_queen import RunningQueen

OTHER_PORTS: Final = (
    "RBEE_QUEEN_PORT and RBEE_HIVE_PORT, or `port` under [queen] and [hive] in the settings, give this one other ports"
)


def is_another(found: RunningQueen, settings: Settings) -> bool:
    """Whether a queen is neither ours nor named by the user, and has another token than ours, or we have none."""
    if found.own is not None or found.health.swarm is None or configured(settings).is_named:
        return False
    token = tokens.read(settings.token_file)
    return token is None or tokens.swarm_id(token) != found.health.swarm


def whose(found: RunningQueen) -> str:
    """Say whose a queen is, as in ` (user bee, pid 7, HOME=/home/bee)`; nothing where that cannot be seen."""
    return "" if found.is_elsewhere else port_users.whose(found.url)


def refused(found: RunningQueen) -> PortInUseError:
    """Return the error for a command that would start a queen."""
    return PortInUseError(
        f"the queen at {found.url} is that of another swarm{whose(found)}; none was started",
        hint=f"{OTHER_PORTS}; to use the other swarm instead, copy its token: `rbee token` of its user prints it",
        port=urlsplit(found.url).port,
    )


def without_token(found: RunningQueen, settings: Settings) -> StorageError:
    """Return the error where there is no token, and a queen runs that would not take a new one."""
    file = settings.token_file
    if found.own is not None:
        return StorageError(
            f"the queen at {found.url} runs, and {file}, which holds its token, is gone",
            hint="put the file back; or `rbee down`, and the next queen makes a new token",
        )
    return StorageError(
        f"there is no token in {file}, and none was made: the queen at {found.url} is that of another swarm"
        f"{whose(found)}, and would not take it",
        hint=f"`rbee token` of its user prints its token; or {OTHER_PORTS}",
    )
