"""The queen's HTTP interface."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio
from quart import Response, request

from rbee import __version__
from rbee.adapters import http, metrics, sse, tokens
from rbee.adapters.app import answer, body, empty, new_app, streamed, wants_stream
from rbee.errors import AllSlotsBusyError, DrainingError, RbeeError, WorkerFailedError
from rbee.queen import log_routes, model_routes, registry_routes
from rbee.queen.endings import explained
from rbee.queen.placement import Wanted
from rbee.queen.relay import relay
from rbee.queen.swarm import workers_of
from rbee.wire import model_ref
from rbee.wire import queen as wire
from rbee.wire import worker as worker_wire
from rbee.wire.decode import convert

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from quart_trio import QuartTrio

    from rbee.adapters.config import Settings
    from rbee.adapters.lifecycle import Stopping
    from rbee.queen.node import Node
    from rbee.queen.nodes import Nodes
    from rbee.queen.registry import Registry
    from rbee.queen.tasks import Task, Tasks
    from rbee.wire.progress import Told

    Tell = Callable[[Told], None]


def build(
    nodes: Nodes,
    registry: Registry,
    tasks: Tasks,
    settings: Settings,
    token: str,
    nursery: trio.Nursery,
    stopping: Stopping,
) -> QuartTrio:
    """Return the application; streams are fed by tasks in `nursery`."""
    app = new_app("queen-rbee", lambda _: [token], {wire.HEALTH})

    def node_named(name: str) -> Node:
        convert({"node": name}, wire.NodeQuery)
        return nodes.get(name)

    async def place(task: wire.TaskRequest, wanted: Wanted, tell: Tell) -> wire.TaskHandle:
        node = node_named(task.node or settings.defaults.node or wire.LOCAL_NODE)
        placed = await node.place(wanted, tell, task.wait_s)
        return wire.TaskHandle(
            request_id=task.request_id or "",
            node=node.name,
            worker_id=placed.worker_id,
            worker_url=placed.url,
            api_key=tokens.worker_key(token, placed.worker_id),
            state=placed.state,
            direct=node.is_direct,
        )

    @app.get(wire.HEALTH)
    async def health() -> Response:
        return answer(wire.QueenHealth(status="ok", version=__version__))

    @app.post(wire.TASKS)
    async def start_task() -> Response:
        task = await body(wire.TaskRequest)
        if stopping.asked.is_set():
            raise DrainingError("the queen is shutting down and takes no new tasks")
        task.request_id = request_id = task.request_id or str(uuid.uuid4())
        ref = model_ref.parse(task.model or settings.defaults.model or model_ref.BUILTIN)
        wanted = Wanted(str(ref), task.backend, task.device)
        node_named(task.node or settings.defaults.node or wire.LOCAL_NODE)

        async def run(tracked: Task, tell: Tell) -> wire.TaskHandle:
            handle = await place(task, wanted, tell)
            tracked.worker = (nodes.get(handle.node).reach(handle.worker_url), handle.api_key)
            return handle

        headers = {worker_wire.REQUEST_ID_HEADER: request_id}
        if not wants_stream() and not task.relay:
            with tasks.track(request_id) as tracked:
                handle = await run(tracked, lambda _: None)
            response = answer(handle)
            response.headers.update(headers)
            return response

        async def serve(send: sse.Send, place: Callable[[Tell], Awaitable[wire.TaskHandle]]) -> None:
            patient_until = trio.current_time() + task.wait_s
            while True:
                handle = await sse.narrated(send, place, "worker")
                try:
                    if task.relay:
                        inside = nodes.get(handle.node).reach(handle.worker_url)
                        await relay(send, task, msgspec.structs.replace(handle, worker_url=inside), settings.timeouts)
                except AllSlotsBusyError:
                    # Someone who did not ask the queen was faster.
                    if trio.current_time() >= patient_until:
                        raise
                except WorkerFailedError as exc:
                    raise await explained(exc, nodes.get(handle.node), handle.worker_id) from exc
                else:
                    return

        async def produce(send: sse.Send) -> None:
            with tasks.track(request_id) as tracked:
                # Within: while the model loads, the worker does not know yet that there is anything to cancel.
                await serve(send, partial(run, tracked))

        return streamed(nursery, produce, heartbeat=settings.timeouts.heartbeat, headers=headers)

    @app.delete("/v2/tasks/<request_id>")
    async def cancel_task(request_id: str) -> Response:
        worker = tasks.cancel(request_id)
        if worker is not None:
            url, key = worker
            try:
                async with http.connect(url, key) as client:
                    await http.call(client, "DELETE", f"{worker_wire.INFERENCE}/{request_id}", bytes)
            except RbeeError:
                pass  # a worker that does not answer generates for nobody
        return empty(204)

    @app.get(wire.WORKERS_LIST)
    async def list_workers() -> Response:
        name = request.args.get("node")
        chosen = [node_named(name)] if name is not None else nodes.all()
        return answer(await workers_of(chosen))

    @app.get(wire.WORKERS_HEALTH)
    async def workers_health() -> Response:
        node = node_named(request.args.get("node", wire.LOCAL_NODE))
        found = await node.workers()
        workers = [
            wire.WorkerHealth(worker_id=row.id, state=row.state, ready=row.state in ("idle", "busy"))
            for row in (found.workers if found else [])
        ]
        return answer(wire.NodeHealth(status="unreachable" if found is None else "alive", workers=workers))

    @app.get(metrics.PATH)
    async def exposition() -> Response:
        workers = (await workers_of(nodes.all())).workers
        return Response(
            metrics.render(
                metrics.Gauge("rbee_nodes", "Known nodes", None, {"": len(nodes.all())}),
                metrics.Gauge("rbee_tasks", "Tasks that are placed, wait or are relayed", None, {"": tasks.running}),
                metrics.Gauge("rbee_workers", "Workers by state", "state", metrics.count(row.state for row in workers)),
            ),
            content_type=metrics.CONTENT_TYPE,
        )

    log_routes.add(app, nodes, settings, nursery)
    model_routes.add(app, nodes, settings, nursery)
    registry_routes.add(app, nodes, registry, settings, nursery)
    return app
