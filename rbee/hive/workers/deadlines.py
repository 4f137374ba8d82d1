"""Decides the life of one worker: its phases, deadlines and health checks (PURE).

Each function takes the time, changes the record, and returns what to do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee.errors import LoadingTimeoutError, SpawnTimeoutError, UnloadFailedError, WorkerFailedError
from rbee.hive.workers.effects import AskToEnd, AskToLeave, CheckHealth, Effect, Kill, Save, Terminate
from rbee.hive.workers.record import REST_SECONDS
from rbee.wire.error_body import from_body

if TYPE_CHECKING:
    from rbee.adapters.config import Timeouts
    from rbee.hive.workers.record import WorkerRecord
    from rbee.wire.worker import WorkerStatus

HOPELESS_CHECKS: Final = 3
"""Health checks in a row that a worker may fail; with the last one it is ended."""


def start_loading(worker: WorkerRecord, limits: Timeouts, now: float) -> None:
    """The worker answers HTTP, and loads its model."""
    worker.phase, worker.since = "loading", now
    worker.deadline = now + limits.loading
    worker.next_check = now + limits.health_interval


def apply_status(worker: WorkerRecord, status: WorkerStatus, limits: Timeouts, now: float, unix: float) -> list[Effect]:
    """The worker has published its state."""
    before = (worker.state, worker.slots_busy)
    worker.keep = worker.keep if status.keep_s is None else status.keep_s
    worker.last_health_at = unix
    worker.has_loaded = worker.has_loaded or status.state in ("idle", "busy", "failed")
    worker.layers = (status.layers_loaded, status.layers_total)
    worker.slots_busy = status.slots_total - status.slots_available if status.state in ("idle", "busy") else 0
    if worker.phase in ("loading", "serving"):
        _apply_state(worker, status, limits, now)
    _note_use(worker, status, now)
    if worker.phase == "serving" and worker.slots_busy == 0:
        if worker.idle_from is None:
            worker.idle_from, worker.idle_since = now, unix
    else:
        worker.idle_from = worker.idle_since = None
    saved: list[Effect] = [Save(worker)] if before != (worker.state, worker.slots_busy) else []
    return [*saved, *end_if_outdated(worker, limits, now)]


def _note_use(worker: WorkerRecord, status: WorkerStatus, now: float) -> None:
    """Note whether requests come, and come again. The end of one is told once more when the worker is idle already."""
    if worker.phase != "serving" or not (worker.slots_busy or status.ended):
        return
    if worker.slots_busy and worker.idle_from is not None:
        worker.is_asked_again = worker.has_served and now < worker.idle_from + REST_SECONDS
    worker.has_served = True


def _apply_state(worker: WorkerRecord, status: WorkerStatus, limits: Timeouts, now: float) -> None:
    match status.state:
        case "failed":
            # It stays a little while, so that callers waiting for it get the reason from it.
            worker.phase, worker.deadline = "failed", now + limits.unload
            worker.error = from_body({"error": status.error})
        case "draining":
            # Another client has shut it down.
            _begin_end(worker, limits, now + limits.drain)
        case "idle" | "busy" if worker.phase == "loading":
            worker.phase, worker.since, worker.deadline = "serving", now, None
        case _:
            pass


def apply_check(worker: WorkerRecord, limits: Timeouts, now: float, unix: float, *, is_alive: bool) -> list[Effect]:
    """The worker has answered a health check, or has not."""
    if worker.phase == "ending":
        return []
    worker.next_check = now + limits.health_interval
    if is_alive:
        worker.last_health_at, worker.failed_checks = unix, 0
        return [Save(worker)]
    worker.failed_checks += 1
    if worker.failed_checks < HOPELESS_CHECKS:
        return [Save(worker)]
    worker.error = WorkerFailedError(
        f"the worker (pid {worker.pid}) did not answer {HOPELESS_CHECKS} health checks and was ended"
    )
    _begin_end(worker, limits, now)
    return [Save(worker), Terminate(worker)]


def end(worker: WorkerRecord, limits: Timeouts, now: float) -> list[Effect]:
    """The worker is to go; it may finish running requests first."""
    if worker.phase == "ending" and not worker.is_leaving:
        return []
    worker.is_leaving = False
    drain = limits.drain if worker.slots_busy else 0
    _begin_end(worker, limits, now + drain)
    if worker.url is not None:
        return [Save(worker), AskToEnd(worker)]
    return [Terminate(worker)] if worker.pid is not None else []


def end_if_outdated(worker: WorkerRecord, limits: Timeouts, now: float) -> list[Effect]:
    """Its model's files were replaced: it goes once it has nothing to do. What it generates for others is not cut."""
    if worker.is_outdated and worker.phase == "serving" and worker.slots_busy == 0:
        return end(worker, limits, now)
    return []


