"""Talks through the queen to a worker that only the queen reaches."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from rbee.adapters.http import sse_client
    from rbee.clients.queen import QueenClient
    from rbee.wire.queen import TaskHandle, TaskRequest
    from rbee.wire.worker import InferenceRequest


class RelayedWorker:
    """The worker of a task that was placed, with the calls of a WorkerClient that a generation needs.

    `events` is the stream in which the answer of the first attempt comes, where the queen relays it already: one of an
    earlier version does not.
    """

    def __init__(
        self, queen: QueenClient, task: TaskRequest, handle: TaskHandle, events: sse_client.EventStream
    ) -> None:
        self._queen = queen
        self._events = events if handle.relayed else None
        self._task = msgspec.structs.replace(
            task, relay=True, narrate=True, wait_s=0.0, node=handle.node, worker_id=handle.worker_id
        )
        self.url = handle.worker_url

    def inference(
        self, request: InferenceRequest, *, keep: float | None = None
    ) -> AbstractAsyncContextManager[sse_client.EventStream]:
        """Open the stream of the generation; the queen's own events in it are none of the worker's."""
        events, self._events = self._events, None
        self._task.max_tokens = request.max_tokens
        return self._queen.place(self._task, keep=keep) if events is None else nullcontext(events)

    async def cancel(self, request_id: str) -> None:
        """Stop the generation; it has stopped when this returns."""
        await self._queen.cancel(request_id)
