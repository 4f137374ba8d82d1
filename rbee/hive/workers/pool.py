"""Decides the life of a node's workers: what happened goes in, what to do comes out (PURE).

Times are seconds of one monotonic clock, passed in by the caller. Nothing here starts, asks or ends anything; the
effects returned say what is to be done, and what comes of it is reported back as a further event.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.errors import (
    DrainingError,
    LoadingTimeoutError,
    RbeeError,
    SpawnFailedError,
    SpawnTimeoutError,
    UnloadFailedError,
    WorkerDrainingError,
    WorkerFailedError,
    WorkerNotFoundError,
    from_body,
)
from rbee.hive.workers import preflight
from rbee.hive.workers.effects import (
    Answer,
    AskToEnd,
    CheckHealth,
    Effect,
    Follow,
    Forget,
    Keep,
    Kill,
    Launch,
    Terminate,
)
from rbee.hive.workers.record import Ended, Spec, Worker

if TYPE_CHECKING:
    from rbee.wire.worker import WorkerStatus

HOPELESS_CHECKS: Final = 3
"""Health checks in a row that a worker may fail; with the last one it is ended."""


_READINESS: Final = {"idle": 0, "busy": 1, "loading": 2}
REMEMBERED: Final = 20
"""Workers that have ended and whose reason can still be asked for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; the fields of the same names in `config.Timeouts`."""

    worker_ready: float = 30
    loading: float = 300
    drain: float = 30
    unload: float = 10
    idle: float = 300
    health_interval: float = 30


class Ending(NamedTuple):
    """How a worker's process ended, in words; when (Unix seconds); the name and the last lines of its log."""

    how: str
    unix: float = 0.0
    log: str = ""
    last_lines: tuple[str, ...] = ()


