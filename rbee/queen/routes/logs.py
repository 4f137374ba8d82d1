"""The queen's HTTP interface to the logs of its nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quart import request

from rbee.adapters.daemon import instance
from rbee.adapters.http import sse_client, sse_server
from rbee.adapters.logs import node_logs
from rbee.errors import ConnectionTimeoutError, RbeeError
from rbee.wire import logs as wire
from rbee.wire.decode import convert
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.adapters.config import Settings
    from rbee.queen.nodes.node import Node
    from rbee.queen.routes.context import QueenContext


def add(app: QuartTrio, context: QueenContext) -> None:
    nodes, settings = context.nodes, context.settings

    @app.get(wire.QUEEN_LOGS)
    async def logs() -> Response:
        query = convert(request.args.to_dict(), wire.NodeLogQuery)
        node = nodes.get(query.node)

        async def produce(send: sse_server.Send) -> None:
            if await _are_here(node, settings):
                await _read(query, settings, send)
            else:
                await _pass_on(node, query, send)

        return context.stream(produce)


async def _are_here(node: Node, settings: Settings) -> bool:
    """Return whether the node's logs are in our own folder: those of `local`, also when its hive does not run.

    Not those of a hive of this host that belongs to another state folder.
    """
    if node.name != LOCAL_NODE:
        return False
    if instance.find(settings.state_dir, "hive") is not None:
        return True
    try:
        async with node.connect():
            return False
    except RbeeError:
        return True


async def _read(query: wire.LogQuery, settings: Settings, send: sse_server.Send) -> None:
    async def send_lines(lines: list[wire.LogLine]) -> None:
        if lines:
            await send.send(b"".join(map(sse_server.event, lines)))

    await node_logs.read(settings.logs_dir, query, send_lines, with_queen=True)


async def _pass_on(node: Node, query: wire.LogQuery, send: sse_server.Send) -> None:
    try:
        async with node.connect() as hive, hive.logs(query) as events:
            async for event in events:
                # Decoded and encoded again: another machine may send anything, and only lines are passed on.
                await send.send(sse_server.event(sse_client.decode_event(event.data, wire.LogLine)))
    except sse_client.StreamLostError as exc:
        raise ConnectionTimeoutError(
            f"the hive on {node.name} was lost while its logs were read",
            hint=f"`rbee workers health --node {node.name}` shows whether it answers again",
            node=node.name,
        ) from exc
