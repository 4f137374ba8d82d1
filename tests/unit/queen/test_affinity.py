"""A conversation goes to the worker that has read its beginning, unless another would answer sooner."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
import trio
import trio.testing

from rbee.queen.hives.mirror import HiveMirror
from rbee.queen.nodes.node import Node
from rbee.queen.scheduling.choose_node import Candidate, Choice, rank
from rbee.queen.scheduling.choose_worker import Wanted
from rbee.queen.scheduling.effects import AnswerPlace, ReportProgress
from rbee.queen.scheduling.known_prompts import KnownPrompts
from rbee.queen.scheduling.place_request import Placed, PlaceRequest
from rbee.queen.scheduling.prompt_links import Link, PromptLinks
from rbee.queen.scheduling.scheduler import NodeScheduler
from rbee.queen.scheduling.shared_line import SharedLine
from rbee.wire.hive import WorkerList, WorkerRow
from rbee.wire.worker import EndedRequest
from tests.unit.queen.test_node_waiting import Hive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from rbee.queen.hives.link import HiveLink
    from rbee.queen.scheduling.effects import Effect

WANTED = Wanted("m", None, None)


def talk(*turns: str, session: bytes | None = None) -> PromptLinks:
    chain = (Link("/".join(turns[: end + 1]).encode(), 2000 * (end + 1)) for end in range(len(turns)))
    return PromptLinks(tuple(chain), 2000 * len(turns), session)


def row(worker_id: str, busy: int = 0, device: int = 0, total: int = 2, **changed: Any) -> WorkerRow:
    values: dict[str, Any] = {
        "id": worker_id,
        "url": f"http://127.0.0.1:8001/{worker_id}",
        "model_ref": "m",
        "backend": "cuda",
        "device": device,
        "state": "busy" if busy else "idle",
        "slots_total": total,
        "slots_available": total - busy,
        "pid": 1,
    }
    return WorkerRow(**(values | changed))


def measure(known: KnownPrompts, worker_id: str = "a") -> None:
    """Have it known that a worker reads 1000 characters in a second, and takes one for a request."""
    known.on_ended(
        EndedRequest(
            request_id="r", worker_id=worker_id, prompt_tokens=250, total_tokens=1, first_token_ms=1000,
            duration_ms=1000, end="eos",
        )
    )  # fmt: skip


class Lab:
    """A node's scheduler over workers that are shown, whose requests are answered at once."""

    def __init__(self, *rows: WorkerRow, max_waiting: int = 10) -> None:
        self.known = KnownPrompts()
        self.mirror = HiveMirror()
        self.scheduler = NodeScheduler("attic", self.mirror, max_waiting, known=self.known)
        self.now = 100.0
        self.show(*rows)

    def show(self, *rows: WorkerRow) -> list[str]:
        self.mirror.on_hive_event(WorkerList(workers=list(rows)))
        return self._workers(self.scheduler.tick(self.now))

    def ask(self, prompt: PromptLinks | None, wait: float = 60) -> list[str]:
        request = PlaceRequest(WANTED, wait, lambda _: None, lambda _: None, prompt=prompt)
        effects = self.scheduler.on_request(request, self.now)
        return self._workers([*effects, *self.scheduler.tick(self.now)])

    def passes(self, seconds: float) -> list[str]:
        due = self.scheduler.due()
        assert due is not None
        assert due <= self.now + seconds, "nothing would be done then"
        self.now += seconds
        return self._workers(self.scheduler.tick(self.now))

    def _workers(self, effects: list[Effect]) -> list[str]:
        self.told = [cast("Any", effect.event).human for effect in effects if isinstance(effect, ReportProgress)]
        results = [effect.result for effect in effects if isinstance(effect, AnswerPlace)]
        return [result.worker_id if isinstance(result, Placed) else type(result).__name__ for result in results]


