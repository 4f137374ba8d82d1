"""The hive's HTTP interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import trio
from quart import Request, Response, request

from rbee import __version__
from rbee.adapters import tokens
from rbee.adapters.hardware import inventory
from rbee.adapters.http import metrics, sse_server
from rbee.adapters.http.app import answer, body, check_key, empty, new_app, streamed, wants_stream
from rbee.hive.routes import logs as log_routes
from rbee.wire import hive as wire
from rbee.wire.common import API_VERSION, Health
from rbee.wire.model_copy import CONTENT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from quart_trio import QuartTrio

    from rbee.hive.workers.supervisor import WorkerSupervisor


def build(
    workers: WorkerSupervisor,
    token: str,
    models_dir: Path,
    logs_dir: Path,
    nursery: trio.Nursery,
    stop: Callable[[], None],
    *,
    started_by: Literal["user", "queen"] = "user",
    hive_id: str = "",
    heartbeat: float = 10.0,
) -> QuartTrio:
    """Return the application; streams are fed by tasks in `nursery`, `stop` begins the hive's end."""

    def keys(incoming: Request) -> list[str]:
        if incoming.path == wire.WORKERS_READY:
            # A worker knows only its own key, with which it calls back.
            return [token, *workers.keys()]
        if incoming.path.startswith(CONTENT):
            return [token, tokens.content_key(token, incoming.path.removeprefix(CONTENT))]
        return [token]

    app = new_app("rbee-hive", keys, {wire.HEALTH})
    alive = Health(
        status="alive",
        version=__version__,
        api_version=API_VERSION,
        started_by=started_by,
        hive_id=hive_id or None,
        swarm=tokens.swarm_id(token),
    )

    @app.get(wire.HEALTH)
    async def health() -> Response:
        return answer(alive)

    @app.post(wire.WORKERS_SPAWN)
    async def spawn() -> Response:
        wanted = await body(wire.SpawnRequest)
        wanted.reference()
        if not wants_stream():
            return answer(await workers.spawn(wanted, lambda _: None))

        async def produce(send: sse_server.Send) -> None:
            await sse_server.with_progress_and_result(send, lambda report: workers.spawn(wanted, report), "worker")

        return streamed(nursery, produce, heartbeat=heartbeat)

    @app.post(wire.WORKERS_READY)
    async def ready() -> Response:
        callback = await body(wire.ReadyCallback)
        check_key(request, [token, workers.key_of(callback.worker_id)])
        await workers.called_back(callback)
        return answer({"acknowledged": True})

    @app.get(wire.WORKERS_LIST)
    async def list_workers() -> Response:
        return answer(workers.view())

    @app.delete("/v1/workers/<worker_id>")
    async def end_worker(worker_id: str) -> Response:
        await workers.end_worker(worker_id)
        return empty(202)

    @app.get(wire.BACKENDS)
    async def backends() -> Response:
        return answer(wire.BackendList(backends=await trio.to_thread.run_sync(inventory.backends)))

    @app.get(wire.RESOURCES)
    async def resources() -> Response:
        return answer(wire.Resources(memory=inventory.memory(), disk=inventory.disk(models_dir)))

    @app.post(wire.SHUTDOWN)
    async def shutdown() -> Response:
        stop()
        return empty(202)

    @app.get(metrics.PATH)
    async def exposition() -> Response:
        rows = workers.view().workers
        return Response(
            metrics.render(
                metrics.Gauge("rbee_workers", "Workers by state", "state", metrics.count(row.state for row in rows)),
                metrics.Gauge(
                    "rbee_slots_available", "Free slots", None, {"": sum(row.slots_available for row in rows)}
                ),
            ),
            content_type=metrics.CONTENT_TYPE,
        )

    log_routes.add(app, logs_dir, nursery, heartbeat=heartbeat)
    return app
