"""The queen's HTTP interface, put together from its parts."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import msgspec
import trio
from quart import Response

from rbee import __version__
from rbee.adapters import tokens
from rbee.adapters.http import metrics
from rbee.adapters.http.app import answer, new_app, proof
from rbee.queen.api.openapi import document
from rbee.queen.nodes.survey import workers_of
from rbee.queen.routes import aliases as alias_routes
from rbee.queen.routes import keys as key_routes
from rbee.queen.routes import logs as log_routes
from rbee.queen.routes import models as model_routes
from rbee.queen.routes import nodes as node_routes
from rbee.queen.routes import openai as openai_routes
from rbee.queen.routes import request_log
from rbee.queen.routes import requests as request_routes
from rbee.queen.routes import swarm as swarm_routes
from rbee.queen.routes import tasks as task_routes
from rbee.queen.routes.failures import render
from rbee.queen.routes.guard import AccessGuard
from rbee.wire import queen as wire
from rbee.wire.dialects.openai_request import OPENAPI

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from rbee.queen.routes.context import QueenContext


@cache
def _description() -> bytes:
    return msgspec.json.encode(document(__version__))


def build(context: QueenContext) -> QuartTrio:
    context.own_names.update(name.lower() for name in (context.settings.queen.host, *context.settings.api.hosts))
    access = AccessGuard(context.token, context.keys, context.settings.api, context.own_names, {wire.HEALTH})
    app = new_app("queen-rbee", access.admit, render)
    nodes, tracker = context.nodes, context.tracker
    swarm = tokens.swarm_id(context.token)
    alive = wire.QueenHealth(
        status="ok",
        version=__version__,
        api_version=wire.API_VERSION,
        queen_id=context.queen_id or None,
        swarm=swarm,
    )

    @app.get(wire.HEALTH)
    async def health() -> Response:
        return answer(msgspec.structs.replace(alive, proof=proof(context.token, "queen")))

    @app.get(metrics.PATH)
    async def exposition() -> Response:
        workers = (await workers_of(nodes.all())).workers
        return Response(
            metrics.render(
                metrics.Gauge("rbee_nodes", "Known nodes", None, {"": len(nodes.all())}),
                metrics.Gauge("rbee_tasks", "Tasks that are placed, wait or are relayed", None, {"": tracker.running}),
                metrics.Gauge("rbee_workers", "Workers by state", "state", metrics.count(row.state for row in workers)),
            ),
            content_type=metrics.CONTENT_TYPE,
        )

    @app.get(OPENAPI)
    async def describe() -> Response:
        # Made of a hundred messages, which takes some tenths of a second.
        return Response(await trio.to_thread.run_sync(_description), content_type="application/json")

    access.add(app)
    request_log.add(app, context.requests, context.history, context.keys, context.nursery)
    for routes in (
        openai_routes,
        task_routes,
        key_routes,
        request_routes,
        log_routes,
        alias_routes,
        model_routes,
        swarm_routes,
        node_routes,
    ):
        routes.add(app, context)
    return app