def leave(worker: WorkerRecord, limits: Timeouts, now: float) -> list[Effect]:
    """An idle worker is to make room for another model; whether a request has come meanwhile, it knows best."""
    worker.is_leaving = True
    _begin_end(worker, limits, now)
    return [Save(worker), AskToLeave(worker)]


def stay(worker: WorkerRecord, limits: Timeouts, now: float) -> list[Effect]:
    """It has a request: it goes on, unless it was told to end meanwhile."""
    if not worker.is_leaving or worker.phase != "ending":
        return []
    worker.is_leaving = False
    worker.phase, worker.since, worker.deadline = "serving", now, None
    worker.next_check = now + limits.health_interval
    worker.idle_from = None if worker.slots_busy else now
    worker.is_asked_again = True
    return [Save(worker)]


def force_end(worker: WorkerRecord, limits: Timeouts, now: float) -> list[Effect]:
    """The worker is to go without waiting for running requests."""
    worker.deadline = now + limits.unload / 2
    return [Terminate(worker)] if worker.pid is not None else []


def _begin_end(worker: WorkerRecord, limits: Timeouts, unload_from: float) -> None:
    worker.phase, worker.since = "ending", unload_from
    worker.deadline = unload_from + limits.unload
    worker.next_check = worker.idle_from = None


def idle_limit(worker: WorkerRecord, limits: Timeouts) -> float:
    """Return how many seconds the worker stays without a request."""
    return limits.idle if worker.keep is None else worker.keep


def due(worker: WorkerRecord, limits: Timeouts) -> list[float]:
    """Return the times at which `tick` has something to do."""
    idle_until = None if worker.idle_from is None else worker.idle_from + idle_limit(worker, limits)
    return [time for time in (worker.deadline, worker.next_check, idle_until) if time is not None]


def tick(worker: WorkerRecord, limits: Timeouts, now: float) -> list[Effect]:
    """Time has passed: do what is due."""
    effects: list[Effect] = []
    if worker.deadline is not None and worker.deadline <= now:
        effects += _overdue(worker, limits, now)
    if worker.idle_from is not None and worker.idle_from + idle_limit(worker, limits) <= now:
        effects += end(worker, limits, now)
    if worker.next_check is not None and worker.next_check <= now:
        worker.next_check = None  # until the answer is there
        effects.append(CheckHealth(worker))
    return effects


def _overdue(worker: WorkerRecord, limits: Timeouts, now: float) -> list[Effect]:
    match worker.phase:
        case "starting":
            worker.error = SpawnTimeoutError(
                f"the worker was not ready {limits.worker_ready:g} s after its start and was ended"
            )
        case "loading":
            worker.error = LoadingTimeoutError.after(limits.loading, "loading", worker.layers)
        case "failed":
            return end(worker, limits, now)
        case _:
            worker.error = worker.error or UnloadFailedError(
                f"the worker (pid {worker.pid}) had not ended {limits.unload:g} s after it was told to, and was killed",
                pid=worker.pid,
            )
    _begin_end(worker, limits, now)
    return [Kill(worker)] if worker.pid is not None else []
