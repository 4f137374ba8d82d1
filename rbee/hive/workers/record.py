"""What a hive knows of one worker (PURE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rbee.errors import RbeeError
    from rbee.wire.common import WorkerState

Phase = Literal["starting", "loading", "serving", "failed", "ending"]


@dataclass(frozen=True, slots=True)
class Spec:
    """What a worker is to be; `memory` is what it will take (bytes of `resource`).

    `cache_per_token` is how much of that goes with each token of the context, over all slots.
    """

    model_ref: str
    path: str
    backend: str
    device: int
    resource: str
    slots: int
    context: int | None
    memory: int
    cache_per_token: int = 0


@dataclass(slots=True)
class Worker:
    """One worker, from the decision to start it until its process has ended.

    `has_loaded` tells that it takes no more memory than it has, because its model is loaded, or will not be.

    `since`, `deadline`, `idle_from` and `next_check` are seconds of the monotonic clock; `idle_since` and
    `last_health_at` are Unix seconds, for people. What a health check says never touches the idle times: a worker
    that is asked whether it lives is no less idle.
    """

    id: str
    spec: Spec
    phase: Phase
    since: float
    url: str | None = None
    pid: int | None = None
    slots_busy: int = 0
    has_loaded: bool = False
    layers: tuple[int, int] = (0, 0)
    deadline: float | None = None
    idle_from: float | None = None
    next_check: float | None = None
    failed_checks: int = 0
    idle_since: float | None = None
    last_health_at: float | None = None
    error: RbeeError | None = None

    @property
    def state(self) -> WorkerState:
        """The state in the words of the wire."""
        if self.phase == "ending":
            return "draining"
        if self.phase == "failed" or self.failed_checks:
            return "unhealthy"
        if self.phase in ("starting", "loading"):
            return "loading"
        return "busy" if self.slots_busy else "idle"

    @property
    def slots_available(self) -> int:
        return self.spec.slots - self.slots_busy if self.state in ("idle", "busy") else 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker that was; `reason` is None where its end was asked for, `at` counts Unix seconds."""

    worker: Worker
    reason: str | None
    at: float
    log: str
    last_lines: tuple[str, ...]
