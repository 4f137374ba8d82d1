"""The queen's HTTP interface to the models of all nodes."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from quart import Response, request

from rbee.adapters.http.app import answer, body, raw_body
from rbee.errors import InvalidRequestError, MethodNotAllowedError, RbeeError, RouteNotFoundError, VersionMismatchError
from rbee.queen.nodes.node import HiveAbsentError
from rbee.queen.routes import dialect, request_log
from rbee.wire import model_push, model_ref
from rbee.wire import models as wire
from rbee.wire.decode import convert
from rbee.wire.queen import LOCAL_NODE, NodeQuery

if TYPE_CHECKING:
    from quart_trio import QuartTrio

    from rbee.queen.nodes.node import Node
    from rbee.queen.nodes.nodes import Nodes
    from rbee.queen.routes.context import QueenContext
    from rbee.wire.progress import Report


def add(app: QuartTrio, context: QueenContext) -> None:
    nodes = context.nodes

    def chosen(name: str | None) -> Node:
        return nodes.get(name or context.settings.defaults.node or LOCAL_NODE)

    async def named(asked: wire.NodeModel) -> wire.NodeModel:
        """Return the model that is meant where a name is given."""
        if (found := await dialect.of_name(context, asked.model_ref)) is None:
            return asked
        return wire.NodeModel(model_ref=found.reference, node=asked.node or found.node)

    @app.get(wire.SWARM_LIST)
    async def list_models() -> Response:
        name = request.args.get("node")
        if name is None:
            return await context.respond(partial(_all, nodes), "result")
        convert({"node": name}, NodeQuery)
        node = nodes.get(name)

        async def work(report: Report) -> wire.SwarmModels:
            async with node.ensure_hive(report) as hive:
                return wire.SwarmModels(nodes=[wire.NodeModels(node=node.name, models=await hive.models())])

        return await context.respond(work, "result")

    @app.get(wire.SWARM_SHOW)
    async def show_model() -> Response:
        asked = convert(dict(request.args), wire.NodeModel)
        with suppress(InvalidRequestError):  # it may be a part of an id, which hives know
            asked = await named(asked)
        node = chosen(asked.node)

        async def work(report: Report) -> wire.ModelDetails:
            async with node.ensure_hive(report) as hive:
                return await hive.show_model(asked.model_ref)

        return await context.respond(work, "result")

    @app.post(wire.SWARM_PULL)
    async def pull_model() -> Response:
        asked = await named(await body(wire.NodeModel))
        work = partial(_pull, chosen(asked.node), str(model_ref.parse(asked.model_ref)))
        return await context.respond(work, "result")

    @app.post(model_push.SWARM_PUSH)
    async def push_model() -> Response:
        asked = await body(model_push.NodePush)
        model_ref.parse(asked.model_ref)
        record = request_log.current()
        record.model, record.node = asked.model_ref, asked.node
        # A push begins with the question whether there is room, for which no file has been hashed.
        record.is_step = all(file.sha256 is not None for file in asked.files)
        return await context.respond(partial(_announce, chosen(asked.node), asked), "result")

    @app.put(f"{model_push.SWARM_PIECE}<sha256>")
    async def push_piece(sha256: str) -> Response:
        query = convert(dict(request.args), model_push.PieceQuery)
        request_log.current().is_step = True
        data = await raw_body()
        async with chosen(query.node).connect() as hive:
            return answer(await hive.receiver().send(sha256, query.offset, data))

    @app.post(wire.SWARM_REMOVE)
    async def remove_model() -> Response:
        asked = await body(wire.NodeModelId)
        node = chosen(asked.node)

        async def work(report: Report) -> wire.Removed:
            async with node.ensure_hive(report) as hive:
                sizes = {row.id: row.size_bytes for row in await hive.models()}
                await hive.remove_model(asked.id)
            return wire.Removed(id=asked.id, node=node.name, freed_bytes=sizes.get(asked.id, 0))

        return await context.respond(work, "result")


async def _pull(node: Node, reference: str, report: Report) -> wire.ModelRow:
    try:
        async with node.ensure_hive(report) as hive:
            return await hive.pull(reference, await node.find_sources(hive, reference, report), report)
    except RbeeError as exc:
        exc.details.setdefault("node", node.name)
        raise


async def _announce(node: Node, asked: model_push.NodePush, report: Report) -> model_push.PushState:
    announced = model_push.PushRequest(model_ref=asked.model_ref, files=asked.files)
    try:
        async with node.ensure_hive(report) as hive:
            return await hive.receiver().announce(announced, report)
    except (RouteNotFoundError, MethodNotAllowedError) as exc:
        raise VersionMismatchError(
            f"the rbee on {node.name} takes no files yet: it is older than this one",
            hint=f"`rbee setup install --node {node.name}` brings this version there",
            node=node.name,
        ) from exc
    except RbeeError as exc:
        exc.details.setdefault("node", node.name)
        raise


async def _all(nodes: Nodes, report: Report) -> wire.SwarmModels:
    """Ask all nodes at once; hives of other machines are not started for it."""
    models: dict[str, wire.NodeModels] = {}
    everyone = nodes.all()
    async with trio.open_nursery() as nursery:
        for node in everyone:
            nursery.start_soon(_ask, node, report, models)
    return wire.SwarmModels(nodes=[models[node.name] for node in everyone])


async def _ask(node: Node, report: Report, models: dict[str, wire.NodeModels]) -> None:
    rows: list[wire.ModelRow] = []
    error: str | None = None
    try:
        async with node.ensure_hive(report) if node.name == LOCAL_NODE else node.connect() as hive:
            rows = await hive.models()
    except HiveAbsentError as exc:
        error = exc.absence.reason  # as the status gives it; the message names the node again
    except RbeeError as exc:
        error = exc.message
    models[node.name] = wire.NodeModels(node=node.name, models=rows, error=error)
