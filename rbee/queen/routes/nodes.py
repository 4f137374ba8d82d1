"""The queen's HTTP interface to its registry of nodes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rbee.adapters.http.app import answer, body
from rbee.errors import NodeExistsError
from rbee.queen.nodes.registration import Registration
from rbee.wire import registry as wire
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio

    from rbee.queen.routes.context import QueenContext


def add(app: QuartTrio, context: QueenContext) -> None:
    nodes, registry = context.nodes, context.registry
    registration = Registration(nodes, registry, context.settings)

    @app.post(wire.ADD)
    async def add_node() -> Response:
        asked = await body(wire.Beehive)
        if asked.node_name == LOCAL_NODE:
            raise NodeExistsError(
                f"node {LOCAL_NODE} is the queen's own host; it needs no registration", node=LOCAL_NODE
            )
        await registry.check_free(asked.node_name)
        return await context.respond(partial(registration.add, asked), "success")

    @app.post(wire.UPDATE)
    async def update_node() -> Response:
        asked = await body(wire.Beehive)
        nodes.remote(asked.node_name)  # raises where there is none
        return await context.respond(partial(registration.update, asked), "success")

    @app.get(wire.LIST)
    async def list_nodes() -> Response:
        return answer(wire.BeehiveList(nodes=await registry.rows()))

    @app.post(wire.REMOVE)
    async def remove_node() -> Response:
        name = (await body(wire.NodeName)).node_name
        nodes.remote(name, to_remove=True)  # raises where there is none
        return await context.respond(partial(registration.remove, name), "success")

    @app.post(wire.INSTALL)
    async def install() -> Response:
        asked = await body(wire.InstallRequest)
        hive = nodes.remote(asked.node_name)
        return context.stream_progress(partial(hive.install, asked), "success")