@dataclass(slots=True)
class Pool:
    """The workers of one node."""

    limits: Limits
    workers: dict[str, Worker] = field(default_factory=dict)
    ended: deque[Ended] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    stopping: bool = False
    stuck: list[Ended] = field(default_factory=list)
    """Workers that had to be killed when the node shut down."""

    def reserved(self, resource: str, device: int) -> int:
        """Bytes that workers may still take; one that was told to end while it loads goes on until it has ended."""
        return sum(
            worker.spec.memory
            for worker in self.workers.values()
            if not worker.has_loaded and (worker.spec.resource, worker.spec.device) == (resource, device)
        )

    # A worker comes.

    def like(self, spec: Spec) -> Worker | None:
        """Return a worker with the model of `spec` on its device that starts, loads or serves, the readiest first."""
        found = [
            worker
            for worker in self.workers.values()
            if worker.state in _READINESS
            and (worker.spec.model_ref, worker.spec.backend, worker.spec.device)
            == (spec.model_ref, spec.backend, spec.device)
        ]
        return min(found, key=lambda worker: (_READINESS[worker.state], worker.url is None), default=None)

    def spawn(self, worker_id: str, spec: Spec, available: int, now: float) -> list[Effect]:
        """A worker is asked for, with `available` bytes free on its device.

        Raises OutOfMemoryError, or DrainingError once the node is stopping.
        """
        if self.stopping:
            raise DrainingError("the hive is shutting down and starts no workers")
        preflight.check_memory(
            spec.memory,
            available - self.reserved(spec.resource, spec.device),
            spec.resource,
            context=spec.context,
            cache_per_token=spec.cache_per_token,
        )
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
        worker.url = url
        self._load(worker, now)
        return [Keep(worker), Answer(worker, None), Follow(worker)]

    def adopt(self, worker_id: str, spec: Spec, url: str | None, pid: int, now: float) -> list[Effect]:
        """A worker of an earlier hive still runs; whether it loads or serves, its event stream will tell.

        One that had not called back (`url` None) is ended: who asked for it has heard that its start failed, and the
        next request starts another one, beside which it would take memory for nobody.
        """
        worker = self.workers[worker_id] = Worker(worker_id, spec, "starting", now, url=url, pid=pid)
        if url is None:
            return self._end(worker, now)
        self._load(worker, now)
        worker.next_check = now  # ask at once: it may be a process that does not answer
        return [Follow(worker)]

    def _load(self, worker: Worker, now: float) -> None:
        worker.phase, worker.since = "loading", now
        worker.deadline = now + self.limits.loading
        worker.next_check = now + self.limits.health_interval

    # A worker lives.

    def status(self, worker_id: str, status: WorkerStatus, now: float, unix: float) -> list[Effect]:
        """The worker tells its state."""
        if (worker := self.workers.get(worker_id)) is None:
            return []
        before = (worker.state, worker.slots_busy)
        worker.last_health_at = unix
        worker.has_loaded = worker.has_loaded or status.state in ("idle", "busy", "failed")
        worker.layers = (status.layers_loaded, status.layers_total)
        worker.slots_busy = status.slots_total - status.slots_available if status.state in ("idle", "busy") else 0
        if worker.phase in ("loading", "serving"):
            self._heed(worker, status, now)
        if worker.phase == "serving" and worker.slots_busy == 0:
            if worker.idle_from is None:
                worker.idle_from, worker.idle_since = now, unix
        else:
            worker.idle_from = worker.idle_since = None
        return [Keep(worker)] if before != (worker.state, worker.slots_busy) else []

    def checked(self, worker_id: str, *, is_alive: bool, now: float, unix: float) -> list[Effect]:
        """The worker has answered a health check, or has not."""
        if (worker := self.workers.get(worker_id)) is None or worker.phase == "ending":
            return []
        worker.next_check = now + self.limits.health_interval
        if is_alive:
            worker.last_health_at, worker.failed_checks = unix, 0
            return [Keep(worker)]
        worker.failed_checks += 1
        if worker.failed_checks < HOPELESS_CHECKS:
            return [Keep(worker)]
        worker.error = WorkerFailedError(
            f"the worker (pid {worker.pid}) did not answer {HOPELESS_CHECKS} health checks and was ended"
        )
        self._begin_end(worker, now)
        return [Keep(worker), Terminate(worker)]

    # A worker goes.

    def _heed(self, worker: Worker, status: WorkerStatus, now: float) -> None:
        """Take the worker's own word for what it does now."""
        match status.state:
            case "failed":
                # It stays a little while, so that whoever waits for it learns the reason from it.
                worker.phase, worker.deadline = "failed", now + self.limits.unload
                worker.error = from_body({"error": status.error})
            case "draining":
                # Somebody else has told it to end.
                self._begin_end(worker, now + self.limits.drain)
            case "idle" | "busy" if worker.phase == "loading":
                worker.phase, worker.since, worker.deadline = "serving", now, None
            case _:
                pass

    def exited(self, worker_id: str, ending: Ending, announced: RbeeError | None = None) -> list[Effect]:
        """The process has ended; `announced` is what it said itself before."""
        worker = self.workers.pop(worker_id)
        worker.error = worker.error or announced
        wanted = worker.phase == "ending" and worker.error is None
        reason = None if wanted else worker.error.message if worker.error else ending.how
        ended = Ended(worker, reason, ending.unix, ending.log, ending.last_lines)
        self.ended.append(ended)
        if self.stopping and isinstance(worker.error, UnloadFailedError):
            self.stuck.append(ended)
        forget = Forget(worker, reason)
        if worker.url is not None:
            return [forget]
        failure = worker.error or self._unready(worker, ending.how)
        failure.details |= {"log": ending.log, "last_lines": list(ending.last_lines)}
        return [Answer(worker, failure), forget]

    def _unready(self, worker: Worker, how: str) -> RbeeError:
        if self.stopping:
            return DrainingError("the hive is shutting down, and the worker was not ready yet")
        if worker.phase == "ending":
            return WorkerDrainingError("the worker was told to end before it was ready", worker_id=worker.id)
        return SpawnFailedError(f"the worker ended before it was ready: {how}")

    def end(self, worker_id: str, now: float) -> list[Effect]:
        """The worker is to go. Raises WorkerNotFoundError."""
        if (worker := self.workers.get(worker_id)) is None:
            raise WorkerNotFoundError("there is no worker of this id here")
        return self._end(worker, now)

    def _end(self, worker: Worker, now: float) -> list[Effect]:
        if worker.phase == "ending":
            return []
        drain = self.limits.drain if worker.slots_busy else 0
        self._begin_end(worker, now + drain)
        if worker.url is not None:
            return [Keep(worker), AskToEnd(worker)]
        return [Terminate(worker)] if worker.pid is not None else []

    def _begin_end(self, worker: Worker, unload_from: float) -> None:
        worker.phase, worker.since = "ending", unload_from
        worker.deadline = unload_from + self.limits.unload
        worker.next_check = worker.idle_from = None

    def refused_to_end(self, worker_id: str) -> list[Effect]:
        """The worker did not accept its shutdown in time."""
        worker = self.workers.get(worker_id)
        return [Terminate(worker)] if worker is not None else []

    def stop(self, now: float) -> list[Effect]:
        """The node shuts down: every worker is to go, all at once."""
        self.stopping = True
        return [effect for worker in self.workers.values() for effect in self._end(worker, now)]

    def force(self, now: float) -> list[Effect]:
        """Nobody waits for running requests any longer."""
        for worker in self.workers.values():
            worker.deadline = now + self.limits.unload / 2
        return [Terminate(worker) for worker in self.workers.values() if worker.pid is not None]

    # Time passes.

    def due(self) -> float | None:
        """When `tick` has something to do next."""
        return min((time for worker in self.workers.values() for time in self._times(worker)), default=None)

    def _times(self, worker: Worker) -> list[float]:
        idle_until = None if worker.idle_from is None else worker.idle_from + self.limits.idle
        return [time for time in (worker.deadline, worker.next_check, idle_until) if time is not None]

    def tick(self, now: float) -> list[Effect]:
        """Do what is due."""
        effects: list[Effect] = []
        for worker in self.workers.values():
            if worker.deadline is not None and worker.deadline <= now:
                effects += self._overdue(worker, now)
            if worker.idle_from is not None and worker.idle_from + self.limits.idle <= now:
                effects += self._end(worker, now)
            if worker.next_check is not None and worker.next_check <= now:
                worker.next_check = None  # until the answer is there
                effects.append(CheckHealth(worker))
        return effects

    def _overdue(self, worker: Worker, now: float) -> list[Effect]:
        match worker.phase:
            case "starting":
                worker.error = SpawnTimeoutError(
                    f"the worker was not ready {self.limits.worker_ready:g} s after its start and was ended"
                )
            case "loading":
                worker.error = LoadingTimeoutError.after(self.limits.loading, "loading", worker.layers)
            case "failed":
                return self._end(worker, now)
            case _:
                worker.error = worker.error or UnloadFailedError(
                    f"the worker (pid {worker.pid}) had not ended {self.limits.unload:g} s after it was told to,"
                    " and was killed",
                    pid=worker.pid,
                )
        self._begin_end(worker, now)
        return [Kill(worker)] if worker.pid is not None else []
