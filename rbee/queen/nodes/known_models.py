"""Knows which models there are in the swarm: asks the nodes, each for a bounded time, and remembers what they said."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from rbee.concurrency.contained import contained
from rbee.errors import RbeeError
from rbee.queen.api.models import KnownModel, known_by
from rbee.wire import model_ref
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.queen.api.models import Meant
    from rbee.queen.nodes.node import Node
    from rbee.queen.nodes.nodes import Nodes
    from rbee.wire.gguf import ModelHeader
    from rbee.wire.models import ModelRow

log = logging.getLogger(__name__)

FRESH_SECONDS: Final = 60.0
"""After which the nodes are asked again, when a name is looked for; where one is not found they are asked at once."""
DESCRIBING_SECONDS: Final = 5.0
"""For reading headers, half a second each; those that are not read by then are with the next question."""
READERS: Final = 4
_PLACED: Final = frozenset({"idle", "busy"})


class _Described(NamedTuple):
    header: ModelHeader
    context: int | None


class KnownModels:
    """The models of a swarm, the bundled one first."""

    def __init__(self, nodes: Nodes, nursery: trio.Nursery) -> None:
        self._nodes = nodes
        self._nursery = nursery
        self._models: list[KnownModel] | None = None
        self._asked_at = 0.0
        self._described: dict[tuple[str, str, float], _Described] = {}
        self.found: dict[str, Meant] = {}
        """What was found by its name since the nodes were asked; looking for one among fifty models takes 0.3 ms."""

    async def all(self, *, fresh: bool = False) -> list[KnownModel]:
        """Return all models, as they were when the nodes were asked last or, where that is wanted, as they are now.

        They are asked again, and nobody waits for it, where that is more than FRESH_SECONDS ago.
        """
        if fresh or self._models is None:
            return await self._refresh()
        if trio.current_time() - self._asked_at >= FRESH_SECONDS:
            self._asked_at = trio.current_time()  # one who asks is enough
            self._nursery.start_soon(self._refresh_later)
        return self._models

    async def _refresh(self) -> list[KnownModel]:
        self._models = models = await self._ask()
        self._asked_at = trio.current_time()
        self.found.clear()
        return models

    async def _refresh_later(self) -> None:
        with contained("asking the nodes for their models"):
            await self._refresh()

    async def described(self, models: Sequence[KnownModel]) -> list[KnownModel]:
        """Return models with what their headers say, as far as that is found out in DESCRIBING_SECONDS."""
        limiter = trio.CapacityLimiter(READERS)

        async def read(model: KnownModel) -> None:
            async with limiter:
                await self._describe(model)

        with trio.move_on_after(DESCRIBING_SECONDS):
            async with trio.open_nursery() as nursery:
                for model in models:
                    if self._known_description(model) is None:
                        nursery.start_soon(read, model)
        return [self._with_description(model) for model in models]

    async def _ask(self) -> list[KnownModel]:
        rows: dict[str, list[ModelRow]] = {}
        nodes = self._nodes.all()
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(_ask_node, node, rows)
        found = [KnownModel(model_ref.BUILTIN, model_ref.BUILTIN.partition(":")[2], (LOCAL_NODE,))]
        by_reference: defaultdict[str, list[tuple[str, ModelRow]]] = defaultdict(list)
        for node in nodes:
            for row in rows.get(node.name, ()):
                by_reference[row.model_ref].append((node.name, row))
        found += [_model(reference, places) for reference, places in by_reference.items()]
        for node in nodes:
            for worker in node.known_workers() or ():
                _note_loaded(found, worker.model_ref, node.name, is_placed=worker.state in _PLACED)
        return found

    async def _describe(self, model: KnownModel) -> None:
        for name in model.nodes:
            try:
                async with self._nodes.get(name).connect() as hive:
                    details = await hive.show_model(model.reference)
            except RbeeError as exc:
                log.info("%s does not describe %s: %s", name, model.reference, exc.message)
                continue
            self._described[_key(model)] = _Described(details.header, details.context)
            return

    def _known_description(self, model: KnownModel) -> _Described | None:
        return self._described.get(_key(model))

    def _with_description(self, model: KnownModel) -> KnownModel:
        if (found := self._known_description(model)) is None:
            return model
        return model._replace(header=found.header, context=found.context)


def _key(model: KnownModel) -> tuple[str, str, float]:
    """Return what a description is remembered by; a model that is fetched again has another time."""
    return model.reference, model.nodes[0] if model.nodes else "", model.created


async def _ask_node(node: Node, rows: dict[str, list[ModelRow]]) -> None:
    """Note the models of a node; the hive of the queen's own host is started for it."""
    if node.name != LOCAL_NODE:
        rows[node.name] = await node.catalogue()
        return
    try:
        async with node.ensure_hive(lambda _: None) as hive:
            rows[node.name] = await hive.models()
    except RbeeError as exc:
        log.info("%s does not say which models it has: %s", node.name, exc.message)


def _model(reference: str, places: Sequence[tuple[str, ModelRow]]) -> KnownModel:
    first = places[0][1]
    return KnownModel(
        reference=reference,
        id=first.id,
        nodes=tuple(name for name, _ in places),
        created=first.downloaded_at_unix,
        size=first.size_bytes,
    )


def _note_loaded(found: list[KnownModel], reference: str, node: str, *, is_placed: bool) -> None:
    """Note that a worker has a model, or loads it; a user's own file is in no catalogue."""
    model = known_by(reference, found) or known_by(reference.removeprefix("hf:"), found)
    if model is None:
        found.append(model := KnownModel(reference, nodes=(node,)))
    nodes = model.nodes if node in model.nodes else (*model.nodes, node)
    loaded = (*model.loaded, node) if is_placed and node not in model.loaded else model.loaded
    found[found.index(model)] = model._replace(nodes=nodes, loaded=loaded)
