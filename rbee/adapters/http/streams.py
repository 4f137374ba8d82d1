"""The ways in which routes answer that take a while: at once with the result, or by an event stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rbee.adapters.http import sse_server
from rbee.adapters.http.app import answer, streamed, wants_stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio
    from quart import Response

    from rbee.adapters.config import Settings
    from rbee.wire.progress import Report


class Streams(Protocol):
    """A daemon, as its routes see it; its streams are fed by tasks in `nursery`."""

    settings: Settings
    nursery: trio.Nursery

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
