"""The queen's HTTP interface to the swarm as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import request

from rbee.adapters.http.app import answer, body
from rbee.queen.nodes.survey import end_worker, status_of
from rbee.wire import queen as wire
from rbee.wire.decode import convert
from rbee.wire.events import EVENTS

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.queen.routes.context import RouteContext


def add(app: QuartTrio, context: RouteContext) -> None:
    """Add the routes."""
    nodes = context.nodes

    @app.get(wire.STATUS)
    async def status() -> Response:
        name = request.args.get("node")
        chosen = nodes.all() if name is None else [nodes.get(convert({"node": name}, wire.NodeQuery).node)]
        return answer(await status_of(chosen, nodes.feed.downloads()))

    @app.get(EVENTS)
    async def events() -> Response:
        return context.stream(nodes.feed.follow)

    @app.post(wire.WORKERS_SHUTDOWN)
    async def shut_down() -> Response:
        asked = await body(wire.WorkerShutdown)

        async def work(_: object) -> wire.WorkerEnding:
            return await end_worker(nodes.all(), asked.worker_id)

        return await context.respond(work, "success")
