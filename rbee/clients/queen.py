"""Talks to a queen."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from rbee.adapters.http import client as http_client
from rbee.adapters.http import sse_client
from rbee.clients.base import Connected
from rbee.errors import InternalError, RbeeError, from_body
from rbee.wire import queen, registry
from rbee.wire.common import Narration, Request
from rbee.wire.events import EVENTS
from rbee.wire.logs import QUEEN_LOGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from rbee.wire.logs import NodeLogQuery


class QueenClient(Connected):
    """A queen at a URL; `async with` closes its connections. Health needs no token."""

    async def health(self) -> queen.QueenHealth:
        """Ask once; the errors are those of `http.call`."""
        return await http_client.call(self._http, "GET", queen.HEALTH, queen.QueenHealth)

    def place(
        self, request: queen.TaskRequest, *, relay_if_needed: bool = False
    ) -> AbstractAsyncContextManager[sse_client.EventStream]:
        """Open the stream of `narration`, `progress` and `worker` events.

        Where the answer is relayed, the events of the worker's own stream follow.
        """
        headers = {queen.PREFER: queen.RELAY_IF_NEEDED} if relay_if_needed else None
        return sse_client.events(self._http, "POST", queen.TASKS, body=request, headers=headers)

    async def cancel(self, request_id: str) -> None:
        """Give a request up, whether or not it is placed yet."""
        await http_client.call(self._http, "DELETE", queen.TASK.format(request_id=request_id), bytes)

    async def why_failed(self, request_id: str) -> RbeeError | None:
        """Return the error that says why the worker of a request ended; None where it has not, or nobody knows."""
        path = queen.TASK_FAILURE.format(request_id=request_id)
        failure = await http_client.call(self._http, "GET", path, queen.TaskFailure, delays=self._delays)
        return from_body({"error": failure.error})

    async def workers(self, node: str | None = None) -> queen.SwarmWorkers:
        """List the workers of all nodes, or of one, and the last ones that ended without being asked to."""
        params = {} if node is None else {"node": node}
        return await http_client.call(
            self._http, "GET", queen.WORKERS_LIST, queen.SwarmWorkers, params=params, delays=self._delays
        )

    async def end_worker(self, worker_id: str) -> queen.WorkerEnding:
        """Have a worker end; returns once it has accepted that. Raises WorkerNotFoundError."""
        asked = queen.WorkerShutdown(worker_id=worker_id)
        try:
            async with sse_client.events(self._http, "POST", queen.WORKERS_SHUTDOWN, body=asked) as events:
                async for event in events:
                    return sse_client.decode_event(event.data, queen.WorkerEnding)
        except sse_client.StreamLostError as exc:
            raise InternalError("the queen ended before the worker had accepted to end") from exc
        raise InternalError("the queen ended without a result")

    async def status(self, node: str | None = None) -> queen.SwarmStatus:
        """Ask how all nodes are, or one, and what runs there."""
        params = {} if node is None else {"node": node}
        return await http_client.call(
            self._http, "GET", queen.STATUS, queen.SwarmStatus, params=params, delays=self._delays
        )

    def events(self) -> AbstractAsyncContextManager[sse_client.EventStream]:
        """Open the stream of what happens in the swarm: the event `state`, then each change."""
        return sse_client.events(self._http, "GET", EVENTS)

    def logs(self, query: NodeLogQuery) -> AbstractAsyncContextManager[sse_client.EventStream]:
        """Open the stream of a node's logs; each event is a LogLine. Raises NodeNotFoundError."""
        asked = urlencode({"node": query.node, "lines": query.lines, "follow": str(query.follow).lower()})
        return sse_client.events(self._http, "GET", f"{QUEEN_LOGS}?{asked}")

    async def nodes(self) -> list[registry.BeehiveRow]:
        """List the registered nodes, by name."""
        found = await http_client.call(self._http, "GET", registry.LIST, registry.BeehiveList, delays=self._delays)
        return found.nodes

    async def add_node(self, node: registry.Beehive, report: Callable[[Narration], None]) -> registry.Success:
        """Register a node, passing on what the queen narrates. Raises SshFailedError or NodeExistsError."""
        return await self._told(registry.ADD, node, report)

    async def update_node(self, node: registry.Beehive, report: Callable[[Narration], None]) -> registry.Success:
        """Change a registered node. Raises SshFailedError or NodeNotFoundError."""
        return await self._told(registry.UPDATE, node, report)

    async def remove_node(self, name: str, report: Callable[[Narration], None]) -> registry.Success:
        """Forget a node, whose hive may have to end first. Raises NodeNotFoundError."""
        return await self._told(registry.REMOVE, registry.NodeName(node_name=name), report)

    def install(self, request: registry.InstallRequest) -> AbstractAsyncContextManager[sse_client.EventStream]:
        """Open the stream of `narration`, `progress` and, last, `success` events."""
        return sse_client.events(self._http, "POST", registry.INSTALL, body=request)

    def stream(
        self, method: str, path: str, body: Request | None
    ) -> AbstractAsyncContextManager[sse_client.EventStream]:
        """Open the stream of what is told and, last, a result."""
        return sse_client.events(self._http, method, path, body=body)

    async def _told(self, path: str, asked: Request, report: Callable[[Narration], None]) -> registry.Success:
        try:
            async with sse_client.events(self._http, "POST", path, body=asked) as events:
                async for event in events:
                    if event.name == "narration":
                        report(sse_client.decode_event(event.data, Narration))
                    else:
                        return sse_client.decode_event(event.data, registry.Success)
        except sse_client.StreamLostError as exc:
            raise InternalError("the queen ended before the registry was changed") from exc
        raise InternalError("the queen ended without a result")
