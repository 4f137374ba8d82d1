"""The queen's HTTP interface to requests: placing them, relaying their answers, cancelling them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from rbee.adapters.http import client as http_client
from rbee.adapters.http import sse_server
from rbee.adapters.http.app import answer, body, client_connection, empty, wants_stream
from rbee.errors import DrainingError, RbeeError
from rbee.queen.requests import request
from rbee.wire import queen as wire
from rbee.wire import worker as worker_wire

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.queen.routes.context import Context


def add(app: QuartTrio, context: Context) -> None:
    """Add the routes."""
    nodes, tasks, settings, token = context.nodes, context.tasks, context.settings, context.token

    @app.post(wire.TASKS)
    async def start_task() -> Response:
        asked = await body(wire.TaskRequest)
        if context.stopping.asked.is_set():
            raise DrainingError("the queen is shutting down and takes no new tasks")
        asked.request_id = request_id = asked.request_id or str(uuid.uuid4())
        request.check(asked, nodes, settings)
        headers = {worker_wire.REQUEST_ID_HEADER: request_id}
        if not wants_stream() and not asked.relay:
            with tasks.track(request_id) as task:
                handle = await request.Request(asked, task, nodes, settings, token).place(lambda _: None)
            response = answer(handle)
            response.headers.update(headers)
            return response

        client = client_connection()

        async def produce(send: sse_server.Send) -> None:
            with tasks.track(request_id) as task:
                await request.Request(asked, task, nodes, settings, token).serve(send, client)

        limits = settings.timeouts
        # A client can be heard only when it is sent something.
        heartbeat = min(limits.heartbeat, limits.silent / 2) if asked.relay else limits.heartbeat
        return context.stream(produce, heartbeat=heartbeat, headers=headers)

    @app.delete("/v2/tasks/<request_id>")
    async def cancel_task(request_id: str) -> Response:
        worker = tasks.cancel(request_id)
        if worker is not None:
            url, key = worker
            try:
                async with http_client.connect(url, key) as client:
                    await http_client.call(client, "DELETE", f"{worker_wire.INFERENCE}/{request_id}", bytes)
            except RbeeError:
                pass  # a worker that does not answer generates for nobody
        return empty(204)
