"""Talks to a queen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters import http
from rbee.clients.connected import Connected
from rbee.wire import queen

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


class QueenClient(Connected):
    """A queen at a URL; `async with` closes its connections. Health needs no token."""

    async def health(self) -> queen.QueenHealth:
        """Ask once; the errors are those of `http.call`."""
        return await http.call(self._http, "GET", queen.HEALTH, queen.QueenHealth)

    def place(self, request: queen.TaskRequest) -> AbstractAsyncContextManager[http.EventStream]:
        """Open the stream of `narration`, `progress` and, last, `worker` events."""
        return http.events(self._http, "POST", queen.TASKS, body=request)

    async def cancel(self, request_id: str) -> None:
        """Give a request up, whether or not it is placed yet."""
        await http.call(self._http, "DELETE", queen.TASK.format(request_id=request_id), bytes)

    async def workers(self) -> queen.SwarmWorkers:
        """List the workers of all nodes, and the last ones that ended without being asked to."""
        return await http.call(self._http, "GET", queen.WORKERS_LIST, queen.SwarmWorkers, delays=self._delays)

    async def node_health(self, node: str) -> queen.NodeHealth:
        """Ask for a node's hive and workers. Raises NodeNotFoundError."""
        return await http.call(
            self._http,
            "GET",
            queen.WORKERS_HEALTH,
            queen.NodeHealth,
            params={"node": node},
            delays=self._delays,
        )
