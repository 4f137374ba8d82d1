"""The queen's HTTP interface to requests: placing them, relaying their answers, cancelling them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from rbee.adapters.http import sse_server
from rbee.adapters.http.app import answer, body, client_connection, empty, wants_stream
from rbee.clients.worker import WorkerClient
from rbee.errors import DrainingError, RbeeError
from rbee.queen.requests.events import Generated
from rbee.queen.requests.request import InferenceRun, check
from rbee.wire import queen as wire
from rbee.wire import worker as worker_wire

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.queen.requests.events import RunEvent
    from rbee.queen.requests.tracker import TrackedRequest
    from rbee.queen.routes.context import Context


def add(app: QuartTrio, context: Context) -> None:
    """Add the routes."""
    tracker, settings = context.tracker, context.settings

    def run_of(task: wire.TaskRequest, tracked: TrackedRequest) -> InferenceRun:
        return InferenceRun(task, tracked, context.nodes, settings, context.token)

    @app.post(wire.TASKS)
    async def start_task() -> Response:
        task = await body(wire.TaskRequest)
        if context.stopping.asked.is_set():
            raise DrainingError("the queen is shutting down and takes no new tasks")
        task.request_id = request_id = task.request_id or str(uuid.uuid4())
        check(task, context.nodes, settings)
        headers = {worker_wire.REQUEST_ID_HEADER: request_id}
        if not wants_stream() and not task.relay:
            with tracker.track(request_id) as tracked:
                handle = await run_of(task, tracked).place(lambda _: None)
            response = answer(handle)
            response.headers.update(headers)
            return response

        client = client_connection()

        async def produce(send: sse_server.Send) -> None:
            with tracker.track(request_id) as tracked:
                await run_of(task, tracked).run(lambda event: send.send(encode(event)), client)

        limits = settings.timeouts
        # A client can be heard only when it is sent something.
        heartbeat = min(limits.heartbeat, limits.silent / 2) if task.relay else limits.heartbeat
        return context.stream(produce, heartbeat=heartbeat, headers=headers)

    @app.delete("/v2/tasks/<request_id>")
    async def cancel_task(request_id: str) -> Response:
        worker = tracker.cancel(request_id)
        if worker is not None:
            url, key = worker
            try:
                async with WorkerClient(url, key) as client:
                    await client.cancel(request_id)
            except RbeeError:
                pass  # a worker that does not answer generates for nobody
        return empty(204)


def encode(event: RunEvent) -> bytes:
    """Return an event of a run as the stream of a task has it; what the worker generates is passed on as it came."""
    if isinstance(event, Generated):
        return sse_server.event_from_json(event.data, event.name)
    if isinstance(event, wire.TaskHandle):
        return sse_server.event(event, "worker")
    return sse_server.progress_event(event)
