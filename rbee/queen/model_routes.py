"""The queen's HTTP interface to the models of all nodes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio
from quart import Response, request

from rbee.adapters import sse
from rbee.adapters.app import answer, body, streamed, wants_stream
from rbee.errors import RbeeError
from rbee.wire import model_ref
from rbee.wire import models as wire
from rbee.wire.decode import convert
from rbee.wire.queen import LOCAL_NODE, NodeQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    from quart_trio import QuartTrio

    from rbee.adapters.config import Settings
    from rbee.queen.node import Node
    from rbee.queen.nodes import Nodes
    from rbee.wire.progress import Told


def add(app: QuartTrio, nodes: Nodes, settings: Settings, nursery: trio.Nursery) -> None:
    """Add the routes; streams are fed by tasks in `nursery`."""

    def chosen(name: str | None) -> Node:
        return nodes.get(name or settings.defaults.node or LOCAL_NODE)

    @app.get(wire.SWARM_LIST)
    async def list_models() -> Response:
        if (name := request.args.get("node")) is not None:
            convert({"node": name}, NodeQuery)
            async with nodes.get(name).visit(_unheard) as hive:
                return answer(wire.SwarmModels(nodes=[wire.NodeModels(node=name, models=await hive.models())]))
        found: dict[str, wire.NodeModels] = {}
        async with trio.open_nursery() as asking:
            for node in nodes.all():
                asking.start_soon(_ask, node, found)
        return answer(wire.SwarmModels(nodes=[found[node.name] for node in nodes.all() if node.name in found]))

    @app.get(wire.SWARM_SHOW)
    async def show_model() -> Response:
        asked = convert(dict(request.args), wire.NodeModel)
        async with chosen(asked.node).visit(_unheard) as hive:
            return answer(await hive.show_model(asked.model_ref))

    @app.post(wire.SWARM_PULL)
    async def pull_model() -> Response:
        asked = await body(wire.NodeModel)
        ref = model_ref.parse(asked.model_ref)
        node = chosen(asked.node)
        if not wants_stream():
            return answer(await _pull(node, str(ref), _unheard))

        async def produce(send: sse.Send) -> None:
            await sse.narrated(send, partial(_pull, node, str(ref)), "model")

        return streamed(nursery, produce, heartbeat=settings.timeouts.heartbeat)

    @app.post(wire.SWARM_REMOVE)
    async def remove_model() -> Response:
        asked = await body(wire.NodeModelId)
        node = chosen(asked.node)
        async with node.visit(_unheard) as hive:
            row = next((row for row in await hive.models() if row.id == asked.id), None)
            await hive.remove_model(asked.id)
        return answer(wire.Removed(id=asked.id, node=node.name, freed_bytes=row.size_bytes if row else 0))


async def _pull(node: Node, reference: str, tell: Callable[[Told], None]) -> wire.ModelRow:
    try:
        async with node.visit(tell) as hive:
            return await hive.pull(reference, tell)
    except RbeeError as exc:
        exc.details.setdefault("node", node.name)
        raise


async def _ask(node: Node, found: dict[str, wire.NodeModels]) -> None:
    """Ask one node for its models; the queen's own host is woken for that, the others are not."""
    rows: list[wire.ModelRow] = []
    said: str | None = None
    try:
        async with node.visit(_unheard) if node.name == LOCAL_NODE else node.reached() as hive:
            rows = await hive.models()
    except RbeeError as exc:
        said = exc.message
    found[node.name] = wire.NodeModels(node=node.name, models=rows, error=said)


def _unheard(_: Told) -> None:
    pass
