"""What the queen's routes share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rbee.adapters.http.streams import Streams
from rbee.queen.requests.log import RequestLog
from rbee.queen.routes import request_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio
    from quart import Response

    from rbee.adapters.config import Settings
    from rbee.adapters.daemon.lifecycle import Stopping
    from rbee.adapters.http import sse_server
    from rbee.adapters.http.kept_connections import KeptConnections
    from rbee.queen.nodes.nodes import Nodes
    from rbee.queen.registry.table import Registry
    from rbee.queen.requests.tracker import RequestTracker


@dataclass(frozen=True)
class QueenContext(Streams):
    """One queen, as its routes see it; `queen_id` is that of its state folder."""

    settings: Settings
    token: str
    registry: Registry
    nodes: Nodes
    tracker: RequestTracker
    connections: KeptConnections
    nursery: trio.Nursery
    stopping: Stopping
    queen_id: str = ""
    requests: RequestLog = field(default_factory=RequestLog)

    def stream(
        self,
        produce: Callable[[sse_server.Send], Awaitable[object]],
        *,
        heartbeat: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Answer with a stream, whose end is that of the request in the log; see Streams."""
        record = request_log.current()
        if not record.is_stream:
            produce = request_log.watched(produce, record, self.requests.write)
        return super().stream(produce, heartbeat=heartbeat, headers=headers)
