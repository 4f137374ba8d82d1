"""Decides the life of a node's workers: what happened goes in, what to do comes out (PURE).

Times are seconds of one monotonic clock, passed in by the caller. Nothing here starts, asks or ends anything; the
effects returned say what is to be done, and what comes of it is reported back as a further event.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from rbee.errors import (
    DrainingError,
    LoadingTimeoutError,
    RbeeError,
    SpawnFailedError,
    SpawnTimeoutError,
    WorkerNotFoundError,
    from_body,
)
from rbee.hive import preflight

if TYPE_CHECKING:
    from rbee.wire.common import WorkerState
    from rbee.wire.worker import WorkerStatus

Phase = Literal["starting", "loading", "serving", "failed", "ending"]


@dataclass(frozen=True, slots=True)
class Spec:
    """What a worker is to be; `memory` is what it will take (bytes of `resource`)."""

    model_ref: str
    path: str
    backend: str
    device: int
    resource: str
    slots: int
    context: int | None
    memory: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; the fields of the same names in `config.Timeouts`."""

    worker_ready: float = 30
    loading: float = 300
    drain: float = 30
    unload: float = 10


@dataclass(slots=True)
class Worker:
    """One worker, from the decision to start it until its process has ended."""

    id: str
    spec: Spec
    phase: Phase
    since: float
    url: str | None = None
    pid: int | None = None
    slots_busy: int = 0
    layers: tuple[int, int] = (0, 0)
    idle_since: float | None = None
    last_health_at: float | None = None
    deadline: float | None = None
    error: RbeeError | None = None

    @property
    def state(self) -> WorkerState:
        """The state in the words of the wire."""
        match self.phase:
            case "starting" | "loading":
                return "loading"
            case "serving":
                return "busy" if self.slots_busy else "idle"
            case "ending":
                return "draining"
            case _:
                return "unhealthy"

    @property
    def slots_available(self) -> int:
        return self.spec.slots - self.slots_busy if self.phase == "serving" else 0


# What is to be done.


class Launch(NamedTuple):
    """Start the worker's process."""

    worker: Worker


class Follow(NamedTuple):
    """Hold the worker's event stream."""

    worker: Worker


class Answer(NamedTuple):
    """The start that was asked for has come to this: the worker answers HTTP, or the error."""

    worker: Worker
    error: RbeeError | None


class AskToEnd(NamedTuple):
    """Post a shutdown to the worker."""

    worker: Worker


class Terminate(NamedTuple):
    """Send SIGTERM."""

    worker: Worker


class Kill(NamedTuple):
    """Send SIGKILL."""

    worker: Worker


class Keep(NamedTuple):
    """Store the worker's row."""

    worker: Worker


class Forget(NamedTuple):
    """Delete the worker's row; `reason` is for the log where its end was not asked for."""

    worker: Worker
    reason: str | None


Effect = Launch | Follow | Answer | AskToEnd | Terminate | Kill | Keep | Forget


