"""What nobody foresaw in the way to one hive costs the requests that waited for it, and nothing else."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from rbee.adapters.config import Settings
from rbee.errors import InternalError, UnloadFailedError
from rbee.queen.nodes.node import Node
from rbee.queen.nodes.nodes import Nodes
from rbee.queen.registry.identity import HiveIdentities
from rbee.queen.scheduling.choose_worker import Wanted
from rbee.wire.hive import SpawnReply, WorkerList

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rbee.queen.hives.link import HiveLink
    from rbee.queen.registry.table import Registry
    from rbee.wire.hive import HiveEvent

FAILURES = (
    ZeroDivisionError("x"),
    OSError(24, "Too many open files"),
    ExceptionGroup("", [KeyError("x")]),
    MemoryError(),
    RuntimeError("Could not determine home directory."),
)


class Failing:
    """A way to a hive, and the hive, where the step that `at` names fails."""

    is_direct = is_here = True

    def __init__(self, failure: Exception) -> None:
        self.failure = failure
        self.at = ""

    async def _step(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.at == name:
            raise self.failure

    async def run(self) -> None:
        await self._step("run")
        await trio.sleep_forever()

    async def find(self) -> None:
        await self._step("find")

    async def ensure(self, report: object) -> str:
        await self._step("ensure")
        return "http://127.0.0.1:9200"

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[Failing]:
        await self._step("connect")
        yield self
        await self._step("close")

    async def follow(self, on_event: Callable[[HiveEvent], None]) -> None:
        await self._step("follow")
        await trio.sleep_forever()

    async def workers(self) -> WorkerList:
        await self._step("workers")
        return WorkerList(workers=[])

    async def spawn(self, request: object, report: object) -> SpawnReply:
        await self._step("spawn")
        return SpawnReply(worker_id="w", url="http://127.0.0.1:8001", state="loading", api_key="k")

    async def end(self, force: trio.Event) -> None:
        await self._step("end")


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("at", ["ensure", "connect", "close", "workers", "spawn"])
async def test_a_request_fails_alone(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, at: str, failure: Exception
) -> None:
    hive = Failing(failure)
    node = Node("local", cast("HiveLink", hive))
    nursery.start_soon(node.run)
    hive.at = at
    with trio.fail_after(60), pytest.raises(InternalError, match="failed unexpectedly"):
        await node.place(Wanted("a", None, None), lambda _: None)
    hive.at = ""
    with trio.fail_after(60):
        assert (await node.place(Wanted("a", None, None), lambda _: None)).worker_id == "w"


@pytest.mark.parametrize("at", ["run", "find", "follow", "connect"])
async def test_a_service_that_fails_goes_on(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, at: str
) -> None:
    hive = Failing(FAILURES[0])
    hive.at = at
    nodes = new_nodes(hive)
    await nursery.start(nodes.run)
    await trio.sleep(30)
    hive.at = ""
    await trio.sleep(30)
    with trio.fail_after(60):
        placed = await nodes.get("local").place(Wanted("a", None, None), lambda _: None)
    assert placed.worker_id == "w"


async def test_one_hive_that_cannot_be_ended_holds_up_no_end(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    hive = Failing(FAILURES[0])
    nodes = new_nodes(hive)
    await nursery.start(nodes.run)
    hive.at = "end"
    with trio.fail_after(60):
        ended = await nodes.end(trio.Event())
    (failure,) = ended.failures
    assert type(failure) is UnloadFailedError
    assert failure.message.startswith("the hive of local could not be ended")


def new_nodes(hive: Failing) -> Nodes:
    class Empty:
        async def rows(self) -> list[object]:
            await trio.lowlevel.checkpoint()
            return []

    return Nodes(
        Settings(), "rbee_token", cast("Registry", Empty()), HiveIdentities("rbee_token"), cast("HiveLink", hive)
    )
