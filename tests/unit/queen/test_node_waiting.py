"""How a node lets requests wait for a slot: over a hive in this process, with the mock clock."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
import pytest
import trio
import trio.testing

from rbee.errors import AllSlotsBusyError, DrainingError
from rbee.queen.nodes.node import Node
from rbee.queen.scheduling.choose_worker import Wanted
from rbee.queen.scheduling.place_request import Placed
from rbee.queen.scheduling.reservations import RESERVED_SECONDS
from rbee.queen.scheduling.shared_line import SharedLine
from rbee.wire.hive import SpawnReply, SpawnRequest, WorkerGone, WorkerList, WorkerRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from trio.testing import MockClock

    from rbee.queen.hives.link import HiveLink
    from rbee.wire.common import Narration

WANTED = Wanted("builtin:bee-stories", None, None)


def row(busy: int, state: str = "", worker_id: str = "w") -> WorkerRow:
    return WorkerRow(
        id=worker_id,
        url=f"http://127.0.0.1:8001/{worker_id}",
        model_ref=WANTED.model_ref,
        backend="cpu",
        device=0,
        state=cast("Any", state or ("busy" if busy else "idle")),
        slots_total=1,
        slots_available=1 - busy,
        pid=1,
    )


class Hive:
    """Both the link and the client: one worker's row, shown on demand and told on the stream."""

    def __init__(self, *rows: WorkerRow) -> None:
        self.rows = list(rows)
        self.heard: Callable[[Any], None] | None = None
        self.started = 0
        self.asked = 0
        self.shown: list[WorkerRow] | None = None
        self.is_cut = trio.Event()

    async def find(self) -> str:
        return "http://127.0.0.1:9200"

    async def ensure(self, report: object) -> str:
        return await self.find()

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[Hive]:
        yield self

    async def workers(self) -> WorkerList:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return WorkerList(workers=list(self.rows))

    async def follow(self, heard: Callable[[Any], None]) -> None:
        self.heard = heard
        heard(WorkerList(workers=self.rows if self.shown is None else self.shown))
        await self.is_cut.wait()

    async def spawn(self, request: SpawnRequest, report: object) -> SpawnReply:
        assert request.reuse
        if self.rows:
            await trio.lowlevel.checkpoint()
            known = self.rows[-1]
            return SpawnReply(worker_id=known.id, url=known.url, state=known.state, api_key="k")
        self.started += 1
        await trio.sleep(1)
        self.show(row(0, "loading", f"new{self.started}"))
        return SpawnReply(worker_id=self.rows[-1].id, url=self.rows[-1].url, state="loading", api_key="k")

    def show(self, changed: WorkerRow) -> None:
        self.rows = [*(known for known in self.rows if known.id != changed.id), changed]
        if self.heard is not None:
            self.heard(changed)

    def lose(self, worker_id: str) -> None:
        self.rows = [known for known in self.rows if known.id != worker_id]
        assert self.heard is not None
        self.heard(WorkerGone(id=worker_id))


class Lab:
    """A node that runs, and what became of the requests."""

    def __init__(self, hive: Hive, nursery: trio.Nursery, name: str = "local", **options: Any) -> None:
        self.hive = hive
        self.nursery = nursery
        self.node = Node(name, cast("HiveLink", hive), **options)
        self.placed: list[tuple[str, str]] = []
        self.told: list[str] = []
        self.errors: dict[str, Exception] = {}
        nursery.start_soon(self.node.run)

    async def ask(self, name: str, wait: float, *, may_move: bool = False, caller: str = "local") -> None:
        def report(narration: Narration) -> None:
            self.told.append(narration.human)

        async def order() -> None:
            try:
                placed = await self.node.place(WANTED, report, wait, may_move=may_move, caller=caller)
                assert isinstance(placed, Placed)
                self.placed.append((name, placed.worker_id))
            except (AllSlotsBusyError, DrainingError) as exc:
                self.errors[name] = exc

        self.nursery.start_soon(order)
        # Not `wait_all_tasks_blocked` alone: the autojump clock waits for that too.
        await trio.testing.wait_all_tasks_blocked()

    async def ask_alone(self, name: str, wanted: Wanted) -> trio.CancelScope:
        """Ask as `ask` does; the request is given up with the scope."""
        scope = trio.CancelScope()

        async def order() -> None:
            with scope:
                placed = await self.node.place(wanted, lambda event: self.told.append(cast("Any", event).human), 60)
                self.placed.append((name, placed.worker_id))

        self.nursery.start_soon(order)
        await trio.testing.wait_all_tasks_blocked()
        return scope


@contextmanager
def ended(nursery: trio.Nursery) -> Iterator[None]:
    yield
    nursery.cancel_scope.cancel()


