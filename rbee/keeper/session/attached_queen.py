"""The connection of a command to its queen, which knows where that queen's logs are and what it leads to."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from rbee.adapters import tokens
from rbee.adapters.http import port_users
from rbee.clients.queen import QueenClient
from rbee.errors import (
    InvalidApiKeyError,
    MethodNotAllowedError,
    MissingApiKeyError,
    RbeeError,
    RouteNotFoundError,
    StorageError,
)
from rbee.keeper.session import changed_settings, other_swarm, queen_version, trust
from rbee.keeper.session.known_queens import KnownQueens
from rbee.narrower_errors import KeyRefusedError
from rbee.wire.common import Narration
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.adapters.config import Settings
    from rbee.adapters.http.client import Guard
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.running_queen import RunningQueen


class AttachedQueen(QueenClient):
    """A queen that was found, opened by the token of its swarm; `own` is what our state folder says of it."""

    def __init__(self, found: RunningQueen, token: str, settings: Settings, guard: Guard | None = None) -> None:
        limits = settings.timeouts
        super().__init__(found.url, token, timeout=limits.call, delays=limits.call_delays, guard=guard)
        self.address = found.address
        self.own = found.own
        self.is_elsewhere = found.is_elsewhere
        self._logs = settings.logs_dir
        self._known = KnownQueens(settings)

    def log_place(self, log: str, node: str = LOCAL_NODE) -> str:
        """Say where the user finds a log of a node; `local` is the queen's own host, which may be another machine."""
        # From another machine the name may be anything, and it becomes part of a path that is shown.
        name = log.rpartition("/")[2]
        if node != LOCAL_NODE:
            return f"{name} in the folder of logs on {node}"
        if self.own is not None:
            return str(self._logs / name)
        return f"{name} in the folder of logs on the queen's machine ({self.address.host}); `rbee logs` shows it"

    @property
    def unreached(self) -> list[str]:
        """The hosts of workers to which nothing leads from here, as was found out a short while ago."""
        return self._known.unreached(self.url)

    def add_unreached(self, host: str) -> None:
        """Nothing leads from here to the workers on a host."""
        self._known.add_unreached(self.url, host)


@asynccontextmanager
async def attach(settings: Settings, queen: RunningQueen, terminal: Terminal) -> AsyncIterator[AttachedQueen]:
    """Open a connection to a running queen.

    Raises VersionMismatchError, and turns a refused token into advice. A queen of another swarm gets no token of ours,
    and none at all where it cannot be trusted with it: KeyRefusedError.
    """
    queen_version.check(queen)
    host, file = queen.address.host, settings.token_file
    if (token := tokens.read(file)) is None:
        raise StorageError(
            f"the queen at {host}{other_swarm.whose(queen)} needs a token, and the file {file} does not exist",
            hint=_token(queen, settings),
        )
    if queen.health.swarm not in (None, tokens.swarm_id(token)):
        raise KeyRefusedError(
            f"authentication failed: the queen at {host}{other_swarm.whose(queen)} is of another swarm than the "
            f"token in {file}, which was not sent there",
            hint=_token(queen, settings),
            host=host,
        )
    place = await trust.check(queen, settings)
    is_readable = queen.own is None and not queen.address.is_encrypted and not place.is_here
    if is_readable and KnownQueens(settings).warn_once(queen.url):
        terminal.note(
            f"{queen.url} is not encrypted: the token, prompts and answers can be read on the way. "
            f"An SSH tunnel ({queen.address.tunnel}), or a proxy with https there, keeps them private."
        )
    if (versions := queen_version.note(queen)) is not None:
        terminal.narrate(Narration(actor="rbee-keeper", action="version", target="queen-rbee", human=versions))
    if (changed := changed_settings.note(queen.own, settings)) is not None:
        terminal.note(changed)
    try:
        guard = port_users.guard(queen.url, place.strangers) if place.is_here else None
        async with AttachedQueen(queen, token, settings, guard) as client:
            yield client
    except KeyRefusedError:
        raise  # another daemon refused a key, and this one accepted our token
    except (InvalidApiKeyError, MissingApiKeyError) as exc:
        raise KeyRefusedError(
            f"authentication failed: the queen at {host} does not accept our token",
            hint=f"the file {file} must hold the token of that queen",
            host=host,
        ) from exc
    except (RouteNotFoundError, MethodNotAllowedError) as exc:
        raise queen_version.unknown() from exc
    except RbeeError as exc:
        if (more := changed_settings.hint(exc, queen.own)) is not None:
            exc.hint = f"{exc.hint}; {more}" if exc.hint else more
        raise


def _token(queen: RunningQueen, settings: Settings) -> str:
    """Say how the token of a queen comes here."""
    if not queen.is_elsewhere:
        return (
            f"the file {settings.token_file} must hold the token of that queen, which `rbee token` prints for the user "
            "and on the machine that it belongs to; RBEE_TOKEN_FILE, or `token_file` under [auth], names another file"
        ) + (f"; or {other_swarm.OTHER_PORTS}" if other_swarm.is_another(queen, settings) else "")
    machine = queen.address.machine
    return (
        f"`ssh {machine} rbee token > ~/{machine}.token` copies it; then set RBEE_TOKEN_FILE=~/{machine}.token, or "
        f"`token_file` under [auth], in place of {settings.token_file}"
    )
