"""Finds the queen that runs, and connects to it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee import __version__
from rbee.adapters import tokens
from rbee.adapters.daemon import instance, process, stopped
from rbee.clients.queen import QueenClient
from rbee.errors import (
    AddressTakenError,
    ConnectionTimeoutError,
    InvalidApiKeyError,
    KeyRefusedError,
    MissingApiKeyError,
    PortInUseError,
    RbeeError,
    StorageError,
    VersionMismatchError,
)
from rbee.wire.common import base_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.adapters.config import Settings
    from rbee.wire.queen import QueenHealth

HEALTH_SECONDS: Final = 2.0
"""A queen on this machine answers its health in milliseconds."""


class RunningQueen(NamedTuple):
    """A queen that answers."""

    url: str
    health: QueenHealth


async def find(settings: Settings) -> RunningQueen | None:
    """Return the queen that runs: at the configured address, else the one that holds the state folder.

    Raises PortInUseError when something else answers at the configured address, and ConnectionTimeoutError for a queen
    of this state folder that does not answer.
    """
    queen = settings.queen
    url = base_url(queen.host, queen.port)
    holder = instance.find(settings.state_dir, "queen")
    if queen.port != 0 and (holder is None or url != holder.url):
        try:
            if (health := await _ask(url, HEALTH_SECONDS)) is not None:
                return RunningQueen(url, health)
        except PortInUseError:
            if holder is None or _port(holder.url) != queen.port:
                raise
            # Else it is our own one, under another name of this host.
    if holder is None:
        return None
    # It may have been started with --port, or have taken any free port.
    try:
        if (health := await _ask(holder.url, settings.timeouts.call)) is not None:
            return RunningQueen(holder.url, health)
    except PortInUseError:
        raise _silent(holder, settings) from None
    return None


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _silent(holder: instance.Instance, settings: Settings) -> RbeeError:
    """Return the error for a queen that runs and does not answer."""
    identity = holder.identity
    if process.is_stopped(identity):
        return stopped.explain("queen", identity)
    return ConnectionTimeoutError(
        f"the queen (pid {identity.pid}) at {holder.url} does not answer",
        hint=f"its log is {settings.logs_dir / 'queen.log'}; `kill -KILL {identity.pid}` ends it by force",
        pid=identity.pid,
    )


async def _ask(url: str, seconds: float) -> QueenHealth | None:
    try:
        async with QueenClient(url, None, timeout=seconds) as client:
            return await client.health()
    except RbeeError as exc:
        if isinstance(exc, ConnectionTimeoutError) and not isinstance(exc, AddressTakenError):
            return None
    port = _port(url)
    raise PortInUseError(
        f"port {port} is taken by a program that is not a queen of rbee ({url})",
        hint="stop that program, or give the queen another port: `port` under [queen] in the configuration, "
        "or the environment variable RBEE_QUEEN_PORT",
        port=port,
    )


@asynccontextmanager
async def attach(settings: Settings, queen: RunningQueen) -> AsyncIterator[QueenClient]:
    """Open a connection to a running queen.

    Raises VersionMismatchError, and turns a refused token into advice.
    """
    if queen.health.version != __version__:
        versions = f"  rbee-keeper {__version__}\n  queen-rbee  {queen.health.version}"
        raise VersionMismatchError(
            f"keeper and queen are not of the same version\n{versions}",
            hint="`rbee down` ends the queen; the next command starts one of this version",
            keeper=__version__,
            queen=queen.health.version,
        )
    host = queen.url.removeprefix("http://")
    if (token := tokens.read(settings.token_file)) is None:
        raise StorageError(
            f"the queen at {host} needs a token, and the file {settings.token_file} does not exist",
            hint="copy it from the user or machine that the queen belongs to, or name it: `token_file` under [auth]",
        )
    try:
        limits = settings.timeouts
        async with QueenClient(queen.url, token, timeout=limits.call, delays=limits.call_delays) as client:
            yield client
    except KeyRefusedError:
        raise  # another daemon refused a key, and this one accepted our token
    except (InvalidApiKeyError, MissingApiKeyError) as exc:
        raise KeyRefusedError(
            f"authentication failed: the queen at {host} does not accept our token",
            hint=f"the file {settings.token_file} must hold the token of that queen",
            host=host,
        ) from exc
