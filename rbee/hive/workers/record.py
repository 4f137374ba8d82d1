"""What a hive knows of one worker (PURE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

    from rbee.errors import RbeeError
    from rbee.hive.catalogue.file_state import FileState
    from rbee.wire.common import CacheType, WorkerState

REST_SECONDS: Final = 3.0
"""For the request that a worker was started for, or that was sent to it, to come: its caller looks every 2 s whether it
has loaded its model. And for the next one of a caller who asks again and again, as programs do that call tools."""
Phase = Literal["starting", "loading", "serving", "failed", "ending"]
Resource = Literal["ram", "vram"]


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What to start: `memory` is what the worker will take (bytes of `resource`).

    `context` are the tokens that each of `slots` requests at once is sure of, `cache_per_token` the part of the memory
    that each of them takes, over all slots; with `is_elastic` there may be fewer of them, but not fewer than `least`.
    `kv` is how they are kept, `trained` for how many the model is good, and `wished` those that one request was to
    have. `files` are those of the model as they were before it was loaded; empty where that is not known.
    """

    model_ref: str
    path: str
    backend: str
    device: int
    resource: Resource
    slots: int
    context: int | None
    memory: int
    cache_per_token: int = 0
    files: tuple[FileState, ...] = ()
    kv: CacheType = "f16"
    trained: int | None = None
    is_elastic: bool = False
    wished: int | None = None
    least: int = 0


@dataclass(slots=True)
class WorkerRecord:
    """One worker, from the decision to start it until its process has ended.

    `has_loaded` means that its model is loaded, or will not be: what memory it is still to take, its process tells.

    `is_outdated` means that other files have taken the place of those that it has loaded: it takes no more requests,
    and ends once it has none.

    `since`, `deadline`, `idle_from` and `next_check` are seconds of the monotonic clock; `idle_since` and
    `last_health_at` are Unix seconds, for people. A health check never touches the idle times: a worker that answers
    one is no less idle.
    """

    id: str
    spec: WorkerSpec
    phase: Phase
    since: float
    url: str | None = None
    pid: int | None = None
    slots_busy: int = 0
    has_loaded: bool = False
    is_outdated: bool = False
    layers: tuple[int, int] = (0, 0)
    deadline: float | None = None
    idle_from: float | None = None
    has_served: bool = False
    """Whether it has been seen with a request, or was told of the end of one."""
    is_asked_again: bool = False
    """Whether its last request came within REST_SECONDS of the one before, or while it was to make room."""
    is_leaving: bool = False
    """Whether it was asked to make room, which it does unless a request has come meanwhile."""
    ports_from: int | None = None
    """The first port that it may listen on, where that is not as the settings say."""
    next_check: float | None = None
    failed_checks: int = 0
    idle_since: float | None = None
    keep: float | None = None
    """Seconds without a request that it is to stay, where a request has said so; else the settings do."""
    last_health_at: float | None = None
    error: RbeeError | None = None

    @property
    def state(self) -> WorkerState:
        """The state in the words of the wire."""
        if self.phase == "ending" or (self.is_outdated and self.phase != "failed"):
            return "draining"
        if self.phase == "failed" or self.failed_checks:
            return "unhealthy"
        if self.phase in ("starting", "loading"):
            return "loading"
        return "busy" if self.slots_busy else "idle"

    def is_beside(self, spec: WorkerSpec) -> bool:
        """Whether it takes memory of the same device."""
        return (self.spec.resource, self.spec.device) == (spec.resource, spec.device)

    def may_leave(self, awaited: Collection[str] | None, now: float) -> bool:
        """Whether it may make room for another model: at once, unless a request seems to be on its way.

        `awaited` are the workers of which that is known; with None it could be any.
        """
        if self.phase != "serving" or self.slots_busy or self.idle_from is None:
            return False
        rests = awaited is None or self.id in awaited or self.is_asked_again or not self.has_served
        return not rests or self.idle_from + REST_SECONDS <= now

    @property
    def slots_available(self) -> int:
        return self.spec.slots - self.slots_busy if self.state in ("idle", "busy") else 0


class ProcessExit(NamedTuple):
    """How a worker's process ended, in words; when (Unix seconds); the name and the last lines of its log."""

    how: str
    unix: float = 0.0
    log: str = ""
    last_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EndedRecord:
    """A worker whose process has ended; `reason` is None where its end was asked for."""

    worker: WorkerRecord
    reason: str | None
    exit: ProcessExit
