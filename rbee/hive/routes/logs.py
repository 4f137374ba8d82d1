"""The hive's HTTP interface to the logs of its node."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from quart import request

from rbee.adapters.http import sse_server
from rbee.adapters.logs import node_logs
from rbee.errors import WorkerNotFoundError
from rbee.wire import logs as wire
from rbee.wire.decode import convert

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.hive.routes.context import HiveContext


def add(app: QuartTrio, context: HiveContext) -> None:
    folder = context.settings.logs_dir

    def stream(query: wire.LogQuery, only: str | None = None) -> Response:
        return context.stream(lambda send: node_logs.read(folder, query, partial(_send, send), only=only))

    @app.get(wire.HIVE_LOGS)
    async def logs() -> Response:
        return stream(convert(request.args.to_dict(), wire.LogQuery))

    @app.get("/v1/workers/<worker_id>/log")
    async def worker_log(worker_id: str) -> Response:
        query = convert(request.args.to_dict(), wire.LogQuery)
        if (name := node_logs.worker_log(folder, worker_id)) is None:
            raise WorkerNotFoundError("there is no log of a worker of this id here")
        return stream(query, name)


async def _send(send: sse_server.Send, lines: list[wire.LogLine]) -> None:
    if lines:
        await send.send(b"".join(map(sse_server.event, lines)))
