"""The hive's HTTP interface."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio
from quart import Request, Response, request

from rbee import __version__
from rbee.adapters import tokens
from rbee.adapters.hardware import inventory
from rbee.adapters.http import metrics
from rbee.adapters.http.app import answer, body, check_key, empty, new_app, proof, with_keys
from rbee.hive.routes import events as event_routes
from rbee.hive.routes import logs as log_routes
from rbee.hive.routes import models as model_routes
from rbee.wire import addresses
from rbee.wire import hive as wire
from rbee.wire.common import API_VERSION, Health
from rbee.wire.model_copy import CONTENT

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from rbee.hive.routes.context import HiveContext


def build(context: HiveContext) -> QuartTrio:
    workers, token = context.workers, context.token

    def keys(incoming: Request) -> list[str]:
        if incoming.path == wire.WORKERS_READY:
            # A worker knows only its own key, with which it calls back.
            return [token, *(tokens.worker_key(token, worker_id) for worker_id in workers.pool.workers)]
        if incoming.path.startswith(CONTENT):
            return [token, tokens.content_key(token, incoming.path.removeprefix(CONTENT))]
        return [token]

    app = new_app("rbee-hive", with_keys(keys, {wire.HEALTH}))
    alive = Health(
        status="alive",
        version=__version__,
        api_version=API_VERSION,
        started_by=context.started_by,
        hive_id=context.hive_id or None,
        swarm=tokens.swarm_id(token),
        everywhere=addresses.is_unspecified(context.settings.hive.host),
    )

    @app.get(wire.HEALTH)
    async def health() -> Response:
        return answer(msgspec.structs.replace(alive, proof=proof(token, "hive")))

    @app.post(wire.WORKERS_SPAWN)
    async def spawn() -> Response:
        wanted = await body(wire.SpawnRequest)
        wanted.reference()
        return await context.respond(partial(workers.spawn, wanted), "worker")

    @app.post(wire.WORKERS_READY)
    async def ready() -> Response:
        callback = await body(wire.ReadyCallback)
        check_key(request, [token, tokens.worker_key(token, callback.worker_id)])
        await workers.called_back(callback)
        return answer({"acknowledged": True})

    @app.get(wire.WORKERS_LIST)
    async def list_workers() -> Response:
        await workers.check_files()
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
        memory = workers.pool.memory(inventory.memory())
        return answer(wire.Resources(memory=memory, disk=inventory.disk(context.settings.paths.models)))

    @app.post(wire.SHUTDOWN)
    async def shutdown() -> Response:
        context.stop()
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

    for routes in (model_routes, event_routes, log_routes):
        routes.add(app, context)
    return app
