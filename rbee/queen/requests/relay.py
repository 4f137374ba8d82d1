"""Passes a worker's answer through the queen, for callers that cannot reach the worker."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from rbee.adapters.http import sse_client, sse_server
from rbee.clients.wait_ready import wait_ready
from rbee.clients.worker import WorkerClient
from rbee.errors import ConnectionTimeoutError, RbeeError, WorkerFailedError
from rbee.wire.common import Narration, Sampling
from rbee.wire.worker import InferenceRequest

if TYPE_CHECKING:
    from rbee.adapters.config import Timeouts
    from rbee.adapters.http.connection import ClientConnection
    from rbee.wire.progress import Progress, Report
    from rbee.wire.queen import TaskRequest


class _Listener:
    """Hears how a model loads, and tells it on."""

    def __init__(self, report: Report) -> None:
        self._tell = report

    def narrate(self, narration: Narration) -> None:
        self._tell(narration)

    def progress(self, progress: Progress) -> None:
        self._tell(progress)

    def end_progress(self) -> None:
        pass


class Reached(WorkerClient):
    """A worker of some node at the URL at which the queen reaches it."""

    def __init__(self, worker_id: str, node: str, url: str, key: str, limits: Timeouts) -> None:
        super().__init__(url, key, timeout=limits.call, delays=limits.call_delays)
        self.worker_id = worker_id
        self._node = node
        self._limits = limits

    async def wait_ready(self, report: Report) -> None:
        """Return once the worker has loaded its model; what it tells meanwhile is told on."""
        try:
            # The hive counts too, from an earlier moment on, knows the layers, and needs a moment to end the worker.
            await wait_ready(self, _Listener(report), self._limits, grace=self._limits.unload)
        except RbeeError as exc:
            exc.details = {"node": self._node, "log": f"worker-{self.worker_id}.log"} | exc.details
            raise

    async def relay(self, send: sse_server.Send, task: TaskRequest, client: ClientConnection) -> None:
        """Run the request at the worker, and send its events as they come; it hears when `client` takes nothing."""

        async def report(is_silent: bool) -> None:
            with suppress(RbeeError):  # a worker that cannot be told is lost, which its stream says too
                await self.tell_reader(task.request_id or "", is_silent=is_silent)

        with client.watched(self._limits.silent, report):
            await self._pass_on(send, task)

    async def _pass_on(self, send: sse_server.Send, task: TaskRequest) -> None:
        request = InferenceRequest(
            **{name: getattr(task, name) for name in Sampling.__struct_fields__},
            prompt=task.prompt,
            max_tokens=task.max_tokens,
            narrate=task.narrate,
            request_id=task.request_id,
        )
        try:
            async with self.inference(request) as events:
                async for event in events:
                    await send.send(sse_server.event_from_json(event.data, event.name))
        except sse_client.StreamLostError as exc:
            raise WorkerFailedError(f"the worker's stream ended early: {exc}") from exc
        except ConnectionTimeoutError as exc:
            raise WorkerFailedError("the worker was lost before it answered") from exc
