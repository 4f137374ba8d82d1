"""The queen's HTTP interface to the swarm as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import request

from rbee.adapters.http import sse_server
from rbee.adapters.http.app import answer, body, streamed, wants_stream
from rbee.queen.nodes.survey import end_worker, status_of
from rbee.wire import queen as wire
from rbee.wire.decode import convert
from rbee.wire.events import EVENTS

if TYPE_CHECKING:
    import trio
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.adapters.config import Settings
    from rbee.queen.nodes.nodes import Nodes


def add(app: QuartTrio, nodes: Nodes, settings: Settings, nursery: trio.Nursery) -> None:
    """Add the routes; streams are fed by tasks in `nursery`."""

    @app.get(wire.STATUS)
    async def status() -> Response:
        name = request.args.get("node")
        chosen = nodes.all() if name is None else [nodes.get(convert({"node": name}, wire.NodeQuery).node)]
        return answer(await status_of(chosen, nodes.board.downloads()))

    @app.get(EVENTS)
    async def events() -> Response:
        return streamed(nursery, nodes.board.follow, heartbeat=settings.timeouts.heartbeat)

    @app.post(wire.WORKERS_SHUTDOWN)
    async def shut_down() -> Response:
        asked = await body(wire.WorkerShutdown)

        async def work(_: object = None) -> wire.WorkerEnding:
            return await end_worker(nodes.all(), asked.worker_id)

        if not wants_stream():
            return answer(await work())

        async def produce(send: sse_server.Send) -> None:
            await sse_server.with_progress_and_result(send, work, "success")

        return streamed(nursery, produce, heartbeat=settings.timeouts.heartbeat)
