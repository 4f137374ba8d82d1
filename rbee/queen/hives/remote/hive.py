"""The way to the hive of a registered node: directly where its port is reached, else through SSH."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from rbee.adapters.http import server as http_server
from rbee.adapters.ssh import dial as ssh_dial
from rbee.adapters.ssh.target import Target
from rbee.clients.hive import HiveClient
from rbee.errors import (
    ConnectionTimeoutError,
    HostKeyError,
    InternalError,
    PortInUseError,
    RbeeError,
    SshFailedError,
)
from rbee.queen.hives.remote import attempts, launch
from rbee.queen.hives.remote import end as remote_end
from rbee.queen.hives.remote.install import Installer
from rbee.queen.hives.remote.tunnel import Tunnel
from rbee.queen.registry.identity import OTHERS, AnotherHiveError, no_hive
from rbee.wire.common import Health, Narration, base_url
from rbee.wire.registry import Success

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.adapters.config import Settings
    from rbee.adapters.ssh.connection import Connection
    from rbee.queen.hives.devices import Devices
    from rbee.queen.registry.identity import HiveIdentities
    from rbee.queen.registry.record import NodeRecord
    from rbee.wire.progress import Report
    from rbee.wire.registry import BeehiveRow, InstallRequest


log = logging.getLogger(__name__)

HIVE_PORT: Final = 9200
LOOK_SECONDS: Final = 2.0
"""How long a hive may take to say that it is there, where there is another way to find out."""


class RemoteHive:
    """The hive of one node; `run` in a nursery carries its tunnel, `end` ends the one that a queen started."""

    def __init__(self, record: NodeRecord, settings: Settings, token: str, identities: HiveIdentities) -> None:
        self.record = record
        self.settings = settings
        self.changing = trio.Lock()
        """Held by whoever starts or ends the hive."""
        self._token = token
        self._identities = identities
        self._tunnel = Tunnel(self.dial)
        self._installing = trio.Lock()

    @property
    def row(self) -> BeehiveRow:
        """The node as the registry holds it now."""
        return self.record.row

    @property
    def is_direct(self) -> bool:
        """Whether others reach the workers at their own addresses; else only we do, through SSH."""
        return not self.record.is_tunnelled

    @property
    def is_here(self) -> bool:
        """Whether the hive is on the queen's own host, at an address that no other machine has."""
        return self.is_direct and http_server.is_loopback(self.row.ssh_host)

    def outside(self, url: str) -> str | None:
        """Return the URL at which other machines reach the hive: the queen's own, unless that is through SSH."""
        return url if self.is_direct and not http_server.is_own(self.row.ssh_host) else None

    @property
    def address(self) -> str:
        """Host and port for people."""
        return base_url(self.row.ssh_host, self._port).removeprefix("http://")

    @property
    def _port(self) -> int:
        return urlsplit(self.row.hive_url or "").port or HIVE_PORT

    def reach(self, url: str) -> str:
        """Return the URL at which the queen reaches a worker that the hive calls `url`."""
        if self.is_direct or self.row.hive_url is None:
            return url
        return self._through_ssh(urlsplit(url).port or HIVE_PORT)

    def _through_ssh(self, port: int) -> str:
        host = urlsplit(self.row.hive_url or "").hostname
        assert host is not None
        return self._tunnel.url(str(host), port)

    async def run(self) -> None:
        """Carry what goes through the tunnel until cancelled."""
        await self._tunnel.run()

    def connect(self, url: str) -> HiveClient:
        """Return a connection to the hive at `url`."""
        limits = self.settings.timeouts
        return HiveClient(url, self._token, timeout=limits.call, delays=limits.call_delays)

    async def devices(self) -> Devices:
        """Return what was found when the node was registered; how much memory is free, nobody knows."""
        await trio.lowlevel.checkpoint()
        return {name: [None] * self.row.devices.get(name, 1) for name in self.row.backends}

    @asynccontextmanager
    async def dial(self) -> AsyncIterator[Connection]:
        """Open an SSH connection to the node, and note in the registry whether that went well."""
        row = self.row
        target = Target(row.ssh_host, row.ssh_port, row.ssh_user, row.ssh_key_path, row.host_key)
        known_hosts = self.settings.state_dir / "known_hosts"
        seconds = self.settings.timeouts.ssh_connect
        async with AsyncExitStack() as stack:
            try:
                opened = ssh_dial.connect(target, own_known_hosts=known_hosts, seconds=seconds)
                connection = await stack.enter_async_context(opened)
            except SshFailedError as exc:
                exc.details.setdefault("node", row.node_name)
                await self.record.failed(exc.message)
                raise
            await self.record.connected()
            yield connection

    async def find(self) -> str | None:
        """Return the URL of the hive if it answers.

        Raises VersionMismatchError, or for a stranger PortInUseError or InvalidApiKeyError.
        """
        try:
            health = await self.ask()
        except ConnectionTimeoutError:
            return None
        if health is None:
            return None
        await self._accept(health)
        return self._url()

    async def ask(self) -> Health | None:
        """Ask who answers how it is; None where nobody knows yet where the hive would be.

        Raises ConnectionTimeoutError, or PortInUseError for what is no hive.
        """
        if (url := self._url()) is None:
            return None
        try:
            with trio.fail_after(LOOK_SECONDS):
                return await self._greet(url, LOOK_SECONDS)
        except trio.TooSlowError:
            raise ConnectionTimeoutError(f"{self.address} does not answer", attempts=["timeout"]) from None

    def _url(self) -> str | None:
        if self.is_direct:
            return base_url(self.row.ssh_host, self._port)
        return self._through_ssh(self._port) if self.row.hive_url is not None else None

    async def _greet(self, url: str, seconds: float) -> Health:
        async with HiveClient(url, None, timeout=seconds) as client:  # health needs no token, and a stranger gets none
            try:
                return await client.health(patient=False)
            except InternalError as exc:
                raise no_hive(self.row.node_name, self.address) from exc

    async def check(self, health: Health) -> None:
        """Raise why who answers cannot be used: another hive, or one of another version."""
        await self._identities.check(health, self.row.node_name, self.address, self.row.hive_id)

    async def _accept(self, health: Health) -> None:
        """Take who answers for the hive of this node; the first one is remembered. Raises as `check`."""
        await self.check(health)
        if self.row.hive_id is None and health.hive_id is not None:
            await self.record.identified(health.hive_id)

    async def ensure(self, report: Report) -> str:
        """Return the URL of the hive, started over SSH if need be; raises why it could not be."""
        try:
            if (found := await self.find()) is not None:
                return found
        except OTHERS as exc:
            # The node's own may listen elsewhere, or be another one by now: only SSH leads to that very machine.
            try:
                return await self._launch(report)
            except HostKeyError:
                raise
            except (PortInUseError, SshFailedError) as second:
                raise exc from second
        return await self._launch(report)

    async def _launch(self, report: Report) -> str:
        """Start the hive over SSH, or find it there, and return the URL at which it is reached."""
        name = self.row.node_name
        async with self.changing:
            self._tell(report, "ssh_connect", f"Connecting to {self.row.ssh_user}@{self.row.ssh_host} by SSH")
            async with self.dial() as connection:
                self._tell(report, "start_hive", f"Starting the hive on {name}")
                with trio.CancelScope(shield=True):  # cut half-way, it would leave a hive that nobody ends
                    found = await self._start(connection, report)
                    await self.record.located(found.url, found.id or None)
        url = await self._approach(report)
        self._tell(report, "hive_ready", f"The hive on {name} answers at {self.address}")
        return url

    def _tell(self, report: Report, action: str, human: str) -> None:
        report(Narration(actor="queen-rbee", action=action, target=self.row.node_name, human=human))

    async def _start(self, connection: Connection, report: Report) -> launch.Running:
        """Start the hive, or find the one of this installation."""
        was_owned = self.record.is_owned
        # Before it runs: a queen that is killed meanwhile leaves it to the next one.
        await self.record.owned(owned=True)
        try:
            found = await launch.start(connection, self.row, self.settings, report)
        except SshFailedError:
            raise  # it may run by now
        except RbeeError:
            await self.record.owned(owned=was_owned)
            raise
        await self.record.owned(owned=found.is_queens)
        return found

    async def _approach(self, report: Report) -> str:
        """Return the URL of the hive that runs, directly, or where that does not work and may be through SSH."""
        row, limits = self.row, self.settings.timeouts
        failed: list[str] = []

        async def attempt(url: str, delays: tuple[float, ...], seconds: float) -> bool:
            async def ask() -> None:
                await self.check(await self._greet(url, seconds))

            def say(line: str) -> None:
                self._tell(report, "connect_retry", line)

            said = await attempts.attempt(ask, self.address, delays=delays, seconds=seconds, say=say)
            failed.extend(said)
            return not said

        if row.tunnel != "always":
            direct = base_url(row.ssh_host, self._port)
            # Where there is another way, one attempt is enough.
            patience = (limits.connect_delays, limits.connect) if row.tunnel == "never" else ((0.0,), LOOK_SECONDS)
            try:
                if await attempt(direct, *patience):
                    await self.record.tunnelled(tunnelled=False)
                    return direct
            except AnotherHiveError as exc:
                if row.tunnel == "never":
                    raise
                failed.append(exc.message)
                self._tell(report, "connect_retry", exc.message)
        if row.tunnel != "never":
            if failed:
                self._tell(report, "ssh_tunnel", f"{self.address} cannot be reached; going through SSH")
            await self._tunnel.connect()
            inner = self._through_ssh(self._port)
            if await attempt(inner, limits.connect_delays, limits.connect):
                await self.record.tunnelled(tunnelled=True)
                return inner
        hint = f"check that the hive runs on {row.node_name}, and that no firewall is in between"
        if row.tunnel == "never":
            hint += f"; `rbee setup update-node --name {row.node_name} --tunnel auto` goes through SSH"
        raise ConnectionTimeoutError(
            f"the hive did not answer at {self.address} in {len(failed)} attempts",
            hint=hint,
            node=row.node_name,
            attempts=failed,
        )

    async def install(self, asked: InstallRequest, report: Report) -> Success:
        """Bring rbee to the node, or take the version before back; a hive of another version is ended then."""
        row, name = self.row, self.row.node_name
        sources = self.settings.remote.git_repo_dir or f"{row.install_path}/src"
        if self._installing.locked():
            self._tell(report, "wait", f"Waiting for another installation on {name} to end")
        async with self._installing, self.dial() as connection:
            installer = Installer(connection, row, report)
            if asked.rollback:
                version = await installer.roll_back()
            else:
                version = await installer.install(self._token, sources=sources if asked.from_source else None)
            async with self.changing:
                limits = self.settings.timeouts
                seconds = limits.drain + limits.cascade
                outcome = await launch.stop(connection, row, seconds=seconds, unless_version=version)
        if outcome in ("ended", "killed"):
            self._tell(report, "stop_hive", f"Ended the hive on {name}, which was of another version")
        elif outcome == "foreign":
            human = f"A user started the hive on {name}, which is of another version: it has to be ended there"
            self._tell(report, "stop_hive", human)
        return Success(message=f"rbee {version} is installed on {name}", node_name=name)

    async def end(self, force: trio.Event) -> None:
        """End the hive if a queen started it; bounded, also where the node does not answer."""
        await remote_end.end(self, force)
