"""The queen's HTTP interface to the swarm: its state, its events, and the workers of all nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import request

from rbee.adapters.http.app import answer, body
from rbee.queen.nodes.survey import end_worker, status_of, workers_of
from rbee.wire import queen as wire
from rbee.wire.decode import convert
from rbee.wire.events import EVENTS

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.queen.nodes.node import Node
    from rbee.queen.routes.context import QueenContext


def add(app: QuartTrio, context: QueenContext) -> None:
    nodes = context.nodes

    def chosen() -> list[Node]:
        if (name := request.args.get("node")) is None:
            return nodes.all()
        return [nodes.get(convert({"node": name}, wire.NodeQuery).node)]

    @app.get(wire.STATUS)
    async def status() -> Response:
        return answer(await status_of(chosen(), nodes.feed.downloads()))

    @app.get(EVENTS)
    async def events() -> Response:
        return context.stream(nodes.feed.follow)

    @app.get(wire.WORKERS_LIST)
    async def list_workers() -> Response:
        return answer(await workers_of(chosen()))

    @app.get(wire.WORKERS_HEALTH)
    async def workers_health() -> Response:
        node = chosen()[0]  # `local` comes first
        found = await node.workers()
        workers = [
            wire.WorkerHealth(worker_id=row.id, state=row.state, ready=row.state in ("idle", "busy"))
            for row in (found.workers if found else [])
        ]
        return answer(wire.NodeHealth(status="unreachable" if found is None else "alive", workers=workers))

    @app.post(wire.WORKERS_SHUTDOWN)
    async def shut_down() -> Response:
        asked = await body(wire.WorkerShutdown)

        async def work(_: object) -> wire.WorkerEnding:
            return await end_worker(nodes.all(), asked.worker_id)

        return await context.respond(work, "success")