def test_the_next_turn_goes_to_the_worker_that_has_read_the_ones_before() -> None:
    lab = Lab(row("a"), row("b", device=1))
    assert lab.ask(talk("one")) == ["a"]
    lab.show(row("a", 1), row("b", device=1))
    assert lab.ask(talk("two")) == ["b"]
    lab.show(row("a", 1), row("b", 1, device=1))
    lab.show(row("a"), row("b", device=1))
    assert lab.ask(talk("two", "more")) == ["b"]
    assert lab.told == [
        "A worker with m runs on attic already (idle); it has read the first 2000 of about 4000 characters before"
    ]
    lab.show(row("a", 1), row("b", device=1))
    assert lab.ask(talk("one", "more")) == ["a"], "though the other one has nothing to do"


def test_a_worker_that_has_much_to_do_is_later_than_one_that_reads_all() -> None:
    lab = Lab(row("a", total=8), row("b", device=1))
    assert lab.ask(talk("one")) == ["a"]
    lab.show(row("a", 7, total=8), row("b", device=1))
    assert lab.ask(talk("one", "more")) == ["b"]
    shared = Lab(row("a", total=8), row("b"))
    assert shared.ask(talk("one")) == ["a"]
    shared.show(row("a", 7, total=8), row("b"))
    assert shared.ask(talk("one", "more")) == ["a"], "the other one would share the device with as many"


def test_requests_with_one_beginning_that_come_together_share_it() -> None:
    lab = Lab(row("a", total=4), row("b", device=1, total=4))
    placed = [lab.ask(talk("system", str(number)))[0] for number in range(8)]
    assert (placed.count("a"), placed.count("b")) == (4, 4)


def test_nothing_is_waited_for_where_it_is_not_known_how_long_reading_takes() -> None:
    lab = Lab(row("a"), row("b", device=1))
    lab.ask(talk("one"))
    lab.show(row("a", 2), row("b", device=1))
    assert lab.ask(talk("one", "more")) == ["b"]


def test_a_full_worker_is_waited_for_as_long_as_another_would_read() -> None:
    lab = Lab(row("a"), row("b", device=1))
    assert lab.ask(talk("one")) == ["a"]
    measure(lab.known)
    lab.show(row("a", 2), row("b", device=1))
    assert lab.ask(talk("one", "more")) == []
    assert lab.told == ["Waiting for a slot, next in line (at most 60 s) of the worker that has read the beginning"]
    assert lab.ask(talk("other")) == ["b"], "others get the slot that is free meanwhile"
    lab.show(row("a", 2), row("b", 1, device=1))
    lab.now += 1.5
    assert lab.show(row("a", 1), row("b", 1, device=1)) == ["a"]

    lab.show(row("a", 2), row("b", device=1))
    assert lab.ask(talk("one", "else")) == []
    assert lab.passes(2.0) == ["b"]
    assert lab.scheduler.due() == lab.now + 1, "the reservation alone is due"


def test_who_waits_for_a_short_time_spends_half_of_it_on_the_worker_that_has_read_the_beginning() -> None:
    lab = Lab(row("a"), row("b", device=1))
    lab.ask(talk("one"))
    measure(lab.known)
    lab.show(row("a", 2), row("b", device=1))
    assert lab.ask(talk("one", "more"), wait=1) == []
    assert lab.passes(0.5) == ["b"], "reading all of it takes 2 s"


@pytest.mark.parametrize("kind", ["does not wait", "the line is full"])
def test_who_cannot_wait_gets_what_is_free(kind: str) -> None:
    lab = Lab(row("a"), row("b", device=1), max_waiting=0 if kind == "the line is full" else 10)
    lab.ask(talk("one"))
    measure(lab.known)
    lab.show(row("a", 2), row("b", device=1))
    assert lab.ask(talk("one", "more"), wait=0 if kind == "does not wait" else 60) == ["b"]


def test_a_session_stays_where_it_was_as_long_as_that_costs_nothing() -> None:
    lab = Lab(row("a"), row("b", device=1))
    lab.show(row("a", 1), row("b", device=1))
    assert lab.ask(talk("one", session=b"s")) == ["b"]
    lab.show(row("a", 1), row("b", 1, device=1))
    lab.show(row("a"), row("b", device=1))
    assert lab.ask(talk("new", session=b"s")) == ["b"]
    assert lab.told == ["A worker with m runs on attic already (idle)"]
    lab.show(row("a"), row("b", 1, device=1))
    assert lab.ask(talk("newer", session=b"s")) == ["a"]


