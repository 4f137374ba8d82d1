"""What the queen asks of a hive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee.adapters import http
from rbee.clients.connected import Connected
from rbee.errors import InternalError, SpawnFailedError
from rbee.wire import hive as wire
from rbee.wire.common import Health, Narration
from rbee.wire.logs import HIVE_LOGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from rbee.wire.logs import LogQuery


_EVENTS: Final[dict[str, type[wire.HiveEvent]]] = {
    "state": wire.WorkerList,
    "worker": wire.WorkerRow,
    "gone": wire.WorkerGone,
}


class HiveClient(Connected):
    """A hive at a URL; its health needs no token."""

    async def health(self, *, patient: bool = True) -> Health:
        """Ask whether the hive answers, once or (`patient`) with the retries of a short call."""
        delays = self._delays if patient else http.ONCE
        return await http.call(self._http, "GET", wire.HEALTH, Health, delays=delays)

    async def workers(self) -> wire.WorkerList:
        """Return the hive's workers, and those that ended without being asked to."""
        return await http.call(self._http, "GET", wire.WORKERS_LIST, wire.WorkerList, delays=self._delays)

    async def backends(self) -> list[wire.Backend]:
        """Return what workers there can run on, with the memory that is free now."""
        found = await http.call(self._http, "GET", wire.BACKENDS, wire.BackendList, delays=self._delays)
        return found.backends

    async def follow(self, heard: Callable[[wire.HiveEvent], None]) -> None:
        """Hold the hive's event stream and pass on what it tells, first the whole state, then each change.

        Returns when the hive ends the stream; raises http.StreamLostError or an RbeeError when it is lost.
        """
        async with http.events(self._http, "GET", wire.EVENTS) as events:
            async for event in events:
                if (kind := _EVENTS.get(event.name)) is not None:
                    heard(http.decode_event(event.data, kind))

    def logs(self, query: LogQuery) -> AbstractAsyncContextManager[http.EventStream]:
        """Open the stream of the node's logs; each event is a LogLine."""
        return http.events(self._http, "GET", f"{HIVE_LOGS}?lines={query.lines}&follow={query.follow}".lower())

    async def spawn(self, request: wire.SpawnRequest, tell: Callable[[Narration], None]) -> wire.SpawnReply:
        """Start a worker, passing on what the hive narrates; returns once the worker answers HTTP."""
        try:
            async with http.events(self._http, "POST", wire.WORKERS_SPAWN, body=request) as events:
                async for event in events:
                    if event.name == "narration":
                        tell(http.decode_event(event.data, Narration))
                    else:
                        return http.decode_event(event.data, wire.SpawnReply)
        except http.StreamLostError as exc:
            raise SpawnFailedError(f"the hive was lost while it started the worker: {exc}") from exc
        raise InternalError("the hive ended the start of a worker without a result")

    async def shutdown(self) -> None:
        """Ask the hive to end; it answers before it does."""
        await http.call(self._http, "POST", wire.SHUTDOWN, bytes)
