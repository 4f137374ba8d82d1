"""The simulated node as the queen has it: its hive is found, started, and reached over the network."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from rbee.adapters.http.sse_client import StreamLostError
from rbee.errors import AlreadyRunningError, InternalError, SpawnFailedError, SpawnTimeoutError
from rbee.hive import tables
from tests.simulation.hive import HIVE_URL, HiveProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rbee.adapters.config import Timeouts
    from rbee.wire.common import Narration
    from rbee.wire.hive import HiveEvent, SpawnReply, SpawnRequest, WorkerList
    from tests.simulation.network import Network
    from tests.simulation.world import World

START_SECONDS: Final = 30.0


class Client:
    """A connection to the hive, with the calls of `HiveClient`."""

    def __init__(self, network: Network, url: str) -> None:
        self._network = network
        self._url = url

    async def workers(self) -> WorkerList:
        return await self._network.call(
            self._url, "the list of workers", lambda hive: hive.list_workers(), repeats=True
        )

    async def follow(self, heard: Callable[[HiveEvent], None]) -> None:
        await self._network.stream(self._url, "the events", lambda hive, send: hive.follow(send), heard)

    async def spawn(self, request: SpawnRequest, report: Callable[[Narration], None]) -> SpawnReply:
        replies: list[SpawnReply] = []
        try:
            await self._network.stream(
                self._url, "a start", lambda hive, send: hive.spawn(request, send), replies.append
            )
        except StreamLostError as exc:
            if not replies:
                raise SpawnFailedError(f"the hive was lost while it started the worker: {exc}") from exc
        if not replies:
            raise InternalError("the hive ended the start of a worker without a result")
        return replies[0]


class Site:
    """One machine with its hive's registry; at most one hive runs on it."""

    def __init__(self, world: World, network: Network, limits: Timeouts) -> None:
        self.registry = sqlite3.connect(":memory:", isolation_level=None)
        for script in tables.MIGRATIONS:
            self.registry.executescript(script)
        self.hive: HiveProcess | None = None
        self._world = world
        self._network = network
        self.limits = limits
        self._started = 0

    async def find(self) -> str | None:
        await trio.lowlevel.checkpoint()
        # One that has said where it is is taken to be there until its process has ended.
        return HIVE_URL if self.hive is not None and self.hive.is_running and self.hive.answers.is_set() else None

    async def ensure(self, report: Callable[[Narration], None]) -> str:
        if (url := await self.find()) is not None:
            return url
        if self.hive is not None and self.hive.is_running:
            raise AlreadyRunningError("a hive starts or ends here right now")
        self._started += 1
        self.hive = hive = HiveProcess(self._world, self._network, self.registry, self.limits, self._started)
        self._world.nursery.start_soon(hive.run)
        with trio.move_on_after(START_SECONDS):
            async with trio.open_nursery() as nursery:
                for event in (hive.answers, hive.ended):
                    nursery.start_soon(_cancel_when, event, nursery.cancel_scope)
        if hive.is_listening:
            return HIVE_URL
        if hive.is_running:
            hive.kill()
            raise SpawnTimeoutError(f"the hive was not ready after {START_SECONDS:g} s")
        raise SpawnFailedError(f"the hive ended at its start: {hive.how}")

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[Any]:
        yield Client(self._network, url)

    def rows(self) -> dict[str, tuple[str | None, int]]:
        """Return the registry's workers: URL and pid by id."""
        found = self.registry.execute("SELECT id, url, pid FROM workers")
        return {worker_id: (url, pid) for worker_id, url, pid in found}


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
