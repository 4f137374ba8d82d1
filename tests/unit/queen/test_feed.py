"""What the queen publishes of the swarm: the whole, then each change; a follower that falls behind starts anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from rbee.queen.hives.mirror import HiveMirror
from rbee.queen.nodes import feed
from rbee.queen.nodes.feed import SwarmFeed
from rbee.wire.events import SwarmTask
from rbee.wire.hive import EndedWorker, WorkerGone, WorkerList, WorkerRow
from rbee.wire.progress import DownloadState

if TYPE_CHECKING:
    from rbee.wire.common import WorkerState
    from rbee.wire.hive import HiveEvent


def row(name: str, state: WorkerState = "idle") -> WorkerRow:
    return WorkerRow(
        id=name, url="http://x:1", model_ref="m", backend="cpu", device=0, state=state, slots_total=4,
        slots_available=4, pid=1,
    )  # fmt: skip


class Swarm(SwarmFeed):
    """A feed with two nodes, and the mirrors of their hives."""

    def __init__(self) -> None:
        super().__init__()
        self.mirrors = {"attic": HiveMirror(), "cellar": HiveMirror()}

    def add(self, node: str) -> None:
        self.add_node(node, self.mirrors[node])

    def on_event(self, node: str, event: HiveEvent | None) -> None:
        self.on_hive_event(node, event, self.mirrors[node].on_hive_event(event))


def both() -> Swarm:
    swarm = Swarm()
    swarm.add("attic")
    swarm.add("cellar")
    return swarm


class Follower:
    """Reads what a feed tells."""

    def __init__(self, swarm_feed: SwarmFeed, nursery: trio.Nursery, size: int = 16) -> None:
        send, self._receive = trio.open_memory_channel[bytes](size)
        nursery.start_soon(swarm_feed.follow, send)

    async def next(self) -> tuple[str, dict[str, Any]]:
        with trio.fail_after(5):
            data = (await self._receive.receive()).decode()
        name, _, event = data.removeprefix("event: ").partition("\ndata: ")
        return name, json.loads(event)

    async def all(self) -> list[tuple[str, dict[str, Any]]]:
        """Read what has been sent so far."""
        await trio.testing.wait_all_tasks_blocked()
        return [await self.next() for _ in range(self._receive.statistics().current_buffer_used)]


async def test_the_whole_comes_first_and_then_each_change(nursery: trio.Nursery) -> None:
    swarm = Swarm()
    swarm.add("attic")
    follower = Follower(swarm, nursery)
    whole = {"nodes": [{"node": "attic", "status": "unreachable"}], "workers": [], "tasks": [], "downloads": []}
    assert await follower.all() == [("state", whole)]
    swarm.on_event("attic", WorkerList(workers=[row("a")]))
    swarm.on_event("attic", row("a"))
    swarm.on_event("attic", row("a", "busy"))
    (first, alive), (second, idle), (third, busy) = await follower.all()
    assert (first, alive) == ("node", {"node": "attic", "status": "alive"})
    assert (second, idle["worker_id"], idle["node"], idle["state"]) == ("worker", "a", "attic", "idle")
    assert (third, busy["state"]) == ("worker", "busy")
    task = {"request_id": "r", "state": "placed", "node": "attic", "worker_id": "a"}
    swarm.task(SwarmTask(request_id="r", state="placed", node="attic", worker_id="a"))
    assert await follower.all() == [("task", task)]
    late = Follower(swarm, nursery)
    ((_, state),) = await late.all()
    assert (state["nodes"], state["workers"], state["tasks"]) == ([alive], [busy], [task])
    swarm.task(SwarmTask(request_id="r", state="ended"))
    ((_, ended),) = await late.all()
    assert ended["state"] == "ended"
    assert swarm.state().tasks == []


async def test_why_a_worker_has_gone_is_published(nursery: trio.Nursery) -> None:
    swarm = both()
    swarm.on_event("attic", WorkerList(workers=[row("crashed"), row("ended"), row("lost"), row("removed")]))
    swarm.on_event("cellar", WorkerList(workers=[row("lost")]))
    follower = Follower(swarm, nursery)
    await follower.all()
    reason = EndedWorker(
        id="crashed", model_ref="m", backend="cpu", device=0, pid=1, reason="SIGSEGV", ended_at=0.0, log="l",
        last_lines=[],
    )  # fmt: skip
    swarm.on_event("attic", WorkerGone(id="crashed", ended=reason))
    swarm.on_event("attic", WorkerGone(id="ended"))
    swarm.on_event("attic", WorkerGone(id="never there"))
    swarm.on_event("attic", WorkerList(workers=[row("removed")]))
    swarm.on_event("cellar", None)
    swarm.remove_node("attic")
    assert await follower.all() == [
        ("gone", {"worker_id": "crashed", "node": "attic", "reason": "SIGSEGV"}),
        ("gone", {"worker_id": "ended", "node": "attic", "reason": None}),
        ("gone", {"worker_id": "lost", "node": "attic", "reason": None}),
        ("gone", {"worker_id": "lost", "node": "cellar", "reason": "its node was lost"}),
        ("node", {"node": "cellar", "status": "unreachable"}),
        ("gone", {"worker_id": "removed", "node": "attic", "reason": "its node was removed"}),
        ("node", {"node": "attic", "status": "removed"}),
    ]
    assert swarm.state().workers == []


def fetching(name: str, stage: Any = "downloading") -> DownloadState:
    return DownloadState(download_id=name, model_ref="hf:bees/m", stage=stage, bytes_downloaded=4, bytes_total=10)


async def test_downloads_are_told_and_known_while_they_run(nursery: trio.Nursery) -> None:
    swarm = both()
    follower = Follower(swarm, nursery)
    await follower.all()
    swarm.on_event("attic", fetching("a"))
    swarm.on_event("attic", fetching("b"))
    swarm.on_event("cellar", fetching("c"))
    assert [(download.node, download.download_id) for download in swarm.downloads()] == [
        ("attic", "a"),
        ("attic", "b"),
        ("cellar", "c"),
    ]
    swarm.on_event("attic", fetching("a", "complete"))
    swarm.on_event("attic", None)
    swarm.remove_node("cellar")
    events = [event for name, event in await follower.all() if name == "download"]
    assert [(event["download_id"], event["stage"], event["message"]) for event in events] == [
        ("a", "downloading", None),
        ("b", "downloading", None),
        ("c", "downloading", None),
        ("a", "complete", None),
        ("b", "error", "its node was lost"),
        ("c", "error", "its node was removed"),
    ]
    assert (events[0]["node"], events[0]["model_ref"], events[0]["bytes_total"]) == ("attic", "hf:bees/m", 10)
    assert swarm.downloads() == swarm.state().downloads == []


async def test_a_follower_that_falls_behind_gets_the_whole_anew(nursery: trio.Nursery) -> None:
    swarm = both()
    follower = Follower(swarm, nursery, size=0)
    await follower.next()
    await trio.testing.wait_all_tasks_blocked()
    swarm.on_event("attic", row("a", "busy"))
    await trio.testing.wait_all_tasks_blocked()  # the follower is sent that now, and does not read
    for _ in range(feed.KEPT):
        swarm.on_event("attic", row("a", "idle"))
        swarm.on_event("attic", row("a", "busy"))
    assert (await follower.next())[0] == "worker"
    name, state = await follower.next()
    assert (name, [worker["state"] for worker in state["workers"]]) == ("state", ["busy"])
    swarm.on_event("attic", row("a", "idle"))
    name, worker = await follower.next()
    assert (name, worker["state"]) == ("worker", "idle")


async def test_the_last_change_that_is_kept_is_enough(nursery: trio.Nursery) -> None:
    swarm = both()
    follower = Follower(swarm, nursery, size=2 * feed.KEPT)
    await follower.all()
    for number in range(feed.KEPT):
        swarm.on_event("attic", row(str(number)))
    events = await follower.all()
    assert [event["worker_id"] for _, event in events] == [str(number) for number in range(feed.KEPT)]


async def test_an_event_that_comes_after_its_node_was_removed_brings_nothing_back(nursery: trio.Nursery) -> None:
    swarm = both()
    swarm.on_event("cellar", WorkerList(workers=[row("a")]))
    swarm.remove_node("cellar")
    follower = Follower(swarm, nursery)
    await follower.all()
    for event in (row("b"), fetching("d"), WorkerList(workers=[row("b")]), None):
        swarm.on_event("cellar", event)
    assert await follower.all() == []
    assert [node.node for node in swarm.state().nodes] == ["attic"]
    assert swarm.downloads() == []
