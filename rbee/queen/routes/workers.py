"""The queen's HTTP interface to the workers of all nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import Response, request

from rbee.adapters.http.app import answer
from rbee.queen.nodes.survey import workers_of
from rbee.wire import queen as wire
from rbee.wire.decode import convert

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from rbee.queen.nodes.node import Node
    from rbee.queen.routes.context import RouteContext


def add(app: QuartTrio, context: RouteContext) -> None:
    """Add the routes."""
    nodes = context.nodes

    def node_named(name: str) -> Node:
        return nodes.get(convert({"node": name}, wire.NodeQuery).node)

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