async def test_without_a_wait_a_busy_worker_is_named_at_once() -> None:
    async with trio.open_nursery() as nursery:
        with ended(nursery):
            lab = Lab(Hive(row(1)), nursery)
            await lab.ask("a", 0)
            assert lab.placed == [("a", "w")]


async def test_who_waits_gets_the_slot_that_gets_free_in_the_order_of_arrival() -> None:
    async with trio.open_nursery() as nursery:
        with ended(nursery):
            lab = Lab(Hive(row(1)), nursery)
            for name in "abc":
                await lab.ask(name, 60)
            assert lab.placed == []
            assert lab.told == [
                "Waiting for a slot, next in line (at most 60 s)",
                "Waiting for a slot, 1 before you (at most 60 s)",
                "Waiting for a slot, 2 before you (at most 60 s)",
            ]
            for number in (1, 2, 3):
                lab.hive.show(row(0))
                await trio.testing.wait_all_tasks_blocked()
                assert [name for name, _ in lab.placed] == list("abc"[:number])
                lab.hive.show(row(1))
                await trio.testing.wait_all_tasks_blocked()


async def test_each_is_told_when_it_comes_nearer_to_its_turn() -> None:
    other = WANTED._replace(model_ref="file:/other.gguf")
    async with trio.open_nursery() as nursery:
        with ended(nursery):
            other_row = msgspec.structs.replace(row(1, worker_id="o"), model_ref=other.model_ref)
            lab = Lab(Hive(row(1), other_row), nursery)
            scopes = {name: await lab.ask_alone(name, other if name == "x" else WANTED) for name in "axbc"}
            line = [
                f"Waiting for a slot, {place} (at most 60 s)"
                for place in ("next in line", "1 before you", "2 before you")
            ]
            assert lab.told == [line[0], *line]
            lab.told.clear()
            scopes["b"].cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert lab.told == ["Waiting for a slot, 1 before you"], "one that leaves is gone from the line at once"
            lab.hive.show(row(0))
            await trio.testing.wait_all_tasks_blocked()
            assert lab.told[1:] == [
                "A worker with builtin:bee-stories runs on local already (idle)",
                "Waiting for a slot, next in line",
            ]
            assert lab.placed == [("a", "w")]


