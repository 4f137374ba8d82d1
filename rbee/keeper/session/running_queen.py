"""Finds the queen that runs, and connects to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from rbee.adapters.daemon import instance, process, stopped
from rbee.adapters.http.own_address import is_of_this_machine
from rbee.clients.queen import QueenClient
from rbee.errors import ConnectionTimeoutError, PortInUseError, RbeeError
from rbee.keeper.session import named_queen
from rbee.keeper.session.challenge import challenge as challenge_of
from rbee.keeper.session.queen_address import QueenAddress, configured
from rbee.narrower_errors import AddressTakenError
from rbee.wire.addresses import is_loopback

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.adapters.http.proof import Challenge
    from rbee.wire.queen import QueenHealth

HEALTH_SECONDS: Final = 2.0
"""A queen on this machine answers its health in milliseconds."""


class RunningQueen(NamedTuple):
    """A queen that answers; `own` is what its state folder says of it, where that is ours.

    Where it is not, the queen is another user's or another machine's: what we know of processes and files is not about
    it.
    """

    url: str
    health: QueenHealth
    own: instance.Instance | None = None
    challenge: Challenge | None = None
    """What it was asked to prove."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is surely on another machine; one at a loopback address may be too, behind a tunnel."""
        return self.own is None and not is_loopback(self.address.machine)

    @property
    def address(self) -> QueenAddress:
        """The address, for people."""
        return QueenAddress(self.url, is_named=True)


async def find(settings: Settings) -> RunningQueen | None:
    """Return the queen that runs: the one that is named, else at the configured address, else of the state folder.

    None says that one may be started. Raises PortInUseError when something else answers at the address, and
    ConnectionTimeoutError for a queen of this state folder that does not answer, or where none answers and none may be
    started: at an address that is named, or that is not this machine's.
    """
    queen = settings.queen
    address = configured(settings)
    holder = instance.find(settings.state_dir, "queen")
    if address.is_named:
        return await _named(address, settings, holder)
    url = address.url
    if queen.port != 0 and (holder is None or url != holder.url):
        try:
            challenge = await challenge_of(url, settings, is_named=False)
            if (health := await _ask(url, HEALTH_SECONDS, challenge)) is not None:
                return await _running(url, health, holder, challenge)
        except PortInUseError:
            if holder is None or _port(holder.url) != queen.port:
                raise
            # Else it is our own one, under another name of this host.
    if holder is None:
        if not await is_of_this_machine(queen.host):
            return await _named(address, settings, holder)
        return None
    # It may have been started with --port, or have taken any free port.
    try:
        challenge = await challenge_of(holder.url, settings, is_named=False)
        if (health := await _ask(holder.url, settings.timeouts.call, challenge)) is not None:
            return RunningQueen(holder.url, health, holder, challenge)
    except PortInUseError:
        raise _silent(holder, settings) from None
    return None


async def _named(address: QueenAddress, settings: Settings, holder: instance.Instance | None) -> RunningQueen:
    challenge = await challenge_of(address.url, settings, is_named=True)
    return await _running(address.url, await named_queen.ask(address, settings, challenge), holder, challenge)


async def _running(
    url: str, health: QueenHealth, holder: instance.Instance | None, challenge: Challenge | None
) -> RunningQueen:
    is_own = holder is not None and (holder.url == url if health.queen_id is None else holder.id == health.queen_id)
    # A copy of our state folder may be in use on another machine.
    is_own = is_own and await is_of_this_machine(urlsplit(url).hostname or "")
    return RunningQueen(url, health, holder if is_own else None, challenge)


def _port(url: str) -> int:
    return urlsplit(url).port or 80


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


async def _ask(url: str, seconds: float, challenge: Challenge | None) -> QueenHealth | None:
    try:
        async with QueenClient(url, None, timeout=seconds) as client:
            return await client.health(challenge)
    except RbeeError as exc:
        if isinstance(exc, ConnectionTimeoutError) and not isinstance(exc, AddressTakenError):
            return None
    port = _port(url)
    raise PortInUseError(
        f"port {port} is taken by a program that is not a queen of rbee ({url})",
        hint="stop that program, or give the queen another port: `port` under [queen] in the settings, "
        "or the environment variable RBEE_QUEEN_PORT",
        port=port,
    )
