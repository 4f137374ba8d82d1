"""Finds the hive of a registered node, or starts it over SSH; reaches it directly, or through that connection."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import trio

from rbee import __version__
from rbee.adapters import announce, ssh
from rbee.clients.hive import HiveClient
from rbee.errors import (
    AlreadyRunningError,
    ConnectionTimeoutError,
    RbeeError,
    SpawnFailedError,
    SpawnTimeoutError,
    SshFailedError,
    VersionMismatchError,
)
from rbee.queen import remote_script
from rbee.queen.installer import Installer
from rbee.queen.tunnel import Tunnel
from rbee.wire.common import API_VERSION, Narration, base_url
from rbee.wire.registry import Success

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rbee.adapters.config import Settings
    from rbee.adapters.ssh import Connection
    from rbee.queen.registry import Registry
    from rbee.wire.common import Health
    from rbee.wire.progress import Told
    from rbee.wire.registry import BeehiveRow, InstallRequest

    Tell = Callable[[Narration], None]

log = logging.getLogger(__name__)

HIVE_PORT: Final = 9200
LOOK_SECONDS: Final = 2.0
"""How long a hive may take to say that it is there, where there is another way to find out."""
AGAIN_SECONDS: Final = 0.2


class RemoteHive:
    """The hive of one node; `run` in a nursery carries its tunnel, `end` ends the one that a queen started."""

    def __init__(self, row: BeehiveRow, settings: Settings, token: str, registry: Registry) -> None:
        self._row = row
        self._settings = settings
        self._token = token
        self._registry = registry
        self._tunnel = Tunnel(self.dial)
        self._is_tunnelled = row.tunnel == "always"
        # Where it listens, as the node itself knows it.
        self._inside: tuple[str, int] | None = None
        self._port = HIVE_PORT
        self._is_owned = row.spawned_by_queen
        self._installing = trio.Lock()

    @property
    def is_direct(self) -> bool:
        """Whether others reach the workers at their own addresses; else only we do, through SSH."""
        return not self._is_tunnelled

    def reach(self, url: str) -> str:
        """Return the URL at which the queen reaches a worker that the hive calls `url`."""
        if not self._is_tunnelled or self._inside is None:
            return url
        port = urlsplit(url).port
        assert port is not None
        return self._tunnel.url(self._inside[0], port)

    async def run(self) -> None:
        """Carry what goes through the tunnel until cancelled."""
        await self._tunnel.run()

    def connect(self, url: str) -> HiveClient:
        """Return a connection to the hive at `url`."""
        limits = self._settings.timeouts
        return HiveClient(url, self._token, timeout=limits.call, delays=limits.call_delays)

    @asynccontextmanager
    async def dial(self) -> AsyncIterator[Connection]:
        """Open an SSH connection to the node, and note in the registry whether that went well."""
        row = self._row
        target = ssh.Target(row.ssh_host, row.ssh_port, row.ssh_user, row.ssh_key_path, row.host_key)
        known_hosts = self._settings.state_dir / "known_hosts"
        seconds = self._settings.timeouts.ssh_connect
        async with AsyncExitStack() as stack:
            try:
                opened = ssh.connect(target, own_known_hosts=known_hosts, seconds=seconds)
                connection = await stack.enter_async_context(opened)
            except SshFailedError as exc:
                await self._registry.failed(row.node_name, exc.message)
                raise
            await self._registry.connected(row.node_name)
            yield connection

    async def find(self) -> str | None:
        """Return the URL of the hive if it answers. Raises VersionMismatchError."""
        if (url := self._url()) is None:
            return None
        try:
            with trio.fail_after(LOOK_SECONDS):
                await self._greet(url, LOOK_SECONDS)
        except (trio.TooSlowError, ConnectionTimeoutError):
            return None
        return url

    def _url(self) -> str | None:
        if not self._is_tunnelled:
            return base_url(self._row.ssh_host, self._port)
        return self._tunnel.url(*self._inside) if self._inside is not None else None

    async def _greet(self, url: str, seconds: float) -> None:
        """Ask once whether the hive answers. Raises ConnectionTimeoutError or VersionMismatchError."""
        async with HiveClient(url, None, timeout=seconds) as client:
            self._check(await client.health(patient=False))

    def _check(self, health: Health) -> None:
        if (health.version, health.api_version) != (__version__, API_VERSION):
            name = self._row.node_name
            raise VersionMismatchError(
                f"the versions differ\n  queen-rbee {__version__}\n  rbee-hive {health.version}",
                hint=f"`rbee setup install --node {name}` brings this version to the node",
                node=name,
                queen=__version__,
                hive=health.version,
            )

    async def ensure(self, tell: Tell) -> str:
        """Return the URL of the hive, started over SSH if need be; raises why it could not be."""
        if (found := await self.find()) is not None:
            return found
        row = self._row
        self._tell(tell, "ssh_connect", f"Connecting to {row.ssh_user}@{row.ssh_host} by SSH")
        async with self.dial() as connection:
            self._tell(tell, "start_hive", f"Starting the hive on {row.node_name}")
            url = await self._start(connection, tell)
        inside = urlsplit(url)
        assert inside.hostname is not None
        self._inside = (inside.hostname, inside.port or HIVE_PORT)
        self._port = self._inside[1]
        url = await self._approach(tell)
        self._tell(tell, "hive_ready", f"The hive on {row.node_name} answers at {row.ssh_host}:{self._port}")
        return url

    def _tell(self, tell: Tell, action: str, human: str) -> None:
        tell(Narration(actor="queen-rbee", action=action, target=self._row.node_name, human=human))

    async def _start(self, connection: Connection, tell: Tell) -> str:
        """Start the hive; returns its URL as the node knows it, of one that runs already too."""
        row, limits, binary = self._row, self._settings.timeouts, self._settings.remote.binary_path
        parameters = {
            "python": "" if binary else f"{row.install_path}/bin/python",
            "program": binary or f"{row.install_path}/bin/rbee",
            "config": f"{row.install_path}/config.toml",
            "logs": f"{row.install_path}/state/logs",
            "cache": f"{row.install_path}/cache",
            "advertise": row.ssh_host,
            "tenths": str(round(limits.start * 10)),
        }
        ready: list[announce.Ready] = []

        def heard(name: str, value: str) -> None:
            if name == "announced" and (found := announce.heed(value, tell)) is not None:
                ready.append(found)

        try:
            said = await remote_script.run(connection, "start_hive", parameters, heard)
        except AlreadyRunningError as exc:
            url = exc.details.get("url")
            if not isinstance(url, str):
                raise
            return url
        if ready:
            self._is_owned = True
            await self._registry.owned(row.node_name, owned=True)
            return ready[0].url
        raise self._not_started(said)

    def _not_started(self, said: remote_script.Said) -> RbeeError:
        name = self._row.node_name
        if "missing" in said:
            return SpawnFailedError(
                f"rbee is not installed on {name}: there is no {said['missing'][0]}",
                hint=f"`rbee setup install --node {name}` brings it there",
                node=name,
            )
        details: dict[str, Any] = {"node": name, "log": "hive.log", "last_lines": said.get("log", [])}
        if "late" in said:
            limit = self._settings.timeouts.start
            return SpawnTimeoutError(f"the hive on {name} was not ready after {limit:g} s, and was ended", **details)
        code = said.get("exited", ["?"])[0]
        return SpawnFailedError(f"the hive on {name} ended at its start: exit code {code}", **details)

    async def _approach(self, tell: Tell) -> str:
        """Return the URL of the hive that runs, directly, or where that does not work and may be through SSH."""
        assert self._inside is not None
        row, limits = self._row, self._settings.timeouts
        if not self._is_tunnelled:
            url = base_url(row.ssh_host, self._port)
            may_tunnel = row.tunnel == "auto"
            try:
                await self._try(url, LOOK_SECONDS if may_tunnel else limits.connect, tell)
            except ConnectionTimeoutError:
                if not may_tunnel:
                    raise
                human = f"{row.ssh_host}:{self._port} cannot be reached; going through SSH"
                self._tell(tell, "ssh_tunnel", human)
            else:
                return url
        url = self._tunnel.url(*self._inside)
        await self._try(url, limits.connect, tell)
        self._is_tunnelled = True
        return url

    async def _try(self, url: str, seconds: float, tell: Tell) -> None:
        """Ask whether the hive answers, in several attempts that are told."""
        row, delays = self._row, self._settings.timeouts.connect_delays
        address = f"{row.ssh_host}:{self._port}"
        attempts: list[str] = []
        for number, delay in enumerate(delays, 1):
            await trio.sleep(delay)
            try:
                with trio.fail_after(seconds):
                    await self._greet(url, seconds)
            except (trio.TooSlowError, ConnectionTimeoutError) as exc:
                failed = exc.details["attempts"][0].partition(": ")[2] if isinstance(exc, RbeeError) else "timeout"
                after = f"; again in {delays[number] * 1000:.0f} ms" if number < len(delays) else ""
                attempts.append(f"attempt {number} of {len(delays)}: {address} did not answer ({failed})")
                human = f"A{attempts[-1][1:]}, with a timeout of {seconds:g} s{after}"
                self._tell(tell, "connect_retry", human)
            else:
                return
        raise ConnectionTimeoutError(
            f"the hive on {row.node_name} did not answer at {address} in {len(delays)} attempts",
            hint=f"check that the hive runs on {row.node_name} and that no firewall is in between; "
            f"`rbee setup update-node --name {row.node_name} --tunnel auto` goes through SSH",
            node=row.node_name,
            attempts=attempts,
        )

    async def install(self, asked: InstallRequest, tell: Callable[[Told], None]) -> Success:
        """Bring rbee to the node, or take the version before back; a hive of another version is ended then."""
        row, name = self._row, self._row.node_name
        sources = self._settings.remote.git_repo_dir or f"{row.install_path}/src"
        async with self._installing, self.dial() as connection:
            installer = Installer(connection, row, tell)
            if asked.rollback:
                version = await installer.roll_back()
            else:
                version = await installer.install(self._token, sources=sources if asked.from_source else None)
            if await self._is_outdated(version):
                self._tell(tell, "stop_hive", f"Ending the hive on {name}, which is of another version")
                await self._stop(connection)
        return Success(message=f"rbee {version} is installed on {name}", node_name=name)

    async def _is_outdated(self, version: str) -> bool:
        """Whether a hive answers that is not of this version."""
        if (url := self._url()) is None:
            return False
        try:
            async with HiveClient(url, None, timeout=LOOK_SECONDS) as client:
                return (await client.health(patient=False)).version != version
        except RbeeError:
            return False

    async def end(self, urgent: trio.Event) -> None:
        """End the hive if a queen started it: by HTTP, and where that fails by a signal over SSH; bounded."""
        if not self._is_owned:
            return
        limits = self._settings.timeouts
        with trio.move_on_after(limits.drain + limits.cascade) as patience:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when, urgent, nursery.cancel_scope)
                await self._end_by_http()
                nursery.cancel_scope.cancel()
        if patience.cancelled_caught or urgent.is_set() or await self.find() is not None:
            await self._end_by_ssh()
        self._is_owned = False
        await self._registry.owned(self._row.node_name, owned=False)

    async def _end_by_http(self) -> None:
        try:
            if (url := await self.find()) is None:
                return
        except VersionMismatchError:
            return  # a hive of another version: its signals are the same
        async with self.connect(url) as client:
            await client.shutdown()
        while await self.find() is not None:  # noqa: ASYNC110 (on another machine)
            await trio.sleep(AGAIN_SECONDS)

    async def _end_by_ssh(self) -> None:
        limits = self._settings.timeouts
        with trio.move_on_after(limits.ssh_connect + limits.cascade):
            try:
                async with self.dial() as connection:
                    await self._stop(connection)
            except SshFailedError as exc:
                log.warning("the hive on %s could not be ended: %s", self._row.node_name, exc)

    async def _stop(self, connection: Connection) -> None:
        limits = self._settings.timeouts
        lock = f"{self._row.install_path}/state/hive.lock"
        parameters = {"lock": lock, "tenths": str(round((limits.drain + limits.cascade) * 10))}
        said = await remote_script.run(connection, "stop_hive", parameters)
        log.info("the hive on %s was ended over SSH: %s", self._row.node_name, ", ".join(said))


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
