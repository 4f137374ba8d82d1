"""What the queen's routes share, and the two ways in which they answer: at once, or by a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rbee.adapters.http import sse_server
from rbee.adapters.http.app import answer, streamed, wants_stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio
    from quart import Response

    from rbee.adapters.config import Settings
    from rbee.adapters.daemon.lifecycle import Stopping
    from rbee.queen.nodes.nodes import Nodes
    from rbee.queen.registry.table import Registry
    from rbee.queen.requests.tracker import RequestTracker
    from rbee.wire.progress import Report


@dataclass(frozen=True, slots=True)
class RouteContext:
    """One queen, as its routes see it; streams are fed by tasks in `nursery`."""

    settings: Settings
    token: str
    registry: Registry
    nodes: Nodes
    tracker: RequestTracker
    nursery: trio.Nursery
    stopping: Stopping

    def stream(
        self,
        produce: Callable[[sse_server.Send], Awaitable[object]],
        *,
        heartbeat: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Answer with the events that `produce` sends, with a heartbeat at the configured pace."""
        pace = self.settings.timeouts.heartbeat if heartbeat is None else heartbeat
        return streamed(self.nursery, produce, heartbeat=pace, headers=headers)

    async def respond(self, work: Callable[[Report], Awaitable[object]], name: str) -> Response:
        """Answer with the result of `work`.

        A client that asks for a stream gets the progress that `work` reports, and then the result as event `name`.
        """
        if not wants_stream():
            return answer(await work(lambda _: None))
        return self.stream_progress(work, name)

    def stream_progress(self, work: Callable[[Report], Awaitable[object]], name: str) -> Response:
        """Answer with the progress that `work` reports, and then its result as event `name`."""
        return self.stream(lambda send: sse_server.with_progress_and_result(send, work, name))
