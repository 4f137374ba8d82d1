"""The queen's events: what happens in the swarm."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from rbee.wire.common import Message
from rbee.wire.progress import SwarmDownload
from rbee.wire.queen import SwarmWorker

EVENTS: Final = "/v2/events"


class NodeSeen(Message, kw_only=True):
    """A node, and whether its hive's events arrive: `unreachable` includes a hive that does not run."""

    node: str
    status: Literal["alive", "unreachable", "removed"]


class SwarmWorkerGone(Message, kw_only=True):
    """A worker is no longer there; `reason` says why where its end was not asked for, or its node was lost."""

    worker_id: str
    node: str
    reason: str | None = None


class SwarmTask(Message, kw_only=True):
    """A request while the queen handles it: until it is placed, or with `relay` until its answer has ended.

    After that it shows in its worker's state.
    """

    request_id: str
    state: Literal["waiting", "placed", "ended"]
    node: str | None = None
    worker_id: str | None = None


class SwarmState(Message, kw_only=True):
    """The whole state of the swarm; tasks are those that the queen handles, downloads those that run."""

    nodes: list[NodeSeen]
    workers: list[SwarmWorker]
    tasks: list[SwarmTask]
    downloads: list[SwarmDownload] = msgspec.field(default_factory=list)


SwarmEvent = SwarmState | NodeSeen | SwarmWorker | SwarmWorkerGone | SwarmTask | SwarmDownload
"""The events of `/v2/events`: the whole (`state`), then each change (`node`, `worker`, `gone`, `task`, `download`)."""
