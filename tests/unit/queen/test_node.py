"""What a queen does with requests that wait, when it ends, or when a hive does."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from rbee.adapters.logs.json_log import correlation
from rbee.errors import AlreadyRunningError, ConnectionTimeoutError, DrainingError
from rbee.queen.nodes.node import Node
from rbee.queen.scheduling.choose_worker import Wanted
from rbee.wire.common import Narration
from rbee.wire.hive import SpawnReply, WorkerGone, WorkerList, WorkerRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rbee.queen.hives.link import HiveLink
    from rbee.wire.hive import HiveEvent, SpawnRequest
    from rbee.wire.progress import ProgressEvent


class StartsForEver:
    async def find(self) -> None:
        return None

    async def ensure(self, report: object) -> str:
        await trio.sleep_forever()
        raise AssertionError


async def test_every_request_is_told_that_the_queen_ends() -> None:
    """The hive is started for all of them."""
    node = Node("local", cast("HiveLink", StartsForEver()))
    told = []

    async def order(model: str) -> None:
        with pytest.raises(DrainingError):
            await node.place(Wanted(model, None, None), lambda _: None)
        told.append(model)

    with trio.fail_after(10):
        async with trio.open_nursery() as callers, trio.open_nursery() as running:
            running.start_soon(node.run)
            for model in ("a", "b", "c"):
                callers.start_soon(order, model)
            await trio.testing.wait_all_tasks_blocked()
            running.cancel_scope.cancel()
    assert sorted(told) == ["a", "b", "c"]
    with pytest.raises(DrainingError):
        await node.place(Wanted("d", None, None), lambda _: None)


async def test_requests_need_not_wait_for_a_start_that_cannot_be_cut_short(nursery: trio.Nursery) -> None:
    """One over SSH goes on to its end, or it would leave a hive that nobody ends."""
    goes_on = trio.Event()

    class StartsShielded(StartsForEver):
        async def ensure(self, report: object) -> str:
            with trio.CancelScope(shield=True):
                await goes_on.wait()
            return "http://127.0.0.1:9200"

    node = Node("attic", cast("HiveLink", StartsShielded()))
    nursery.start_soon(node.run)
    told = []

    async def order() -> None:
        with pytest.raises(DrainingError):
            await node.place(Wanted("a", None, None), lambda _: None)
        told.append("end")

    with trio.fail_after(5):
        async with trio.open_nursery() as callers:
            callers.start_soon(order)
            await trio.testing.wait_all_tasks_blocked()
            node.stop_placing()
    assert told == ["end"]
    with pytest.raises(DrainingError):
        await node.place(Wanted("b", None, None), lambda _: None)
    goes_on.set()


class Ends:
    """A hive that shuts down for `seconds`; then none answers for a moment, and the next one does."""

    def __init__(self, seconds: float) -> None:
        self.over = trio.current_time() + seconds

    async def find(self) -> None:
        return None

    async def ensure(self, report: object) -> str:
        await trio.lowlevel.checkpoint()
        return "http://127.0.0.1:9200"

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[Ends]:
        yield self

    async def workers(self) -> WorkerList:
        await trio.sleep(0.3)
        if 0 <= trio.current_time() - self.over < 0.5:
            raise ConnectionTimeoutError("127.0.0.1:9200 does not answer")
        return WorkerList(workers=[])

    async def spawn(self, request: object, report: object) -> SpawnReply:
        await trio.sleep(0.1)
        if trio.current_time() < self.over:
            raise DrainingError("the hive is shutting down and starts no workers")
        if trio.current_time() - self.over < 0.5:
            raise ConnectionTimeoutError("127.0.0.1:9200 does not answer")
        return SpawnReply(worker_id="w", url="http://127.0.0.1:8001", state="loading", api_key="k")


SHUTS_DOWN = "The hive is shutting down; the next one takes the request once it has ended"


@pytest.mark.parametrize(("seconds", "words"), [(0.1, []), (0.35, []), (40.0, [SHUTS_DOWN])])
async def test_a_request_that_meets_a_hive_which_ends_is_taken_by_the_next(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, seconds: float, words: list[str]
) -> None:
    node = Node("local", cast("HiveLink", Ends(seconds)))
    nursery.start_soon(node.run)
    told: list[str] = []
    placed = await node.place(Wanted("a", None, None), lambda narration: told.append(narration.human))
    assert placed.worker_id == "w"
    assert seconds <= trio.current_time() < seconds + 5
    assert told == words


class StartsAlready(Ends):
    """A hive that somebody else has started, and that has not said yet where it is."""

    def __init__(self, seconds: float) -> None:
        super().__init__(0)
        self.ready_at = trio.current_time() + seconds
        self.tries = 0

    async def ensure(self, report: object) -> str:
        self.tries += 1
        if trio.current_time() < self.ready_at:
            raise AlreadyRunningError("a hive is already running")
        return await super().ensure(report)

    async def workers(self) -> WorkerList:
        await trio.lowlevel.checkpoint()
        return WorkerList(workers=[])

    async def spawn(self, request: object, report: object) -> SpawnReply:
        await trio.lowlevel.checkpoint()
        return SpawnReply(worker_id="w", url="http://127.0.0.1:8001", state="loading", api_key="k")


async def test_a_hive_that_somebody_else_starts_is_waited_for(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    hive = StartsAlready(20)
    node = Node("local", cast("HiveLink", hive))
    nursery.start_soon(node.run)
    told: list[str] = []
    assert (await node.place(Wanted("a", None, None), lambda narration: told.append(narration.human))).worker_id == "w"
    assert 20 <= trio.current_time() <= 21
    assert told == ["A hive starts or ends there already; waiting for it"]
    assert hive.tries < 30  # each is a process
    hive.ready_at = trio.current_time() + 20
    async with node.ensure_hive(lambda _: None) as found:
        assert found is hive
    assert 40 <= trio.current_time() <= 42


async def test_a_hive_that_never_says_where_it_is_is_not_waited_for_for_ever(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    node = Node("local", cast("HiveLink", StartsAlready(1000)))
    nursery.start_soon(node.run)
    with pytest.raises(AlreadyRunningError):
        await node.place(Wanted("a", None, None), lambda _: None)
    assert 60 <= trio.current_time() < 62


class Tells:
    """A hive that is followed while it ends a worker."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.found = 0

    async def find(self) -> str:
        await trio.lowlevel.checkpoint()
        self.found += 1
        return "http://127.0.0.1:9200"

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[Tells]:
        yield self

    async def follow(self, heard: Callable[[HiveEvent], None]) -> None:
        heard(WorkerList(workers=[]))
        await self.event.wait()
        heard(WorkerGone(id="w"))


