"""What a hive knows of one worker (PURE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from rbee.errors import RbeeError
    from rbee.hive.catalogue.file_state import FileState
    from rbee.wire.common import WorkerState

Phase = Literal["starting", "loading", "serving", "failed", "ending"]
Resource = Literal["ram", "vram"]


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What to start: `memory` is what the worker will take (bytes of `resource`).

    `cache_per_token` is the part of it that each token of the context takes, over all slots. `files` are those of the
    model as they were before it was loaded; empty where that is not known.
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


@dataclass(slots=True)
class WorkerRecord:
    """One worker, from the decision to start it until its process has ended.

    `has_loaded` means that it takes no more memory than it has, because its model is loaded, or will not be.

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
