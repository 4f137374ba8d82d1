"""The queen's HTTP messages."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from rbee.wire.common import (
    Amount,
    Count,
    DeviceIndex,
    Message,
    Moment,
    Name,
    Request,
    ShortText,
    Uuid,
    WorkerState,
    check_base_url,
)
from rbee.wire.progress import SwarmDownload  # noqa: TC001 (msgspec reads annotations at run time)
from rbee.wire.worker import GenerationSpec, InferenceRequest

API_VERSION: Final = "v2"
"""The interface that a keeper and a queen have in common: daemons of one work together, whatever their versions."""
HEALTH: Final = "/health"
TASKS: Final = "/v2/tasks"
TASK: Final = "/v2/tasks/{request_id}"
PREFER: Final = "Prefer"
RELAY_IF_NEEDED: Final = "relay-if-needed"
"""The preference (RFC 7240) of a caller that goes to the worker itself where it can: else the queen relays the answer
in the stream of the same task. A queen that does not know it answers with the handle alone."""
UNREACHED: Final = "unreached"
"""A parameter of that preference: the hosts of workers that the caller has tried in vain, with blanks in between."""
TASK_FAILURE: Final = "/v2/tasks/{request_id}/failure"
WORKERS_LIST: Final = "/v2/workers/list"
WORKERS_HEALTH: Final = "/v2/workers/health"
WORKERS_SHUTDOWN: Final = "/v2/workers/shutdown"
STATUS: Final = "/v2/status"
LOCAL_NODE: Final = "local"
"""The queen's own host: always there, never registered."""


class QueenHealth(Message, kw_only=True, omit_defaults=True):
    """That a queen answers: its id, the same from one start to the next, and its swarm, without the token.

    One that does not say which interface it has is of the time when there was only v2, and no `proof` that meets the
    request's challenge.
    """

    status: Literal["ok"]
    version: str
    api_version: str | None = None
    queen_id: str | None = None
    swarm: str | None = None
    proof: str | None = None


class TaskRequest(GenerationSpec, kw_only=True):
    """An inference to place. `relay` streams the worker's answer through the queen.

    `worker_id` is the worker that an earlier answer named, on this very node; then nothing is placed.
    `wait_s` is how many seconds it may wait at the queen for a slot where all are taken; 0 goes to the worker at once,
    which then answers that it is busy. `context` are the tokens, prompt and answer together, that it may come to: its
    worker has room for so many, as far as the memory of the node goes.
    """

    node: Name | None = None
    worker_id: Uuid | None = None
    model: ShortText | None = None
    backend: Name | None = None
    device: DeviceIndex | None = None
    context: Annotated[int, msgspec.Meta(ge=16, le=1 << 24)] | msgspec.UnsetType = msgspec.UNSET
    request_id: Uuid | None = None
    relay: bool = False
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    narrate: bool = False

    def generation(self) -> InferenceRequest:
        """Return what the worker is asked for."""
        common = set(InferenceRequest.__struct_fields__) & set(self.__struct_fields__)
        return InferenceRequest(**{name: getattr(self, name) for name in common})


class NodeQuery(Request, kw_only=True):
    """The query of what is asked about one node."""

    node: Name


class TaskHandle(Message, kw_only=True):
    """Where the caller finds its worker, and the key that opens it.

    Where `direct` is false only the queen reaches that address, and the worker has loaded its model. With `relayed` its
    answer follows in the same stream; without, ask for the same task with `relay`, and this node and worker.
    """

    request_id: str
    node: str
    worker_id: str
    worker_url: str
    api_key: str
    state: WorkerState
    direct: bool = True
    relayed: bool = False
    keep_s: Amount | msgspec.UnsetType = msgspec.UNSET
    """What the queen's settings say of how long a worker stays without a request, for the caller to pass on."""

    def __post_init__(self) -> None:
        check_base_url(self.worker_url)


class TaskFailure(Message, kw_only=True):
    """Why the worker of a task ended, as an error object; null where it has not, as far as the queen knows.

    A worker that was told to end, or whose end nobody knows of, has SHUTTING_DOWN: another one may take the task.
    """

    error: dict[str, object] | None = None


class SwarmWorker(Message, kw_only=True):
    """A worker anywhere in the swarm."""

    worker_id: str
    node: str
    state: WorkerState
    model_ref: str
    url: str
    backend: str
    device: Count
    slots_total: Count
    slots_available: Count
    idle_until: Moment | None = None
    """Where it is idle, when it ends if no request comes, in Unix seconds."""

    def __post_init__(self) -> None:
        if self.url:  # it has none before it listens
            check_base_url(self.url)


class SwarmEndedWorker(Message, kw_only=True):
    """A worker that has ended without being asked to; the fields are those of the hive's `EndedWorker`."""

    worker_id: str
    node: str
    model_ref: str
    backend: str
    device: Count
    pid: Count
    reason: str
    code: str | None = None
    ended_at: Moment
    log: str
    last_lines: list[str]


class UnreachableNode(Message, kw_only=True):
    """A node of whose workers nothing is known, and why."""

    node: str
    status: Literal["unreachable"] = "unreachable"
    reason: str
    state: str = "unreachable"
    """One of `not started`, `off` and `unreachable`, and perhaps more: `status` is as coarse as it always was."""


class SwarmWorkers(Message, kw_only=True, omit_defaults=True):
    """The workers that are, the last ones that ended without being asked to, and the nodes that did not say."""

    workers: list[SwarmWorker]
    ended: list[SwarmEndedWorker] = msgspec.field(default_factory=list)
    unreachable: list[UnreachableNode] = msgspec.field(default_factory=list)


class WorkerShutdown(Request, kw_only=True):
    """The worker to end: its id, or the first eight or more characters of it."""

    worker_id: ShortText


class WorkerEnding(Message, kw_only=True):
    """A worker has accepted to end."""

    success: Literal[True] = True
    message: str
    worker_id: str
    node: str


class WorkerHealth(Message, kw_only=True):
    worker_id: str
    state: WorkerState
    ready: bool


class NodeHealth(Message, kw_only=True):
    """`status` is that of the node's hive: `alive`, or `unreachable` when it does not answer (or does not run)."""

    status: Literal["alive", "unreachable"]
    workers: list[WorkerHealth]


class NodeStatus(Message, kw_only=True):
    """A node and its hive; memory is the machine's, in bytes. `reason` says why nothing is known of it."""

    node: str
    status: Literal["alive", "unreachable"]
    reason: str | None = None
    version: str | None = None
    workers: Count = 0
    slots_total: Count = 0
    slots_available: Count = 0
    memory_total: Count | None = None
    memory_available: Count | None = None
    state: str = ""
    """`alive`, or what is known of a node that is not: `not started`, `off` or `unreachable`, and perhaps more."""


class SwarmStatus(Message, kw_only=True):
    """The whole swarm as it is now."""

    nodes: list[NodeStatus]
    workers: list[SwarmWorker]
    downloads: list[SwarmDownload] = msgspec.field(default_factory=list)
