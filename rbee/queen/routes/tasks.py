"""The queen's HTTP interface to requests: placing them, relaying their answers, cancelling them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from quart import request

from rbee.adapters.http import sse_server
from rbee.adapters.http.app import answer, client_connection, empty, wants_stream
from rbee.clients.worker import WorkerClient
from rbee.errors import DrainingError, RbeeError
from rbee.queen.requests.caller import Caller, preferences, says_batch, session_of, turn_of
from rbee.queen.requests.events import Generated
from rbee.queen.requests.request import InferenceRun, check, check_line
from rbee.queen.requests.why_ended import why_ended
from rbee.queen.routes import dialect, request_log
from rbee.wire import model_ref
from rbee.wire import queen as wire
from rbee.wire import worker as worker_wire
from rbee.wire.common import KEEP_HEADER
from rbee.wire.decode import decode, keep_seconds
from rbee.wire.error_body import to_body

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.queen.requests.events import RunEvent
    from rbee.queen.requests.record import RequestRecord
    from rbee.queen.requests.tracker import TrackedRequest
    from rbee.queen.routes.context import QueenContext


def add(app: QuartTrio, context: QueenContext) -> None:
    tracker, settings = context.tracker, context.settings

    @app.post(wire.TASKS)
    async def start_task() -> Response:
        task = decode(await dialect.generation_body(), wire.TaskRequest)
        if context.stopping.asked.is_set():
            raise DrainingError("the queen is shutting down and takes no new tasks")
        task.request_id = request_id = task.request_id or str(uuid.uuid4())
        await dialect.name_model(context, task)
        check(task, context.nodes, settings)
        headers = {worker_wire.REQUEST_ID_HEADER: request_id}
        client = client_connection()
        is_relay_welcome, unreached = preferences(request.headers.get(wire.PREFER, ""))
        keep = keep_seconds(request.headers.get(KEEP_HEADER))
        record = request_log.current()
        who = turn_of(record.identity, request.headers.get)
        is_late = says_batch(request.headers.get)
        salt = record.identity.salt
        session = session_of(request.headers.get)
        caller = Caller(
            client.peer_host, client.own_host, unreached, is_relay_welcome, keep, who, is_late, salt, session
        )

        if task.worker_id is None:
            check_line(task, context.nodes, settings, who)  # once a stream has begun, nothing has a status any more

        def run(tracked: TrackedRequest) -> InferenceRun:
            return InferenceRun(
                task, tracked, context.nodes, settings, context.token, context.connections, caller=caller
            )

        record.request_id, record.model = request_id, task.model or settings.defaults.model or model_ref.BUILTIN
        if not wants_stream() and not task.relay:
            with context.track(request_id, record.identity) as tracked:
                handle = await run(tracked).place(record.reporting(lambda _: None))
            record.on_placed(handle)
            record.is_stream = True
            context.requests.on_placed(record)
            response = answer(handle)
            response.headers.update(headers)
            return response

        async def produce(send: sse_server.Send) -> None:
            with context.track(request_id, record.identity) as tracked:
                await run(tracked).run(record.reporting(send.report), TaskStream(send, record, context), client)

        def is_over(record: RequestRecord) -> None:
            if record.placed is None:
                context.requests.write(record)
            elif record.relayed:
                context.nursery.start_soon(context.requests.finish, record)

        limits = settings.timeouts
        # Whether a client is lost shows only when it is sent something.
        may_relay = task.relay or is_relay_welcome
        heartbeat = min(limits.heartbeat, limits.silent / 2) if may_relay else limits.heartbeat
        return context.stream(request_log.watched(produce, record, is_over), heartbeat=heartbeat, headers=headers)

    @app.delete("/v2/tasks/<request_id>")
    async def cancel_task(request_id: str) -> Response:
        worker = tracker.cancel(request_id)
        if worker is not None:
            try:
                async with WorkerClient(worker.url, worker.key) as client:
                    await client.cancel(request_id)
            except RbeeError:
                pass  # a worker that does not answer generates for nobody
        return empty(204)

    @app.get("/v2/tasks/<request_id>/failure")
    async def explain_failure(request_id: str) -> Response:
        failure = wire.TaskFailure()
        if (worker := tracker.worker_of(request_id)) is not None:
            error = await why_ended(context.nodes.get(worker.node), worker.worker_id)
            failure.error = None if error is None else to_body(error)["error"]
        return answer(failure)


class TaskStream:
    """Takes the events of a run as the stream of a task."""

    def __init__(self, send: sse_server.Send, record: RequestRecord, context: QueenContext) -> None:
        self._send = send
        self._record = record
        self._context = context

    @property
    def has_room(self) -> bool:
        return self._send.has_room

    async def wait_for_room(self) -> None:
        await self._send.wait_for_room()

    def take(self, event: RunEvent) -> None:
        self._record.on_event(event)
        if isinstance(event, wire.TaskHandle):
            self._context.requests.on_placed(self._record)
        self._send.add(encode(event))


def encode(event: RunEvent) -> bytes:
    """Return an event of a run as the stream of a task has it; what the worker generates is passed on as it came."""
    if isinstance(event, Generated):
        return sse_server.event_from_json(event.data, event.name)
    return sse_server.event(event, "worker")
