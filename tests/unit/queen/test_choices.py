"""Which nodes are asked what they could do for a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio

from rbee.queen.nodes.choices import choices_among
from rbee.queen.scheduling.choose_node import Candidate
from rbee.queen.scheduling.choose_worker import Wanted
from rbee.wire.hive import WorkerRow

if TYPE_CHECKING:
    from rbee.queen.nodes.node import Node
    from rbee.wire.common import WorkerState

WANTED = Wanted("m", None, None)


def row(state: WorkerState, free: int) -> WorkerRow:
    return WorkerRow(
        id=state, url="http://x:1", model_ref="m", backend="cpu", device=0, state=state, slots_total=4,
        slots_available=free, pid=1,
    )  # fmt: skip


class StandIn:
    """A node as the queen knows it; `asked` says what was asked of it."""

    def __init__(self, name: str, *rows: WorkerRow, is_there: bool = True) -> None:
        self.name = name
        self.is_there = is_there
        self.asked: list[str] = []
        self._known = Candidate(name, True, rows, {"cpu": [1]})

    async def known_candidate(self) -> Candidate:
        return self._known

    async def absent_candidate(self) -> Candidate:
        return Candidate(self.name, False, [], {"cpu": [None]})

    async def answers(self) -> bool:
        self.asked.append("answers")
        await trio.lowlevel.checkpoint()
        return self.is_there

    async def candidate(self, reference: str) -> Candidate:
        assert reference == "m"
        self.asked.append("candidate")
        await trio.lowlevel.checkpoint()
        return self._known._replace(devices={"cpu": [64]}) if self.is_there else await self.absent_candidate()


async def chosen(*nodes: StandIn) -> list[str]:
    return [choice.node for choice in await choices_among(cast("list[Node]", nodes), WANTED)]


@pytest.mark.parametrize("warm", [row("idle", 4), row("busy", 1), row("loading", 0)], ids=lambda found: found.state)
async def test_a_node_whose_worker_takes_the_request_is_asked_alone_and_only_whether_it_is_there(
    warm: WorkerRow,
) -> None:
    cold, best = StandIn("a"), StandIn("b", warm)
    assert (await chosen(cold, best))[0] == "b"
    assert (cold.asked, best.asked) == ([], ["answers"])


@pytest.mark.parametrize("rows", [[], [row("busy", 0)], [row("draining", 0)]], ids=["none", "busy", "draining"])
async def test_where_a_worker_has_to_be_started_all_are_asked(rows: list[WorkerRow]) -> None:
    nodes = StandIn("a"), StandIn("b", *rows)
    await chosen(*nodes)
    assert [node.asked for node in nodes] == [["candidate"], ["candidate"]]


async def test_where_the_best_is_gone_the_others_are_asked() -> None:
    gone, other = StandIn("a", row("idle", 4), is_there=False), StandIn("b")
    assert await chosen(gone, other) == ["b", "a"]
    assert (gone.asked, other.asked) == (["answers"], ["candidate"])
