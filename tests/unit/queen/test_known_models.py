"""Which models the queen knows of: those of all nodes, once each, with where they are and what their headers say."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio

from rbee.errors import ConnectionTimeoutError, ModelNotFoundError
from rbee.queen.api.models import Meant
from rbee.queen.nodes.known_models import FRESH_SECONDS, KnownModels
from rbee.wire.hive import WorkerRow
from rbee.wire.models import ModelDetails
from tests.kit.standin_node import HEADER, row_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.queen.nodes.nodes import Nodes
    from rbee.wire.common import WorkerState
    from rbee.wire.models import ModelRow

BEE = "builtin:bee-stories"
QWEN = "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M"
OTHER = "hf:other/model:Q8_0"


class KnownNode:
    """A node with these models, whose hive answers after `seconds`, or says that it is not there."""

    def __init__(self, name: str, *rows: ModelRow, seconds: float = 0, is_there: bool = True) -> None:
        self.name = name
        self.rows = list(rows)
        self.seconds = seconds
        self.is_there = is_there
        self.workers: list[WorkerRow] | None = []
        self.asked = 0
        self.described: list[str] = []

    def known_workers(self) -> list[WorkerRow] | None:
        return self.workers

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[KnownNode]:
        if not self.is_there:
            raise ConnectionTimeoutError("not there")
        await trio.sleep(self.seconds)
        yield self

    def ensure_hive(self, report: object) -> object:
        return self.connect()

    async def catalogue(self) -> list[ModelRow]:
        with trio.move_on_after(2):
            if self.is_there:
                async with self.connect():
                    return await self.models()
        return []

    async def models(self) -> list[ModelRow]:
        self.asked += 1
        return self.rows

    async def show_model(self, reference: str) -> ModelDetails:
        self.described.append(reference)
        if reference == OTHER:
            raise ModelNotFoundError("gone meanwhile")
        return ModelDetails(
            model_ref=reference, local_path="/x", size_bytes=1, model=None, header=HEADER, context=len(self.name)
        )


class KnownNodes:
    def __init__(self, *nodes: KnownNode) -> None:
        self._nodes = nodes

    def all(self) -> list[KnownNode]:
        return list(self._nodes)

    def get(self, name: str) -> KnownNode:
        return next(node for node in self._nodes if node.name == name)


def known(nursery: trio.Nursery, *nodes: KnownNode) -> KnownModels:
    return KnownModels(cast("Nodes", KnownNodes(*nodes)), nursery)


def worker(reference: str, state: WorkerState) -> WorkerRow:
    return WorkerRow(
        id="w", url="http://x:1", model_ref=reference, backend="cpu", device=0, state=state, pid=1, slots_total=1,
        slots_available=1,
    )  # fmt: skip


async def test_each_model_is_there_once_with_all_its_nodes(nursery: trio.Nursery, autojump_clock: object) -> None:
    local = KnownNode("local", row_of(QWEN, "qwen"))
    attic = KnownNode("attic", row_of(QWEN, "qwen"), row_of(OTHER, "other"))
    found = await known(nursery, local, attic).all()
    assert [(model.reference, model.nodes) for model in found] == [
        (BEE, ("local",)),
        (QWEN, ("local", "attic")),
        (OTHER, ("attic",)),
    ]


async def test_a_node_that_does_not_answer_costs_a_moment_and_no_more(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    models = known(
        nursery,
        KnownNode("local"),
        KnownNode("slow", row_of(QWEN, "qwen"), seconds=100),
        KnownNode("off", is_there=False),
        KnownNode("attic", row_of(OTHER, "other")),
    )
    before = trio.current_time()
    assert [model.reference for model in await models.all()] == [BEE, OTHER]
    assert trio.current_time() - before <= 2


async def test_what_a_worker_has_loaded_is_told_also_of_a_file_that_is_in_no_catalogue(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    local, attic = KnownNode("local", row_of(QWEN, "qwen")), KnownNode("attic")
    local.workers = [worker(QWEN, "loading"), worker("file:/bee.gguf", "busy")]
    attic.workers = [worker("hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF", "idle"), worker(BEE, "idle")]
    assert [(model.reference, model.nodes, model.loaded) for model in await known(nursery, local, attic).all()] == [
        (BEE, ("local", "attic"), ("attic",)),
        (QWEN, ("local", "attic"), ("attic",)),
        ("file:/bee.gguf", ("local",), ("local",)),
    ]


async def test_the_nodes_are_asked_again_where_it_matters(nursery: trio.Nursery, autojump_clock: object) -> None:
    node = KnownNode("local")
    models = known(nursery, node)
    await models.all()
    models.found["x"] = Meant(BEE)
    await models.all()
    assert (node.asked, models.found) == (1, {"x": Meant(BEE)})
    await models.all(fresh=True)
    assert (node.asked, models.found) == (2, {})


async def test_nobody_waits_for_a_list_that_is_a_minute_old(nursery: trio.Nursery, autojump_clock: object) -> None:
    node = KnownNode("local")
    models = known(nursery, node)
    await models.all()
    node.rows, node.seconds = [row_of(QWEN, "qwen")], 1
    await trio.sleep(FRESH_SECONDS)
    before = trio.current_time()
    for _ in range(3):
        assert [model.reference for model in await models.all()] == [BEE]
    assert trio.current_time() == before
    await trio.sleep(2)
    assert [model.reference for model in await models.all()] == [BEE, QWEN]
    assert node.asked == 2


async def test_headers_are_read_once_and_from_another_node_where_one_does_not_say(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    local = KnownNode("local", row_of(QWEN, "qwen"), is_there=False)
    attic = KnownNode("attic", row_of(QWEN, "qwen"), row_of(OTHER, "other"))
    models = known(nursery, local, attic)
    local.is_there = True
    found = await models.all()
    local.is_there = False
    for _ in range(2):
        described = await models.described(found)
    assert [(model.reference, model.context) for model in described] == [(BEE, None), (QWEN, 5), (OTHER, None)]
    assert attic.described.count(QWEN) == 1


async def test_headers_that_take_long_are_left_out(nursery: trio.Nursery, autojump_clock: object) -> None:
    node = KnownNode("local", row_of(QWEN, "qwen"))
    models = known(nursery, node)
    found = await models.all()
    node.seconds = 100
    before = trio.current_time()
    assert [model.header for model in await models.described(found)] == [None, None]
    assert trio.current_time() - before == pytest.approx(5)