async def test_a_hive_that_ends_with_the_queen_is_heard_to_its_end_and_no_other_is_looked_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    hive = Tells()
    node = Node("local", cast("HiveLink", hive))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            await trio.testing.wait_all_tasks_blocked()
            node.stop_placing()
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(DrainingError):
                await node.place(Wanted("a", None, None), lambda _: None)
            hive.event.set()
    assert node.mirror.ended["w"] is None
    assert hive.found == 1


async def test_a_hive_that_does_not_end_is_not_waited_for_for_ever(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    node = Node("local", cast("HiveLink", Ends(1000)))
    nursery.start_soon(node.run)
    with pytest.raises(DrainingError, match="the hive is shutting down"):
        await node.place(Wanted("a", None, None), lambda _: None)
    assert 60 <= trio.current_time() < 65


class Hangs:
    """A hive that is followed and has a warm worker; to find it once more, as for a start, hangs until `goes_on`."""

    def __init__(self) -> None:
        self.goes_on = trio.Event()
        self.ensured = 0
        self.listed = 0
        self.rows = [WARM]
        self.spawned: list[str] = []
        self.correlation_ids: list[str | None] = []

    async def find(self) -> str:
        await trio.lowlevel.checkpoint()
        return "http://127.0.0.1:9200"

    async def ensure(self, report: object) -> str:
        self.ensured += 1
        self.correlation_ids.append(correlation.get())
        await self.goes_on.wait()
        return await self.find()

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[Hangs]:
        yield self

    async def follow(self, heard: Callable[[HiveEvent], None]) -> None:
        heard(WorkerList(workers=[WARM]))
        await trio.sleep_forever()

    async def workers(self) -> WorkerList:
        await trio.lowlevel.checkpoint()
        self.listed += 1
        return WorkerList(workers=list(self.rows))

    async def spawn(self, request: SpawnRequest, report: object) -> SpawnReply:
        await trio.lowlevel.checkpoint()
        self.correlation_ids.append(correlation.get())
        assert request.model_ref is not None
        self.spawned.append(request.model_ref)
        return SpawnReply(worker_id="w", url="http://127.0.0.1:8001", state="loading", api_key="k")


WARM = WorkerRow(
    id="warm", url="http://127.0.0.1:8002", model_ref="warm", backend="cpu", device=0, state="idle", slots_total=4,
    slots_available=4, pid=1,
)  # fmt: skip


async def test_while_a_hive_is_started_warm_workers_are_given_out_and_give_ups_are_answered(
    nursery: trio.Nursery,
) -> None:
    hive = Hangs()
    node = Node("attic", cast("HiveLink", hive))
    nursery.start_soon(node.run)
    await trio.testing.wait_all_tasks_blocked()
    placed = []

    async def ask(model: str) -> None:
        correlation.set(model)
        placed.append(await node.place(Wanted(model, None, None), lambda _: None))

    with trio.CancelScope() as given_up:
        async with trio.open_nursery() as callers:
            callers.start_soon(ask, "cold")
            await trio.testing.wait_all_tasks_blocked()
            assert hive.ensured == 1
            callers.start_soon(ask, "warm")
            await trio.testing.wait_all_tasks_blocked()
            assert [found.worker_id for found in placed] == ["warm"], "the hive's start hangs still"
            given_up.cancel()
    async with trio.open_nursery() as callers:
        callers.start_soon(ask, "other")
        await trio.testing.wait_all_tasks_blocked()
        assert (hive.ensured, hive.spawned) == (1, [])
        hive.goes_on.set()
    assert hive.spawned == ["other"], "nobody waits for the first one any more"
    assert hive.listed == 0, "its event stream shows what there is"
    assert hive.correlation_ids == ["cold", "other"]


async def test_a_request_that_comes_again_is_placed_by_what_the_hive_itself_says(nursery: trio.Nursery) -> None:
    """What the event stream shows may be late, and has sent it to a worker that ends."""
    hive = Hangs()
    hive.goes_on.set()
    node = Node("attic", cast("HiveLink", hive))
    nursery.start_soon(node.run)
    await trio.testing.wait_all_tasks_blocked()
    wanted = Wanted("warm", None, None)
    assert (await node.place(wanted, lambda _: None)).worker_id == "warm"
    assert hive.listed == 0
    hive.rows.clear()
    assert (await node.place(wanted, lambda _: None, must_ask=True)).worker_id == "w"
    assert (hive.listed, hive.spawned) == (1, ["warm"])


async def test_what_is_reported_at_once_is_reported_in_the_requests_own_task(nursery: trio.Nursery) -> None:
    """Nothing of a request runs under the id of another, which has come before it."""
    hive = Hangs()
    hive.goes_on.set()
    seen: list[str | None] = []
    node = Node("attic", cast("HiveLink", hive))
    nursery.start_soon(node.run)
    await trio.testing.wait_all_tasks_blocked()
    correlation.set("cold")
    await node.place(Wanted("cold", None, None), lambda _: None)
    correlation.set("warm")
    await node.place(Wanted("warm", None, None), lambda _: seen.append(correlation.get()))
    assert seen == ["warm"]


class Narrates(Hangs):
    """Its start of a worker says what it does, with the id of the request that has set it off."""

    def __init__(self) -> None:
        super().__init__()
        self.follower_ids: list[str | None] = []

    async def follow(self, heard: Callable[[HiveEvent], None]) -> None:
        self.follower_ids.append(correlation.get())
        await super().follow(heard)

    async def spawn(self, request: SpawnRequest, report: Callable[[Narration], None]) -> SpawnReply:
        await self.goes_on.wait()
        report(Narration(actor="rbee-hive", action="start", target="m", human="s", correlation_id=correlation.get()))
        return await super().spawn(request, report)

    async def ensure(self, report: object) -> str:
        return await self.find()


async def test_a_narration_of_a_shared_start_bears_the_id_of_the_request_that_it_is_told(
    nursery: trio.Nursery,
) -> None:
    hive = Narrates()
    node = Node("attic", cast("HiveLink", hive))
    nursery.start_soon(node.run)
    await trio.testing.wait_all_tasks_blocked()
    told: list[tuple[str, str | None]] = []

    async def ask(name: str) -> None:
        correlation.set(name)

        def report(event: ProgressEvent) -> None:
            assert isinstance(event, Narration)
            told.append((name, event.correlation_id))

        await node.place(Wanted("cold", None, None), report)

    async with trio.open_nursery() as callers:
        for name in ("first", "second"):
            callers.start_soon(ask, name)
            await trio.testing.wait_all_tasks_blocked()
        hive.goes_on.set()
    assert hive.spawned == ["cold"]
    assert sorted(told) == [("first", "first"), ("second", "second")]


async def test_a_node_that_a_request_has_added_does_not_go_on_under_its_id(nursery: trio.Nursery) -> None:
    hive = Narrates()
    node = Node("attic", cast("HiveLink", hive))
    token = correlation.set("setup add-node")
    nursery.start_soon(node.run)
    correlation.reset(token)
    await trio.testing.wait_all_tasks_blocked()
    assert hive.follower_ids == [None]