@dataclass(slots=True)
class Pool:
    """The workers of one node."""

    limits: Limits
    workers: dict[str, Worker] = field(default_factory=dict)
    stopping: bool = False

    def reserved(self, resource: str, device: int) -> int:
        """Bytes that workers will take which do not hold their memory yet."""
        return sum(
            worker.spec.memory
            for worker in self.workers.values()
            if worker.phase in ("starting", "loading")
            and (worker.spec.resource, worker.spec.device) == (resource, device)
        )

    def spawn(self, worker_id: str, spec: Spec, available: int, now: float) -> list[Effect]:
        """A worker is asked for, with `available` bytes free on its device.

        Raises OutOfMemoryError, or DrainingError once the node is stopping.
        """
        if self.stopping:
            raise DrainingError("the hive is shutting down and starts no workers")
        preflight.check_memory(spec.memory, available - self.reserved(spec.resource, spec.device), spec.resource)
        worker = Worker(worker_id, spec, "starting", now, deadline=now + self.limits.worker_ready)
        self.workers[worker_id] = worker
        return [Launch(worker)]

    def launched(self, worker_id: str, pid: int) -> list[Effect]:
        """The process runs."""
        worker = self.workers[worker_id]
        worker.pid = pid
        return [Keep(worker), *([Terminate(worker)] if worker.phase == "ending" else [])]

    def launch_failed(self, worker_id: str, error: RbeeError) -> list[Effect]:
        """The process could not be started."""
        worker = self.workers.pop(worker_id)
        return [Answer(worker, error), Forget(worker, error.message)]

    def called_back(self, worker_id: str, url: str, now: float) -> list[Effect]:
        """The worker has bound its port. Raises WorkerNotFoundError for a worker that is not ours."""
        if (worker := self.workers.get(worker_id)) is None:
            raise WorkerNotFoundError("no worker of this id was started here")
        if worker.phase != "starting":
            return []  # said again after a lost answer
        worker.phase, worker.url, worker.since = "loading", url, now
        worker.deadline = now + self.limits.loading
        return [Keep(worker), Answer(worker, None), Follow(worker)]

    def status(self, worker_id: str, status: WorkerStatus, now: float, unix: float) -> list[Effect]:
        """The worker tells its state."""
        if (worker := self.workers.get(worker_id)) is None:
            return []
        before = replace(worker)
        worker.last_health_at = unix
        worker.layers = (status.layers_loaded, status.layers_total)
        worker.slots_busy = status.slots_total - status.slots_available if status.state in ("idle", "busy") else 0
        if worker.phase in ("loading", "serving"):
            self._heed(worker, status, now)
        if worker.phase == "serving" and worker.slots_busy == 0:
            worker.idle_since = worker.idle_since or unix
        else:
            worker.idle_since = None
        changed = (before.state, before.slots_busy) != (worker.state, worker.slots_busy)
        return [Keep(worker)] if changed else []

    def _heed(self, worker: Worker, status: WorkerStatus, now: float) -> None:
        """Take the worker's own word for what it does now."""
        match status.state:
            case "failed":
                # It stays a little while, so that whoever waits for it learns the reason from it.
                worker.phase, worker.deadline = "failed", now + self.limits.unload
                worker.error = from_body({"error": status.error})
            case "draining":
                # Somebody else has told it to end.
                worker.phase, worker.since = "ending", now
                worker.deadline = now + self.limits.unload + self.limits.drain
            case "idle" | "busy" if worker.phase == "loading":
                worker.phase, worker.since, worker.deadline = "serving", now, None
            case _:
                pass

    def exited(self, worker_id: str, reason: str, announced: RbeeError | None = None) -> list[Effect]:
        """The process has ended; `reason` says how, in words, `announced` what it said itself before."""
        worker = self.workers.pop(worker_id)
        worker.error = worker.error or announced
        wanted = worker.phase == "ending" and worker.error is None
        forget = Forget(worker, None if wanted else worker.error.message if worker.error else reason)
        if worker.url is not None:
            return [forget]
        return [
            Answer(worker, worker.error or SpawnFailedError(f"the worker ended before it was ready: {reason}")),
            forget,
        ]

    def end(self, worker_id: str, now: float) -> list[Effect]:
        """The worker is to go. Raises WorkerNotFoundError."""
        if (worker := self.workers.get(worker_id)) is None:
            raise WorkerNotFoundError("there is no worker of this id here")
        return self._end(worker, now)

    def _end(self, worker: Worker, now: float) -> list[Effect]:
        if worker.phase == "ending":
            return []
        busy = worker.slots_busy > 0
        reachable = worker.url is not None
        worker.phase, worker.since = "ending", now
        worker.deadline = now + self.limits.unload + (self.limits.drain if busy else 0)
        if reachable:
            return [Keep(worker), AskToEnd(worker)]
        return [Terminate(worker)] if worker.pid is not None else []

    def refused_to_end(self, worker_id: str) -> list[Effect]:
        """The worker did not accept its shutdown in time."""
        worker = self.workers.get(worker_id)
        return [Terminate(worker)] if worker is not None else []

    def stop(self, now: float) -> list[Effect]:
        """The node shuts down: every worker is to go, all at once."""
        self.stopping = True
        return [effect for worker in self.workers.values() for effect in self._end(worker, now)]

    def hurry(self, now: float) -> list[Effect]:
        """Nobody waits for running requests any longer."""
        for worker in self.workers.values():
            worker.deadline = now + self.limits.unload / 2
        return [Terminate(worker) for worker in self.workers.values() if worker.pid is not None]

    def due(self) -> float | None:
        """When `tick` has something to do next."""
        return min((worker.deadline for worker in self.workers.values() if worker.deadline is not None), default=None)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed."""
        effects: list[Effect] = []
        for worker in self.workers.values():
            if worker.deadline is not None and worker.deadline <= now:
                effects += self._overdue(worker, now)
        return effects

    def _overdue(self, worker: Worker, now: float) -> list[Effect]:
        match worker.phase:
            case "starting":
                worker.error = SpawnTimeoutError(
                    f"the worker was not ready {self.limits.worker_ready:g} s after its start and was ended"
                )
            case "loading":
                loaded, total = worker.layers
                worker.error = LoadingTimeoutError(
                    f"the model was still loading after {self.limits.loading:g} s: layer {loaded} of {total}",
                    elapsed=now - worker.since,
                    state="loading",
                    layers_loaded=loaded,
                    layers_total=total,
                )
            case "failed":
                return self._end(worker, now)
            case _:
                pass
        worker.phase, worker.deadline = "ending", now + self.limits.unload
        return [Kill(worker)] if worker.pid is not None else []