async def test_a_wait_in_vain_ends_with_the_error_of_a_busy_worker(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        with ended(nursery):
            lab = Lab(Hive(row(1)), nursery)
            await lab.ask("a", 7)
            await trio.sleep(6.9)
            assert lab.errors == {}
            await trio.sleep(0.2)
            assert "7 s" in str(lab.errors["a"])
            lab.hive.show(row(0))
            await trio.sleep(1)
            assert lab.placed == []


async def test_one_more_than_may_wait_is_refused_at_once() -> None:
    async with trio.open_nursery() as nursery:
        with ended(nursery):
            lab = Lab(Hive(row(1)), nursery, max_waiting=1)
            await lab.ask("a", 60)
            await lab.ask("b", 60)
            assert isinstance(lab.errors["b"], AllSlotsBusyError)
            assert lab.placed == []


async def test_of_a_full_line_it_is_known_before_anything_is_done_for_a_request() -> None:
    async with trio.open_nursery() as nursery:
        with ended(nursery):
            lab = Lab(Hive(row(1)), nursery, max_waiting=1)
            assert lab.node.why_full(WANTED, "local") is None, "it does not run yet"
            await lab.ask("a", 60)
            error = lab.node.why_full(WANTED, "local")
            assert error is not None
            assert (error.details["waiting"], error.retry_after) == (1, 5.0)
            assert lab.node.why_full(WANTED, "another") is None, "it has less than its share"
            assert lab.node.why_full(WANTED._replace(model_ref="hf:o/r"), "local") is None, "a worker is started for it"
            lab.hive.show(row(0))
            await trio.testing.wait_all_tasks_blocked()
            assert lab.placed == [("a", "w")]


async def test_slots_go_round_callers_on_one_node_and_on_all() -> None:
    async with two_nodes(row(1), row(1, worker_id="a")) as (local, attic):
        await local.ask("first", 60, may_move=True)
        await local.ask("second", 60, may_move=True)
        await local.ask("other", 60, may_move=True, caller="other")
        assert local.told[-2:] == [
            "Waiting for a slot, 1 before you (at most 60 s)",
            "Waiting for a slot, 2 before you",
        ], "the second is told that one more goes before it"
        attic.hive.show(row(0, worker_id="a"))
        await trio.testing.wait_all_tasks_blocked()
        assert local.placed == [("first", "a")]
        assert local.told[-2:] == ["Waiting for a slot, next in line", "Waiting for a slot, 1 before you"]
        local.hive.show(row(0))
        await trio.testing.wait_all_tasks_blocked()
        assert local.placed == [("first", "a"), ("other", "w")]


async def test_who_gives_up_leaves_the_line() -> None:
    async with trio.open_nursery() as nursery:
        with ended(nursery):
            lab = Lab(Hive(row(1)), nursery, max_waiting=1)
            with trio.CancelScope() as impatient:
                async with trio.open_nursery() as callers:
                    callers.start_soon(lab.node.place, WANTED, lambda _: None, 60)
                    await trio.testing.wait_all_tasks_blocked()
                    impatient.cancel()
            await lab.ask("b", 60)
            lab.hive.show(row(0))
            await trio.testing.wait_all_tasks_blocked()
            assert lab.placed == [("b", "w")]


async def test_when_the_worker_goes_one_is_started_for_those_who_wait(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        with ended(nursery):
            lab = Lab(Hive(row(1)), nursery)
            await lab.ask("a", 60)
            lab.hive.lose("w")
            await trio.sleep(5)
            assert lab.placed == [("a", "new1")]
            assert lab.hive.started == 1


async def test_a_cut_stream_is_taken_up_again_and_nobody_is_forgotten(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        with ended(nursery):
            lab = Lab(Hive(row(1)), nursery)
            await lab.ask("a", 60)
            cut, lab.hive.is_cut = lab.hive.is_cut, trio.Event()
            lab.hive.heard = None
            lab.hive.show(row(0))
            cut.set()
            await trio.sleep(20)
            assert lab.placed == [("a", "w")]


async def test_who_waits_for_what_the_stream_does_not_show_asks_with_pauses(autojump_clock: MockClock) -> None:
    """The stream may be late: the hive names a busy worker, and its events know of none."""
    async with trio.open_nursery() as nursery:
        with ended(nursery):
            hive = Hive(row(1))
            hive.shown = []
            lab = Lab(hive, nursery)
            await lab.ask("a", 60)
            await trio.sleep(10)
            assert lab.placed == []
            assert 5 <= hive.asked <= 20
            hive.show(row(0))
            await trio.sleep(1.5)
            assert lab.placed == [("a", "w")]


async def test_who_waits_for_what_the_stream_does_not_show_is_told_when_the_time_is_over(
    autojump_clock: MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        with ended(nursery):
            hive = Hive(row(1))
            hive.shown = []
            lab = Lab(hive, nursery)
            await lab.ask("a", 3.3)
            await trio.sleep(3.2)
            assert lab.errors == {}
            await trio.sleep(0.2)
            assert "3.3 s" in str(lab.errors["a"])


@pytest.mark.parametrize("shown", [None, []], ids=["in line", "before another try"])
async def test_who_waits_is_told_when_the_queen_ends(shown: list[WorkerRow] | None, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
        hive = Hive(row(1))
        hive.shown = shown
        lab = Lab(hive, nursery)

        async def order() -> None:
            with pytest.raises(DrainingError):
                await lab.node.place(WANTED, lambda _: None, 60)

        callers.start_soon(order)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()


class Swarm(NamedTuple):
    """Two nodes with one line; the attic has a worker `a`."""

    local: Lab
    attic: Lab


@asynccontextmanager
async def two_nodes(local: WorkerRow, *attic: WorkerRow, **options: Any) -> AsyncIterator[Swarm]:
    line = SharedLine()
    async with trio.open_nursery() as nursery:
        swarm = Swarm(
            Lab(Hive(local), nursery, "local", line=line, **options), Lab(Hive(*attic), nursery, "attic", line=line)
        )
        await trio.testing.wait_all_tasks_blocked()
        yield swarm
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("state", ["idle", "busy"])
async def test_who_may_go_anywhere_gets_the_slot_that_is_free_first(state: str) -> None:
    async with two_nodes(row(1), row(1, worker_id="a")) as (local, attic):
        await local.ask("one", 60, may_move=True)
        await local.ask("two", 60, may_move=True)
        assert local.placed == []
        attic.hive.show(msgspec.structs.replace(row(0, state, "a"), slots_total=2, slots_available=1))
        await trio.testing.wait_all_tasks_blocked()
        assert local.placed == [("one", "a")]
        assert local.told[2:] == [
            "A worker with builtin:bee-stories has a free slot on attic",
            "Waiting for a slot, next in line",
        ]
        local.hive.show(row(0))
        await trio.testing.wait_all_tasks_blocked()
        assert local.placed == [("one", "a"), ("two", "w")]


async def test_who_has_named_a_node_waits_for_that_one() -> None:
    async with two_nodes(row(1), row(1, worker_id="a")) as (local, attic):
        await local.ask("named", 60)
        await local.ask("free", 60, may_move=True)
        attic.hive.show(row(0, worker_id="a"))
        await trio.testing.wait_all_tasks_blocked()
        assert local.placed == [("free", "a")]
        local.hive.show(row(0))
        await trio.testing.wait_all_tasks_blocked()
        assert local.placed == [("free", "a"), ("named", "w")]


async def test_a_slot_is_for_the_nodes_own_line_first() -> None:
    async with two_nodes(row(1), row(1, worker_id="a")) as (local, attic):
        await local.ask("elsewhere", 60, may_move=True)
        await attic.ask("own", 60)
        attic.hive.show(row(0, worker_id="a"))
        await trio.testing.wait_all_tasks_blocked()
        assert (attic.placed, local.placed) == ([("own", "a")], [])


async def test_of_several_lines_the_one_that_has_waited_longest_goes_first(autojump_clock: MockClock) -> None:
    line = SharedLine()
    async with trio.open_nursery() as nursery:
        barn, local, attic = (
            Lab(Hive(row(1, worker_id=name[0])), nursery, name, line=line) for name in ("barn", "local", "attic")
        )
        await trio.testing.wait_all_tasks_blocked()
        await local.ask("first", 60, may_move=True)
        await trio.sleep(1)
        await barn.ask("second", 30, may_move=True)
        attic.hive.show(row(0, worker_id="a"))
        await trio.sleep(0.1)
        assert (local.placed, barn.placed) == ([("first", "a")], [])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["loading", "draining", "another model", "another backend"])
async def test_a_worker_that_does_not_serve_at_once_draws_nobody_away(kind: str) -> None:
    changes: dict[str, Any] = {
        "loading": {"state": "loading", "slots_available": 0},
        "draining": {"state": "draining", "slots_available": 0},
        "another model": {"model_ref": "hf:o/r"},
        "another backend": {"backend": "cuda"},
    }
    async with two_nodes(row(1), row(1, worker_id="a")) as (local, attic), trio.open_nursery() as callers:
        with ended(callers):
            wanted = WANTED._replace(backend="cpu")
            callers.start_soon(partial(local.node.place, wanted, lambda _: None, 60, may_move=True))
            await trio.testing.wait_all_tasks_blocked()
            attic.hive.show(msgspec.structs.replace(row(0, worker_id="a"), **changes[kind]))
            await trio.testing.wait_all_tasks_blocked()
            assert [one.wanted for one in local.node._loop.movable()] == [wanted]


async def test_a_slot_that_got_free_meanwhile_is_seen_before_the_line_is_joined() -> None:
    async with two_nodes(row(1), row(0, worker_id="a"), max_waiting=0) as (local, _):
        await local.ask("one", 60, may_move=True)
        await local.ask("two", 60, may_move=True)
        assert local.placed == [("one", "a")]
        assert isinstance(local.errors["two"], AllSlotsBusyError), "the slot is reserved"


async def test_a_slot_that_is_not_taken_up_is_given_to_the_next(autojump_clock: MockClock) -> None:
    """The client whose turn it was has gone: the worker never shows that anyone has come."""
    async with two_nodes(row(1), row(1, worker_id="a")) as (local, attic):
        await local.ask("gone", 60, may_move=True)
        await local.ask("next", 60, may_move=True)
        attic.hive.show(row(0, worker_id="a"))
        await trio.sleep(RESERVED_SECONDS / 2)
        assert local.placed == [("gone", "a")]
        await trio.sleep(RESERVED_SECONDS)
        assert local.placed == [("gone", "a"), ("next", "a")]


async def test_who_gives_up_is_drawn_nowhere() -> None:
    async with two_nodes(row(1), row(1, worker_id="a")) as (local, attic):
        with trio.CancelScope() as impatient:
            async with trio.open_nursery() as callers:
                callers.start_soon(partial(local.node.place, WANTED, lambda _: None, 60, may_move=True))
                await trio.testing.wait_all_tasks_blocked()
                impatient.cancel()
        await local.ask("next", 60, may_move=True)
        attic.hive.show(row(0, worker_id="a"))
        await trio.testing.wait_all_tasks_blocked()
        assert local.placed == [("next", "a")]


async def test_who_waits_on_a_node_that_is_lost_is_served_by_another(autojump_clock: MockClock) -> None:
    async with two_nodes(row(1), row(1, worker_id="a")) as (local, attic):
        local.hive.rows, local.hive.shown = [row(1)], []
        await local.ask("one", 60, may_move=True)
        local.hive.is_cut.set()
        await trio.sleep(3)
        assert local.placed == []
        attic.hive.show(row(0, worker_id="a"))
        await trio.sleep(2)
        assert local.placed == [("one", "a")]


async def test_a_node_that_is_removed_gives_no_slot() -> None:
    async with two_nodes(row(1), row(1, worker_id="a")) as (local, attic):
        await local.ask("one", 60, may_move=True)
        attic.node.stop_placing()
        attic.hive.show(row(0, worker_id="a"))
        await trio.testing.wait_all_tasks_blocked()
        assert (local.placed, local.errors) == ([], {})
