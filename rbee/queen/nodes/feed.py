"""Passes on what the hives report and what becomes of requests, to everyone who follows the swarm."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from rbee.adapters.http import sse_server
from rbee.concurrency.changed import Changed
from rbee.queen.nodes.survey import worker_of
from rbee.wire import events as wire
from rbee.wire.hive import WorkerGone, WorkerList, WorkerRow
from rbee.wire.progress import DownloadState, SwarmDownload
from rbee.wire.worker import EndedRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rbee.queen.hives.mirror import HiveMirror
    from rbee.wire.hive import HiveEvent

KEPT: Final = 1000
"""Changes that are kept for followers; one that falls further behind gets the whole state once more."""
_NAMES: Final = {wire.NodeSeen: "node", wire.SwarmTask: "task", wire.SwarmWorkerGone: "gone", SwarmDownload: "download"}


class SwarmFeed:
    """What is known of the swarm now, and what has changed last; to report something to it never waits."""

    def __init__(self) -> None:
        self._nodes: dict[str, wire.NodeSeen] = {}
        self._mirrors: dict[str, HiveMirror] = {}
        self._tasks: dict[str, wire.SwarmTask] = {}
        self._downloads: dict[str, SwarmDownload] = {}
        self._changes: deque[wire.SwarmEvent] = deque(maxlen=KEPT)
        self._count = 0
        self._changed = Changed()
        self.on_request_ended: Callable[[EndedRequest], None] = lambda _: None
        self.on_worker_gone: Callable[[str], None] = lambda _: None
        """Take what is for the log of requests: that one has ended at its worker, and the ids of workers that ended."""

    def state(self) -> wire.SwarmState:
        return wire.SwarmState(
            nodes=list(self._nodes.values()),
            workers=[worker_of(name, row) for name, mirror in self._mirrors.items() for row in mirror.rows.values()],
            tasks=list(self._tasks.values()),
            downloads=self.downloads(),
        )

    def downloads(self) -> list[SwarmDownload]:
        return list(self._downloads.values())

    def add_node(self, node: str, mirror: HiveMirror) -> None:
        """A node has come; `mirror` shows the workers of its hive."""
        self._mirrors[node] = mirror
        self.node(wire.NodeSeen(node=node, status="unreachable"))

    def remove_node(self, node: str) -> None:
        """A node has been removed."""
        why = "its node was removed"
        for worker_id in self._mirrors.pop(node).rows:
            self._publish(wire.SwarmWorkerGone(worker_id=worker_id, node=node, reason=why))
        self._lose_downloads(node, why)
        del self._nodes[node]
        self._publish(wire.NodeSeen(node=node, status="removed"))

    def on_hive_event(self, node: str, event: HiveEvent | None, changes: Sequence[WorkerRow | WorkerGone]) -> None:
        """A node's hive has reported something; None stands for a stream that was lost.

        `changes` says which workers the node's mirror shows differently now.
        """
        if node not in self._mirrors:
            return  # it was removed while the event was on its way
        if isinstance(event, WorkerList):
            self.node(wire.NodeSeen(node=node, status="alive"))
        for change in changes:
            if isinstance(change, WorkerRow):
                self._publish(worker_of(node, change))
            else:
                reason = "its node was lost" if event is None else None if change.ended is None else change.ended.reason
                self._publish(wire.SwarmWorkerGone(worker_id=change.id, node=node, reason=reason))
                if event is not None:
                    self.on_worker_gone(change.id)
        if isinstance(event, EndedRequest):
            self.on_request_ended(event)
        if isinstance(event, DownloadState):
            self._download(SwarmDownload(node=node, **msgspec.structs.asdict(event)))
        if event is None:
            self._lose_downloads(node, "its node was lost")
            self.node(wire.NodeSeen(node=node, status="unreachable"))

    def node(self, seen: wire.NodeSeen) -> None:
        """A node is seen or lost."""
        if self._nodes.get(seen.node) != seen:
            self._nodes[seen.node] = seen
            self._publish(seen)

    def task(self, task: wire.SwarmTask) -> None:
        """A request has come, was placed, or has ended."""
        if task.state == "ended":
            self._tasks.pop(task.request_id, None)
        else:
            self._tasks[task.request_id] = task
        self._publish(task)

    def _download(self, download: SwarmDownload) -> None:
        if download.is_over:
            self._downloads.pop(download.download_id, None)
        else:
            self._downloads[download.download_id] = download
        self._publish(download)

    def _lose_downloads(self, node: str, why: str) -> None:
        """The downloads of a node are out of sight; those that go on are published again when it is back."""
        for download in self.downloads():
            if download.node == node:
                self._download(msgspec.structs.replace(download, stage="error", message=why, speed_mbps=0.0))

    def _publish(self, event: wire.SwarmEvent) -> None:
        self._changes.append(event)
        self._count += 1
        self._changed.notify()

    async def follow(self, send: sse_server.Send) -> None:
        """Send what is, then every change, until cancelled."""
        sent = -1 - KEPT
        while True:
            changed, behind = self._changed.next, self._count - sent
            sent = self._count
            events: list[wire.SwarmEvent] = [self.state()]
            if behind <= len(self._changes):
                events = list(islice(self._changes, len(self._changes) - behind, None))
            for event in events:
                await send.send(sse_server.event(event, _name(event)))
            await changed.wait()


def _name(event: wire.SwarmEvent) -> str:
    return "state" if isinstance(event, wire.SwarmState) else _NAMES.get(type(event), "worker")
