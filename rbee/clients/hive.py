"""The queen's client of a hive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from rbee.adapters.http import client as http_client
from rbee.adapters.http import sse_client
from rbee.clients.base import Connected
from rbee.clients.progress import result_of
from rbee.clients.push import HiveReceiver
from rbee.errors import DownloadFailedError, SpawnFailedError
from rbee.wire import hive as wire
from rbee.wire import model_copy
from rbee.wire import models as model_wire
from rbee.wire.common import Health
from rbee.wire.logs import HIVE_LOGS
from rbee.wire.progress import DownloadState
from rbee.wire.worker import EndedRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from rbee.adapters.http.proof import Challenge
    from rbee.wire.logs import LogQuery
    from rbee.wire.progress import Report


_EVENTS: Final[dict[str, type[wire.HiveEvent]]] = {
    "state": wire.WorkerList,
    "worker": wire.WorkerRow,
    "gone": wire.WorkerGone,
    "download": DownloadState,
    "request": EndedRequest,
}


class HiveClient(Connected):
    """A hive at a URL; its health needs no token."""

    async def health(self, *, patient: bool = True, challenge: Challenge | None = None) -> Health:
        """Ask whether the hive answers, once or (`patient`) with the retries of a short call.

        It is asked for a proof that meets the challenge, too.
        """
        delays = self._delays if patient else http_client.ONCE
        headers = None if challenge is None else challenge.headers
        return await http_client.call(self._http, "GET", wire.HEALTH, Health, headers=headers, delays=delays)

    async def workers(self) -> wire.WorkerList:
        """Return the hive's workers, and those that ended without being asked to."""
        return await self._get(wire.WORKERS_LIST, wire.WorkerList)

    async def resources(self) -> wire.Resources:
        return await self._get(wire.RESOURCES, wire.Resources)

    async def end_worker(self, worker_id: str) -> None:
        """End a worker; returns once it has accepted that. Raises WorkerNotFoundError."""
        await http_client.call(self._http, "DELETE", f"{wire.WORKERS}/{quote(worker_id, safe='')}", bytes)

    async def backends(self) -> list[wire.BackendDevices]:
        """Return the backends there, with the memory that is free now."""
        found = await self._get(wire.BACKENDS, wire.BackendList)
        return found.backends

    async def follow(self, on_event: Callable[[wire.HiveEvent], None]) -> None:
        """Follow the hive's event stream: call `on_event` with the whole state, then with each change.

        Returns when the hive ends the stream; raises StreamLostError or an RbeeError when it is lost.
        """
        async with sse_client.events(self._http, "GET", wire.EVENTS) as events:
            async for event in events:
                if (kind := _EVENTS.get(event.name)) is not None:
                    on_event(sse_client.decode_event(event.data, kind))

    def logs(self, query: LogQuery) -> AbstractAsyncContextManager[sse_client.EventStream]:
        """Open the stream of the node's logs; each event is a LogLine."""
        return sse_client.events(self._http, "GET", f"{HIVE_LOGS}?lines={query.lines}&follow={query.follow}".lower())

    async def spawn(self, request: wire.SpawnRequest, report: Report) -> wire.SpawnReply:
        """Start a worker, reporting what the hive does; returns once the worker answers HTTP."""
        stream = sse_client.events(self._http, "POST", wire.WORKERS_SPAWN, body=request)
        lost = SpawnFailedError("the hive was lost while it started the worker")
        return await result_of(stream, wire.SpawnReply, report, lost)

    async def models(self) -> list[model_wire.ModelRow]:
        found = await self._get(model_wire.LIST, model_wire.ModelList)
        return found.models

    async def offers(self, reference: str) -> model_copy.Offers:
        """Return what others may copy of a model's repository."""
        return await self._get(model_copy.FILES, model_copy.Offers, model_ref=reference)

    async def pull(self, reference: str, sources: list[model_copy.Source], report: Report) -> model_wire.ModelRow:
        """Have a model fetched if the node lacks it; a cancelled call no longer keeps the download going."""
        request = model_wire.DownloadRequest(model_ref=reference, sources=sources)
        stream = sse_client.events(self._http, "POST", model_wire.DOWNLOAD, body=request)
        hint = "the next try goes on where this one ended"
        lost = DownloadFailedError("the hive was lost while it fetched the model", hint=hint)
        return await result_of(stream, model_wire.ModelRow, report, lost)

    def receiver(self) -> HiveReceiver:
        """Return it as the receiver of a model that is sent there."""
        return HiveReceiver(self._http)

    async def show_model(self, reference: str) -> model_wire.ModelDetails:
        """Describe a model that is there, by its reference or id. Raises ModelNotFoundError."""
        return await self._get(model_wire.SHOW, model_wire.ModelDetails, model_ref=reference)

    async def remove_model(self, model_id: str) -> None:
        """Remove a model from the node's disk. Raises ModelNotFoundError or ModelInUseError."""
        await http_client.call(self._http, "DELETE", model_wire.MODEL.format(id=quote(model_id, safe="")), bytes)

    async def shutdown(self) -> None:
        await http_client.call(self._http, "POST", wire.SHUTDOWN, bytes)