# Which node.


def candidate(node: str, *workers: WorkerRow) -> Candidate:
    return Candidate(node, True, workers, {"cuda": [10**9]})


def ranked(known: KnownPrompts, prompt: PromptLinks, *candidates: Candidate) -> Choice:
    return rank(candidates, WANTED, known.of(prompt))[0]


def test_the_node_whose_worker_has_read_the_beginning_comes_first() -> None:
    known = KnownPrompts()
    known.note(talk("one", session=b"s"), "a")
    local = candidate("local", row("l"))
    choice = ranked(known, talk("one", "more"), local, candidate("attic", row("a", 1)))
    assert (choice.node, choice.reason, choice.patience) == ("attic", "a worker there has read the beginning", 0)
    choice = ranked(known, talk("new", session=b"s"), local, candidate("attic", row("a")))
    assert (choice.node, choice.reason) == ("attic", "a worker there has had requests of this session")
    assert ranked(known, talk("new"), local, candidate("attic", row("a"))).node == "local"
    assert ranked(known, talk("one"), local, candidate("attic", row("a", 7, total=8))).node == "local"
    assert ranked(known, talk("one"), local, candidate("attic", row("a", 2))).node == "local"


def test_a_full_worker_of_another_node_is_waited_for() -> None:
    known = KnownPrompts()
    known.note(talk("one"), "a")
    measure(known)
    full = candidate("attic", row("a", 2))
    choice = ranked(known, talk("one"), candidate("local", row("l")), full)
    assert (choice.node, choice.patience, choice.is_full) == ("attic", 2, True)
    choice = ranked(known, talk("one"), candidate("local", row("l", 2)), full)
    assert (choice.node, choice.patience) == ("attic", 2), "the first slot that gets free may be the other one's"
    assert ranked(known, talk("one"), candidate("local"), full).node == "local", "a worker is started for load"
    assert ranked(known, talk("one"), full).patience == 0


class Swarm(NamedTuple):
    attic: Node
    local: Hive
    placed: list[Placed]
    callers: trio.Nursery

    async def ask(self, prompt: PromptLinks, patience: float) -> None:
        async def order() -> None:
            wanted = Wanted("builtin:bee-stories", None, None)
            options: Any = {"may_move": True, "prompt": prompt, "patience": patience}
            self.placed.append(await self.attic.place(wanted, lambda _: None, 60, **options))

        self.callers.start_soon(order)
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def swarm_of(attic: WorkerRow, local: WorkerRow) -> AsyncIterator[Swarm]:
    line = SharedLine()
    hives = [Hive(row) for row in (attic, local)]
    nodes = [
        Node(name, cast("HiveLink", hive), line=line) for name, hive in zip(("attic", "local"), hives, strict=True)
    ]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.run)
        await trio.testing.wait_all_tasks_blocked()
        yield Swarm(nodes[0], hives[1], [], nursery)
        nursery.cancel_scope.cancel()


def own(worker_id: str, busy: int) -> WorkerRow:
    return row(worker_id, busy, model_ref="builtin:bee-stories")


async def test_a_request_is_drawn_to_no_other_node_before_its_patience_is_over(autojump_clock: MockClock) -> None:
    async with swarm_of(own("a", 2), own("l", 0)) as swarm:
        await swarm.ask(talk("one"), patience=3)
        swarm.local.show(own("l", 1))
        await trio.sleep(2.9)
        assert swarm.placed == []
        await trio.sleep(0.2)
        assert [placed.worker_id for placed in swarm.placed] == ["l"]


async def test_after_its_patience_it_gets_the_slot_that_is_free_first(autojump_clock: MockClock) -> None:
    async with swarm_of(own("a", 2), own("l", 2)) as swarm:
        await swarm.ask(talk("one"), patience=3)
        await trio.sleep(5)
        assert swarm.placed == []
        swarm.local.show(own("l", 1))
        await trio.testing.wait_all_tasks_blocked()
        assert [placed.worker_id for placed in swarm.placed] == ["l"]
