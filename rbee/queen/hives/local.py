"""The hive of the queen's own host: found or started, asked, and ended."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio

from rbee.adapters.daemon import instance, process, stopped
from rbee.adapters.hardware import inventory
from rbee.adapters.http import port_users
from rbee.adapters.http import server as http_server
from rbee.clients.hive import HiveClient
from rbee.errors import AlreadyRunningError, ConnectionTimeoutError, PortInUseError, RbeeError, UnloadFailedError
from rbee.narrower_errors import AddressTakenError
from rbee.queen.hives.link import Absence, narrate
from rbee.queen.hives.local_process import LocalProcess
from rbee.queen.hives.mirror import devices_of
from rbee.queen.registry.identity import Claim
from rbee.wire import addresses
from rbee.wire.common import base_url
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.adapters.config import Settings
    from rbee.adapters.http.proof import Challenge
    from rbee.queen.hives.mirror import Devices
    from rbee.queen.registry.identity import HiveIdentities
    from rbee.wire.common import Health
    from rbee.wire.progress import Report

log = logging.getLogger(__name__)


class LocalHive:
    """The hive on this host, whether it runs or not: a HiveLink, which documents it."""

    def __init__(
        self, settings: Settings, token: str, config_file: str | None, identities: HiveIdentities, *, ephemeral: bool
    ) -> None:
        self._settings = settings
        self._token = token
        self._identities = identities
        self._process = LocalProcess(settings, config_file, ephemeral=ephemeral)
        self._verified: instance.Instance | None = None
        self._is_everywhere = False
        self._strangers = port_users.NOBODY
        """The other users at our port whose hive has proven that it knows the token."""
        self._guessed: str | None = None
        """The id of the hive that answers at our port without being that of our state folder."""
        identities.enter(LOCAL_NODE, self)

    @property
    def claim(self) -> Claim:
        """Which hive is this host's: that of our state folder, else the one that answers at our port."""
        running = self._running()
        return Claim(self._guessed, is_proven=False) if running is None else Claim(running.id or None, is_proven=True)

    def _running(self) -> instance.Instance | None:
        return instance.find(self._settings.state_dir, "hive")

    is_direct = True
    is_here = True
    absence = Absence("not started", "no hive is running on this host; the first request starts it")

    @property
    def version(self) -> str:
        return self._identities.version(LOCAL_NODE)

    @property
    def is_everywhere(self) -> bool:
        return self._is_everywhere

    def worker_url(self, url: str) -> str:
        found = urlsplit(url)
        if not addresses.is_unspecified(found.hostname or ""):
            return url
        return base_url(addresses.reachable(found.hostname or ""), found.port or 0)  # of a hive of an earlier version

    def outside(self, url: str) -> str | None:
        """Return the URL at which other machines reach the hive, as it is configured; None where only this one does."""
        found = urlsplit(url)
        host = self._settings.hive.advertise or found.hostname or ""
        return None if addresses.is_own(host) else base_url(host, found.port or self._settings.hive.port)

    async def find(self) -> str | None:
        """Return the URL of a hive that runs here, or None.

        Raises VersionMismatchError when it is of another version, ConnectionTimeoutError when it is stopped, or
        PortInUseError or InvalidApiKeyError when something else answers at the port where one would be started.
        """
        running, hive = self._running(), self._settings.hive
        url = running.url if running else base_url(addresses.reachable(hive.host), hive.port)
        if running is not None and running.started_by == "queen":
            self._process.adopt(running.identity)
        if running is not None and process.is_stopped(running.identity):
            raise stopped.explain("hive", running.identity)
        if running is None and hive.port == 0:
            return None
        if running is not None and running == self._verified:
            return url  # the very process that answered before; whether it still does, the next question shows
        limits, address = self._settings.timeouts, url.removeprefix("http://")
        # Health needs no token, and a stranger gets none: another user's program proves that it has it, and there.
        strangers = await port_users.strangers(url)
        challenge = self._identities.challenge(at=address if strangers else "")
        if running is None:
            health = await self._ask_stranger(url, challenge)
            self._guessed = None
            if health is None:
                return None
        else:
            async with HiveClient(url, None, timeout=limits.connect, delays=limits.connect_delays) as client:
                health = await client.health(challenge=challenge)
        self._identities.vouch(LOCAL_NODE)  # what this user or root runs here may be of any version
        self._identities.check_proof(health, challenge, LOCAL_NODE, address, must=bool(strangers))
        self._identities.check(health, LOCAL_NODE, address, running.id if running else None)
        self._strangers = strangers
        self._verified, self._guessed = running, health.hive_id
        self._is_everywhere = health.everywhere
        self._identities.claim_changed()
        return url

    async def _ask_stranger(self, url: str, challenge: Challenge) -> Health | None:
        """Ask what listens where no hive of our state folder does; returns None where nothing does."""
        try:
            async with HiveClient(url, None, timeout=self._settings.timeouts.call) as client:
                return await client.health(patient=False, challenge=challenge)
        except RbeeError as exc:
            if isinstance(exc, ConnectionTimeoutError) and not isinstance(exc, AddressTakenError):
                return None
        port = self._settings.hive.port
        holder = http_server.holder(urlsplit(url).hostname or "", port)
        raise PortInUseError(
            f"port {port} is taken{holder}: what answers at {url} is not a hive of rbee",
            hint="stop that program, or give the hive another port: `port` under [hive] in the settings, "
            "or the environment variable RBEE_HIVE_PORT",
            port=port,
        )

    async def ensure(self, report: Report) -> str:
        if (running := self._running()) is not None:
            await stopped.wait_to_go_on("hive", running.identity)
            if running.ended_cleanly or running.report is not None:
                # It answers no more, and only its process is still there: for a moment, or longer under load.
                raise AlreadyRunningError(f"the hive (pid {running.identity.pid}) is just ending")
        if (found := await self.find()) is not None:
            return found
        narrate(report, LOCAL_NODE, "start_hive", "Starting the hive on this host")
        url = await self._process.start(report)
        narrate(report, LOCAL_NODE, "hive_ready", f"The hive answers at {url}")
        return url

    async def devices(self) -> Devices:
        return devices_of(await trio.to_thread.run_sync(inventory.backends))

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[HiveClient]:
        """Open a connection to the hive at `url`; raises ConnectionTimeoutError when the hive is stopped meanwhile."""
        limits = self._settings.timeouts
        running = self._running()
        identity = running.identity if running is not None and running.url == url else None
        guard = port_users.guard(url, self._strangers)
        async with (
            self._identities.fail_if_lost(LOCAL_NODE, url.removeprefix("http://")),
            stopped.fail_if_sigstopped("hive", identity),
            HiveClient(url, self._token, timeout=limits.call, delays=limits.call_delays, guard=guard) as client,
        ):
            yield client

    async def run(self) -> None:
        await self._process.run()

    async def end(self, force: trio.Event) -> UnloadFailedError | None:
        """End the hive if a queen started it, and wait until it is gone; `force` ends the wait for requests.

        The workers of one that was killed live on: another hive takes them over, and ends with them. Returns what did
        not end as it should.
        """
        failure = await self._process.end(force)
        killed = instance.find_uncleanly_ended(self._settings.state_dir, "hive")
        if killed is None or killed.ephemeral or killed.started_by != "queen":
            return failure
        if failure is not None:
            force = trio.Event()
            force.set()  # one that had to be killed now: its requests have had their time
        log.info("the hive (pid %d) was killed; starting another one to end its workers", killed.identity.pid)
        try:
            await self.ensure(lambda _: None)
        except RbeeError as exc:
            log.error("no hive could be started to end the workers: %s", exc.message)  # noqa: TRY400 (expected)
            return failure or UnloadFailedError(
                f"the hive (pid {killed.identity.pid}) was killed, and none could be started to end its workers:"
                f" {exc.message}",
                hint=f"a worker that nobody uses ends by itself after {self._settings.timeouts.orphan:g} s",
            )
        second = await self._process.end(force)
        return failure or second
