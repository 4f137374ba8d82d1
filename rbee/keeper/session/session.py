"""Finds the running queen, or starts one for one command."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from rbee import __version__
from rbee.adapters import tokens
from rbee.adapters.daemon import instance, process, stopped
from rbee.clients.queen import QueenClient
from rbee.errors import (
    AddressTakenError,
    AlreadyRunningError,
    ConnectionTimeoutError,
    DrainingError,
    InvalidApiKeyError,
    KeyRefusedError,
    MissingApiKeyError,
    PortInUseError,
    RbeeError,
    SpawnTimeoutError,
    StorageError,
    VersionMismatchError,
)
from rbee.keeper.session import child_queen
from rbee.wire.common import Narration, base_url
from rbee.wire.queen import QueenHealth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal

HEALTH_SECONDS: Final = 2.0
"""A queen on this machine answers its health in milliseconds."""


class Found(NamedTuple):
    """A queen that answers."""

    url: str
    health: QueenHealth


async def find(settings: Settings) -> Found | None:
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
                return Found(url, health)
        except PortInUseError:
            if holder is None or _port(holder.url) != queen.port:
                raise
            # Else it is our own one, under another name of this host.
    if holder is None:
        return None
    # It may have been started with --port, or have taken any free port.
    try:
        if (health := await _ask(holder.url, settings.timeouts.call)) is not None:
            return Found(holder.url, health)
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
async def attach(settings: Settings, found: Found) -> AsyncIterator[QueenClient]:
    """Open a connection to a running queen.

    Raises VersionMismatchError, and turns a refused token into advice.
    """
    if found.health.version != __version__:
        versions = f"  rbee-keeper {__version__}\n  queen-rbee  {found.health.version}"
        raise VersionMismatchError(
            f"keeper and queen are not of the same version\n{versions}",
            hint="`rbee down` ends the queen; the next command starts one of this version",
            keeper=__version__,
            queen=found.health.version,
        )
    host = found.url.removeprefix("http://")
    if (token := tokens.read(settings.token_file)) is None:
        raise StorageError(
            f"the queen at {host} needs a token, and the file {settings.token_file} does not exist",
            hint="copy it from the user or machine that the queen belongs to, or name it: `token_file` under [auth]",
        )
    try:
        limits = settings.timeouts
        async with QueenClient(found.url, token, timeout=limits.call, delays=limits.call_delays) as client:
            yield client
    except KeyRefusedError:
        raise
    except (InvalidApiKeyError, MissingApiKeyError) as exc:
        raise KeyRefusedError(
            f"authentication failed: the queen at {host} does not accept our token",
            hint=f"the file {settings.token_file} must hold the token of that queen",
            host=host,
        ) from exc


@asynccontextmanager
async def use(
    settings: Settings, terminal: Terminal, force: trio.Event, *, options: Options
) -> AsyncIterator[QueenClient]:
    """Connect to the queen that runs, and leave it running; or start one, and end it with everything it started.

    The end is waited for, also after an error or a cancellation; `force` ends running requests at once. Raises
    UnloadFailedError where the end alone failed.
    """
    queen = await _find_or_start(settings, terminal, force, options)
    if isinstance(queen, Found):
        try:
            async with attach(settings, queen) as client:
                yield client
        except ConnectionTimeoutError as exc:
            if await find(settings) is None:
                raise DrainingError("the queen has ended meanwhile", hint="try again") from exc
            raise
        return
    try:
        health = QueenHealth(status="ok", version=queen.ready.version)
        async with attach(settings, Found(queen.ready.url, health)) as client:
            yield client
    except BaseException:
        await queen.end(settings, terminal, force)
        raise
    if (failure := await queen.end(settings, terminal, force)) is not None:
        raise failure


async def wait_until_gone(settings: Settings, terminal: Terminal) -> bool:
    """Wait for the end of a queen that takes no new work; returns whether it has ended within the time it has."""
    holder = instance.find(settings.state_dir, "queen")
    if holder is None:
        return True
    terminal.narrate(
        Narration(
            actor="rbee-keeper",
            action="wait",
            target="queen-rbee",
            human="The queen is shutting down; starting another one once it has ended",
        )
    )
    with trio.move_on_after(settings.timeouts.drain + settings.timeouts.cascade):
        await process.wait_gone(holder.identity)
        return True
    return False


async def _find_or_start(
    settings: Settings, terminal: Terminal, force: trio.Event, options: Options
) -> Found | child_queen.OwnQueen:
    """Return a queen, found or started; two keepers that start one at the same time end up with the same one."""
    is_narrated = False
    with trio.move_on_after(settings.timeouts.start):
        while True:
            if (found := await find(settings)) is not None:
                return found
            if not is_narrated:
                is_narrated = True
                terminal.narrate(
                    Narration(
                        actor="rbee-keeper",
                        action="start_queen",
                        target="queen-rbee",
                        human="No queen is running; starting one for this command",
                    )
                )
            try:
                return await child_queen.ephemeral(settings, terminal, options, force)
            except AlreadyRunningError:
                # Another keeper's queen is starting or ending: soon it answers, or it is gone.
                holder = instance.find(settings.state_dir, "queen")
                with trio.move_on_after(0.5):
                    if holder is None:
                        await trio.sleep_forever()
                    await process.wait_gone(holder.identity)
    raise SpawnTimeoutError(
        f"no queen answered within {settings.timeouts.start:g} s",
        hint=f"its log is {settings.logs_dir / 'queen.log'}",
    )
