"""What the queen tells of the swarm as it happens."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from rbee.wire.common import Message
from rbee.wire.download import SwarmDownload
from rbee.wire.queen import SwarmWorker

EVENTS: Final = "/v2/events"


class NodeSeen(Message, kw_only=True):
    """A node, and whether its hive tells what it does: `unreachable` also stands for one that does not run."""

    node: str
    status: Literal["alive", "unreachable", "removed"]


class SwarmWorkerGone(Message, kw_only=True):
    """A worker is no longer there; `reason` says why where its end was not asked for, or its node was lost."""

    worker_id: str
    node: str
    reason: str | None = None


class SwarmTask(Message, kw_only=True):
    """A request, as far as the queen has it in hand: until it is placed, or with `relay` until its answer has ended.

    What becomes of one that has gone to its worker shows in the worker's state.
    """

    request_id: str
    state: Literal["waiting", "placed", "ended"]
    node: str | None = None
    worker_id: str | None = None


class SwarmState(Message, kw_only=True):
    """All that is known of the swarm; of tasks, those that the queen has in hand, of downloads those that run."""

    nodes: list[NodeSeen]
    workers: list[SwarmWorker]
    tasks: list[SwarmTask]
    downloads: list[SwarmDownload] = msgspec.field(default_factory=list)


SwarmEvent = SwarmState | NodeSeen | SwarmWorker | SwarmWorkerGone | SwarmTask | SwarmDownload
"""What `/v2/events` tells: the whole (`state`), then each change (`node`, `worker`, `gone`, `task`, `download`)."""
