"""The queen's HTTP interface to what became of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import request

from rbee.adapters.http.app import answer, wants_stream
from rbee.wire.administration import requests as wire
from rbee.wire.decode import convert

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.adapters.http.sse_server import Send
    from rbee.queen.routes.context import QueenContext


def add(app: QuartTrio, context: QueenContext) -> None:
    history = context.history

    @app.get(wire.REQUESTS)
    async def list_requests() -> Response:
        query = convert(request.args.to_dict(), wire.RequestQuery)
        if not wants_stream() and not query.follow:
            return answer(wire.RequestList(requests=await history.last(query.lines)))

        async def produce(send: Send) -> None:
            await history.follow(query, send)

        return context.stream(produce)

    @app.get("/v2/requests/<request_id>")
    async def show_story(request_id: str) -> Response:
        return answer(await history.find(request_id))
