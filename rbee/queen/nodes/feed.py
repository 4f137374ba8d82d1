"""Keeps what the hives tell and what becomes of requests, and passes it on to whoever follows the swarm."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from rbee.adapters.http import sse_server
from rbee.queen.nodes.survey import worker_of
from rbee.wire import events as wire
from rbee.wire.download import DownloadState, SwarmDownload
from rbee.wire.hive import WorkerGone, WorkerList, WorkerRow

if TYPE_CHECKING:
    from rbee.wire.hive import HiveEvent
    from rbee.wire.queen import SwarmWorker

KEPT: Final = 1000
"""Changes that are kept for followers; who falls further behind is told the whole anew."""
_NAMES: Final = {
    wire.NodeSeen: "node",
    wire.SwarmTask: "task",
    wire.SwarmWorkerGone: "gone",
    SwarmDownload: "download",
}


class SwarmFeed:
    """What is known of the swarm now, and what has changed last; whoever tells it something never waits."""

    def __init__(self) -> None:
        self._nodes: dict[str, wire.NodeSeen] = {}
        self._workers: dict[tuple[str, str], SwarmWorker] = {}
        self._tasks: dict[str, wire.SwarmTask] = {}
        self._downloads: dict[str, SwarmDownload] = {}
        self._changes: deque[wire.SwarmEvent] = deque(maxlen=KEPT)
        self._count = 0
        self._changed = trio.Event()

    def state(self) -> wire.SwarmState:
        """Return the whole."""
        return wire.SwarmState(
            nodes=list(self._nodes.values()),
            workers=list(self._workers.values()),
            tasks=list(self._tasks.values()),
            downloads=self.downloads(),
        )

    def downloads(self) -> list[SwarmDownload]:
        """Return the downloads that run."""
        return list(self._downloads.values())

    def on_hive_event(self, node: str, event: HiveEvent | None) -> None:
        """A node's hive has reported something; None stands for a stream that was lost."""
        match event:
            case None:
                self._only(node, {}, "its node was lost")
                self._lose_downloads(node, "its node was lost")
                self.node(wire.NodeSeen(node=node, status="unreachable"))
            case WorkerList(workers=rows):
                self.node(wire.NodeSeen(node=node, status="alive"))
                self._only(node, {row.id: row for row in rows}, None)
                for row in rows:
                    self._worker(node, row)
            case WorkerRow():
                self._worker(node, event)
            case WorkerGone(id=worker_id, ended=ended):
                self._gone(node, worker_id, None if ended is None else ended.reason)
            case DownloadState():
                self._download(SwarmDownload(node=node, **msgspec.structs.asdict(event)))

    def node(self, seen: wire.NodeSeen) -> None:
        """A node has come, is seen, is lost or has been removed."""
        if seen.status == "removed":
            self._only(seen.node, {}, "its node was removed")
            self._lose_downloads(seen.node, "its node was removed")
            if self._nodes.pop(seen.node, None) is not None:
                self._tell(seen)
        elif self._nodes.get(seen.node) != seen:
            self._nodes[seen.node] = seen
            self._tell(seen)

    def task(self, task: wire.SwarmTask) -> None:
        """A request has come, was placed, or has ended."""
        if task.state == "ended":
            self._tasks.pop(task.request_id, None)
        else:
            self._tasks[task.request_id] = task
        self._tell(task)

    def _only(self, node: str, rows: dict[str, WorkerRow], reason: str | None) -> None:
        """Forget the workers of a node that are not among `rows`."""
        for name, worker_id in list(self._workers):
            if name == node and worker_id not in rows:
                self._gone(node, worker_id, reason)

    def _worker(self, node: str, row: WorkerRow) -> None:
        worker = worker_of(node, row)
        if self._workers.get((node, row.id)) != worker:
            self._workers[node, row.id] = worker
            self._tell(worker)

    def _gone(self, node: str, worker_id: str, reason: str | None) -> None:
        if self._workers.pop((node, worker_id), None) is not None:
            self._tell(wire.SwarmWorkerGone(worker_id=worker_id, node=node, reason=reason))

    def _download(self, download: SwarmDownload) -> None:
        if download.is_over:
            self._downloads.pop(download.download_id, None)
        else:
            self._downloads[download.download_id] = download
        self._tell(download)

    def _lose_downloads(self, node: str, why: str) -> None:
        """Nothing is known any more of what a node fetches; what goes on all the same is told again."""
        for download in self.downloads():
            if download.node == node:
                self._download(msgspec.structs.replace(download, stage="error", message=why, speed_mbps=0.0))

    def _tell(self, event: wire.SwarmEvent) -> None:
        self._changes.append(event)
        self._count += 1
        self._changed.set()
        self._changed = trio.Event()

    async def follow(self, send: sse_server.Send) -> None:
        """Send what is, then every change, until cancelled."""
        told = -1 - KEPT
        while True:
            changed, behind = self._changed, self._count - told
            told = self._count
            events: list[wire.SwarmEvent] = [self.state()]
            if behind <= len(self._changes):
                events = list(islice(self._changes, len(self._changes) - behind, None))
            for event in events:
                await send.send(sse_server.event(event, _name(event)))
            await changed.wait()


def _name(event: wire.SwarmEvent) -> str:
    return "state" if isinstance(event, wire.SwarmState) else _NAMES.get(type(event), "worker")
