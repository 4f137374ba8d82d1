"""The way to a node's hive: directly where its port can be reached, else through SSH."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from rbee.adapters.ssh import dial
from rbee.adapters.ssh.target import Target
from rbee.clients.hive import HiveClient
from rbee.errors import ConnectionTimeoutError, InternalError, SshFailedError
from rbee.narrower_errors import AddressTakenError, NobodyListensError, SilentAddressError
from rbee.queen.hives.link import Absence
from rbee.queen.hives.remote.describe import way
from rbee.queen.hives.remote.tunnel import Tunnel
from rbee.queen.registry.identity import AnotherHiveError, no_hive, port_setting
from rbee.wire import addresses
from rbee.wire.common import Health, base_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.adapters.config import Settings
    from rbee.adapters.ssh.connection import SshConnection
    from rbee.queen.registry.identity import HiveIdentities
    from rbee.queen.registry.record import NodeRecord

FIRST_REQUEST: Final = "the first request starts it"
HIVE_PORT: Final = 9200
HEALTH_SECONDS: Final = 2.0
"""How long a hive may take to say how it is, where there is another way to find out."""
CONNECTING_SECONDS: Final = 1.7
"""Of these for the connection, and for the answer: less, so that it can be told whether one was made at all."""


class Reach:
    """The way to the hive of one node, which may run or not: most of a HiveLink, which documents it."""

    def __init__(self, record: NodeRecord, settings: Settings, token: str, identities: HiveIdentities) -> None:
        self.record = record
        self.settings = settings
        self._token = token
        self._identities = identities
        self._tunnel = Tunnel(self.dial)
        self._absence: Absence | None = None

    async def run(self) -> None:
        await self._tunnel.run()

    @property
    def is_direct(self) -> bool:
        return not self.record.is_tunnelled

    @property
    def is_here(self) -> bool:
        """Whether the hive is on the queen's own host, at an address that no other machine has."""
        return self.is_direct and addresses.is_loopback(self.record.row.address)

    @property
    def version(self) -> str:
        return self._identities.version(self.record.name)

    @property
    def address(self) -> str:
        """Host and port for people."""
        return self.direct_url.removeprefix("http://")

    @property
    def direct_url(self) -> str:
        """The hive's own URL, at the node's address."""
        return base_url(self.record.row.address, self._port)

    @property
    def _port(self) -> int:
        return urlsplit(self.record.row.hive_url or "").port or HIVE_PORT

    def outside(self, url: str) -> str | None:
        """Return the URL at which other machines reach the hive: the queen's own, unless that is through SSH."""
        return url if self.is_direct and not addresses.is_own(self.record.row.address) else None

    is_everywhere = False
    """Of the queen's own host; where the workers of another machine listen everywhere, its address is in their URLs."""

    def worker_url(self, url: str) -> str:
        found = urlsplit(url)
        if self.is_direct and addresses.is_own(found.hostname or "") and not addresses.is_own(self.record.row.address):
            # A worker listens where its hive does, and that has been reached at this address.
            return base_url(self.record.row.address, found.port or 0)
        if self.is_direct or self.record.row.hive_url is None:
            return url
        return self._tunnel_url(urlsplit(url).port or HIVE_PORT)

    def _tunnel_url(self, port: int) -> str:
        # The address at which the hive listens there, which need not be loopback.
        host = urlsplit(self.record.row.hive_url or "").hostname
        assert host is not None
        return self._tunnel.url(str(host), port)

    async def open_tunnel(self) -> str:
        """Open the SSH connection that carries the tunnel, and return the hive's URL through it.

        Where the hive listens must be known. Raises SshFailedError.
        """
        await self._tunnel.connect()
        return self._tunnel_url(self._port)

    @asynccontextmanager
    async def dial(self) -> AsyncIterator[SshConnection]:
        """Open an SSH connection to the node, and note in the registry whether that worked. Raises SshFailedError."""
        row = self.record.row
        follows = row.ssh_settings
        target = Target(
            row.ssh_host,
            None if follows is not None and follows.has_port else row.ssh_port,
            None if follows is not None and follows.has_user else row.ssh_user,
            row.ssh_key_path,
            row.host_key,
        )
        known_hosts = self.settings.state_dir / "known_hosts"
        async with AsyncExitStack() as stack:
            try:
                opening = dial.connect(target, own_known_hosts=known_hosts, seconds=self.settings.timeouts.ssh_connect)
                connection = await stack.enter_async_context(opening)
            except SshFailedError as exc:
                exc.details.setdefault("node", self.record.name)
                await self.record.failed(exc.message)
                raise
            await self.record.connected(**way(connection))
            yield connection

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[HiveClient]:
        """Open a connection to the hive at `url`; raises PortInUseError once it proves to be another node's."""
        limits = self.settings.timeouts
        async with (
            self._identities.fail_if_lost(self.record.name, self.address),
            HiveClient(url, self._token, timeout=limits.call, delays=limits.call_delays) as client,
        ):
            yield client

    async def find(self) -> str | None:
        """Return the URL of the hive if it answers; the first hive that answers is remembered as the node's.

        Raises VersionMismatchError, or for a stranger PortInUseError or InvalidApiKeyError.
        """
        try:
            health = await self.ask()
        except ConnectionTimeoutError as exc:
            self._absence = self._explain(exc)
            return None
        if health is None:
            self._absence = None
            return None
        try:
            self.check(health)
        except AnotherHiveError:
            if health.hive_id is not None and health.hive_id == self.record.row.hive_id:
                await self.record.change(hive_id=None)  # it was a guess, and another node has named that hive since
            raise
        if self.record.row.hive_id is None and health.hive_id is not None:
            await self.record.change(hive_id=health.hive_id)
        return self._known_url()

    @property
    def absence(self) -> Absence:
        """Why `find` has returned None; SSH, which would know, is not tried for it."""
        return self._absence or self._explain(None)

    def _explain(self, exc: ConnectionTimeoutError | None) -> Absence:
        row = self.record.row
        if self.is_direct and isinstance(exc, NobodyListensError):
            return Absence("not started", f"no hive runs there (nothing listens at {self.address}); {FIRST_REQUEST}")
        if isinstance(exc, AddressTakenError) and not isinstance(exc, SilentAddressError):
            return Absence("unreachable", f"what listens at {self.address} does not answer")
        if row.status == "unreachable":
            return Absence("unreachable", (row.last_error or "SSH did not lead there").splitlines()[0])
        if row.hive_url is None or exc is None:
            return Absence("not started", f"its hive was not needed yet; {FIRST_REQUEST}")
        if not self.is_direct:
            return Absence("not started", f"no hive answers through SSH; {FIRST_REQUEST}")
        if isinstance(exc, SilentAddressError):
            reason = f"nothing answers at {self.address}: the machine is off, or a firewall is in between"
            return Absence("off", reason)
        return Absence("unreachable", exc.message)

    async def ask(self) -> Health | None:
        """Ask the hive how it is; None where it is not known yet where the hive listens.

        Raises ConnectionTimeoutError, or PortInUseError for another program.
        """
        if (url := self._known_url()) is None:
            return None
        try:
            with trio.fail_after(HEALTH_SECONDS):
                return await self.greet(url, CONNECTING_SECONDS)
        except trio.TooSlowError:
            # Without a connection the time for that would have been over first.
            raise AddressTakenError(f"{self.address} does not answer", attempts=["timeout"]) from None

    def _known_url(self) -> str | None:
        if self.is_direct:
            return self.direct_url
        return self._tunnel_url(self._port) if self.record.row.hive_url is not None else None

    async def greet(self, url: str, seconds: float) -> Health:
        """Ask the program at `url` how it is. Raises as `ask`, or InvalidApiKeyError for one that only pretends."""
        challenge = self._identities.challenge()
        async with HiveClient(url, None, timeout=seconds) as client:  # health needs no token, and a stranger gets none
            try:
                health = await client.health(patient=False, challenge=challenge)
            except InternalError as exc:
                raise no_hive(self.record.name, self.address) from exc
        self._identities.check_proof(health, challenge, self.record.name, self.address)
        return health

    def vouch(self) -> None:
        """SSH has led to the node, and named or changed its hive: it is believed, whatever its version is."""
        self._identities.vouch(self.record.name)

    def check(self, health: Health) -> None:
        """Raise why the hive that answered cannot be used: it is another one, or of another version."""
        name = self.record.name
        try:
            self._identities.check(health, name, self.address, self.record.row.hive_id)
        except AnotherHiveError as exc:
            if not self.is_direct:  # SSH leads to that very machine: its address is no other one's
                exc.hint = f"end that hive there, or give this one another port: {port_setting(name)}"
            raise
