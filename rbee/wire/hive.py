"""The hive's HTTP messages."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from rbee.errors import InvalidRequestError
from rbee.wire.common import (
    Count,
    DeviceIndex,
    HttpUrl,
    Message,
    Moment,
    Name,
    Request,
    ShortText,
    Uuid,
    WorkerState,
    check_base_url,
)
from rbee.wire.model_copy import Sources  # noqa: TC001 (msgspec reads annotations at run time)
from rbee.wire.progress import DownloadState
from rbee.wire.worker import EndedRequest

HEALTH: Final = "/v1/health"
WORKERS: Final = "/v1/workers"
WORKERS_SPAWN: Final = "/v1/workers/spawn"
WORKERS_READY: Final = "/v1/workers/ready"
WORKERS_LIST: Final = "/v1/workers/list"
BACKENDS: Final = "/v1/backends"
RESOURCES: Final = "/v1/resources"
SHUTDOWN: Final = "/v1/admin/shutdown"
EVENTS: Final = "/v1/events"


class SpawnRequest(Request, kw_only=True):
    """Which model to load, where. `model` is another name for `model_ref`; None leaves the choice to the hive.

    `context` is the number of tokens that each request is sure of, prompt and answer together; `longest` is how many
    one request is to have, if the memory is there. With `reuse`, a worker with that
    model on that device that starts, loads or serves already will do. `sources` are the other nodes that have
    the model, the best first: it is copied from there if it is not on the node. `awaited` are the workers that requests
    were sent to which have not been seen there; None where that is not known.
    """

    model_ref: ShortText | None = None
    model: ShortText | None = None
    backend: Name | None = None
    device: DeviceIndex | None = None
    slots: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    context: Annotated[int, msgspec.Meta(ge=16, le=1 << 24)] | None = None
    longest: Annotated[int, msgspec.Meta(ge=16, le=1 << 24)] | msgspec.UnsetType = msgspec.UNSET
    reuse: bool = False
    sources: Sources = msgspec.field(default_factory=list)
    awaited: Annotated[list[ShortText], msgspec.Meta(max_length=1000)] | None = None

    def reference(self) -> str:
        """Return the model's reference, under whichever name it came."""
        text = self.model_ref or self.model
        if text is None:
            raise InvalidRequestError("field model_ref: required", field="model_ref", rule="required")
        return text


class SpawnReply(Message, kw_only=True):
    """The worker answers HTTP already, and loads its model."""

    worker_id: str
    url: str
    state: WorkerState
    api_key: str

    def __post_init__(self) -> None:
        check_base_url(self.url)


class ReadyCallback(Request, kw_only=True):
    """A worker calls its hive back once its port is bound; the hive learns the address from it."""

    worker_id: Uuid
    url: HttpUrl
    model_ref: ShortText
    backend: Name
    device: DeviceIndex


class WorkerRow(Message, kw_only=True):
    """A worker as its hive knows it; times are Unix seconds."""

    id: str
    url: str
    model_ref: str
    backend: str
    device: Count
    state: WorkerState
    slots_total: Count
    slots_available: Count
    pid: Count
    idle_since: Moment | None = None
    last_health_at: Moment | None = None
    idle_until: Moment | None = None
    """When it ends, where it is idle and no request comes."""
    context: Count | None = None
    """The most tokens of one request; None where that is not known."""

    def __post_init__(self) -> None:
        if self.url:  # it has none before it listens
            check_base_url(self.url)


class EndedWorker(Message, kw_only=True):
    """A worker that has ended: `reason` says how, in words, and is None if its end was requested.

    `code` is that of the error for which it was ended, or which it reported; None for a process that just ended.
    `ended_at` counts Unix seconds; `log` is a file's name in the node's folder of logs, `last_lines` its end.
    """

    id: str
    model_ref: str
    backend: str
    device: Count
    pid: Count
    reason: str | None
    code: str | None = None
    ended_at: Moment
    log: str
    last_lines: list[str]


class WorkerList(Message, kw_only=True, omit_defaults=True):
    """The present workers, and the last ones that ended without being asked to."""

    workers: list[WorkerRow]
    ended: list[EndedWorker] = msgspec.field(default_factory=list)


class WorkerGone(Message, kw_only=True, omit_defaults=True):
    """A worker is no longer there; `ended` says why if its end was not requested."""

    id: str
    ended: EndedWorker | None = None


HiveEvent = WorkerList | WorkerRow | WorkerGone | DownloadState | EndedRequest
"""The events of `/v1/events`: the whole (`state`), then each change (`worker`, `gone` and `download`)."""


class Device(Message, kw_only=True):
    """One device of a backend; memory in bytes."""

    index: Count
    name: str
    memory_total: Count
    memory_available: Count


class BackendDevices(Message, kw_only=True):
    name: str
    devices: list[Device]


class BackendList(Message, kw_only=True):
    backends: list[BackendDevices]


class Space(Message, kw_only=True):
    """Bytes of one resource."""

    total: Count
    available: Count


class Resources(Message, kw_only=True):
    memory: Space
    disk: Space
