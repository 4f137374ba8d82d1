"""Decides about a node's workers: what happened goes in, what to do comes out (PURE).

Times are seconds of one monotonic clock, passed in by the caller. Nothing here starts, asks or ends anything; the
effects returned say what to do, and what comes of them is reported back as a further event.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from rbee.errors import DrainingError, RbeeError, SpawnFailedError, UnloadFailedError, WorkerNotFoundError
from rbee.hive.workers import context_fit, deadlines, preflight
from rbee.hive.workers.effects import Delete, Effect, Follow, Launch, Reply, Save, Terminate
from rbee.hive.workers.record import EndedRecord, WorkerRecord
from rbee.hive.workers.room import Room, find_room
from rbee.narrower_errors import WorkerDrainingError
from rbee.wire.hive import Space

if TYPE_CHECKING:
    from collections.abc import Collection

    from rbee.adapters.config import Timeouts
    from rbee.hive.workers.record import ProcessExit, Resource, WorkerSpec
    from rbee.wire.worker import WorkerStatus

_READINESS: Final = {"idle": 0, "busy": 1, "loading": 2}
OLD_PORT_SECONDS: Final = 60.0
"""A request may be on its way to a worker that made room: at its port it must not find another worker."""
LAST_PORT: Final = 65_000
"""Beyond it, there may be none that is free."""
MAX_ENDED_WORKERS: Final = 20
"""How many ended workers are shown, with the reason."""


@dataclass(slots=True)
class Pool:
    """The workers of one node; together they take at most `max_memory` bytes of RAM, where that is given."""

    limits: Timeouts
    max_memory: int | None = None
    workers: dict[str, WorkerRecord] = field(default_factory=dict)
    ended: deque[EndedRecord] = field(default_factory=lambda: deque(maxlen=MAX_ENDED_WORKERS))
    is_stopping: bool = False
    stuck: list[EndedRecord] = field(default_factory=list)
    """Workers that had to be killed when the node shut down."""
    _left_ports: dict[int, float] = field(default_factory=dict)
    """The ports of workers that made room, and until when no other takes them."""

    @property
    def is_over(self) -> bool:
        """Whether the node has shut down, and every worker is gone."""
        return self.is_stopping and not self.workers

    def reserved(self, resource: Resource, device: int) -> int:
        """Return the bytes that workers may still take; one that ends while it loads counts until it has ended."""
        return sum(
            worker.spec.memory
            for worker in self.workers.values()
            if not worker.has_loaded and (worker.spec.resource, worker.spec.device) == (resource, device)
        )

    def left(self, spec: WorkerSpec, available: int) -> int:
        """Return the bytes that a worker may take, with `available` bytes free on its device; may be below zero."""
        left = available - self.reserved(spec.resource, spec.device)
        if self.max_memory is None or spec.resource != "ram":
            return left
        taken = sum(worker.spec.memory for worker in self.workers.values() if worker.spec.resource == "ram")
        return min(left, self.max_memory - taken)

    def memory(self, space: Space) -> Space:
        """Return how much RAM there is for workers, and how much of that is left, of what this machine has."""
        if self.max_memory is None:
            return space
        taken = sum(worker.spec.memory for worker in self.workers.values() if worker.spec.resource == "ram")
        left = max(0, self.max_memory - taken)
        return Space(total=min(space.total, self.max_memory), available=min(space.available, left))

    # A worker comes.

    def like(self, spec: WorkerSpec) -> WorkerRecord | None:
        """Return a worker with the model of `spec` on its device that starts, loads or serves, the readiest first."""
        found = [
            worker
            for worker in self.workers.values()
            if worker.state in _READINESS
            and (worker.spec.model_ref, worker.spec.backend, worker.spec.device)
            == (spec.model_ref, spec.backend, spec.device)
            and context_fit.is_long_enough(worker.spec, spec)
        ]
        return min(found, key=lambda worker: (_READINESS[worker.state], worker.url is None), default=None)

    def spawn(self, worker_id: str, spec: WorkerSpec, available: int, now: float) -> list[Effect]:
        """A worker is asked for, with `available` bytes free on its device.

        Raises OutOfMemoryError, or DrainingError once the node is stopping.
        """
        if self.is_stopping:
            raise DrainingError("the hive is shutting down and starts no workers")
        left = self.left(spec, available)
        preflight.check_memory(
            spec.memory,
            left,
            spec.resource,
            context=spec.context,
            cache_per_token=spec.cache_per_token,
            held=sum(one.spec.memory for one in self.workers.values() if one.is_beside(spec)),
            allowed=self.max_memory if left < available - self.reserved(spec.resource, spec.device) else None,
        )
        worker = WorkerRecord(worker_id, spec, "starting", now, deadline=now + self.limits.worker_ready)
        self._left_ports = {port: until for port, until in self._left_ports.items() if until > now}
        if self._left_ports and (ports_from := max(self._left_ports) + 1) <= LAST_PORT:
            worker.ports_from = ports_from
        self.workers[worker_id] = worker
        return [Launch(worker)]

    def make_room(
        self, spec: WorkerSpec, available: int, now: float, awaited: Collection[str] | None = None
    ) -> tuple[Room, list[Effect]]:
        """Have idle workers leave for a model that does not fit beside them, if that is of use; see find_room."""
        room = find_room(self.workers.values(), spec, self.left(spec, available), now, awaited)
        ports = [urlsplit(worker.url or "").port for worker in room.leaving]
        self._left_ports |= {port: now + OLD_PORT_SECONDS for port in ports if port is not None}
        return room, [effect for worker in room.leaving for effect in deadlines.leave(worker, self.limits, now)]

    def stays(self, worker_id: str, now: float) -> list[Effect]:
        """A worker that was to make room has a request."""
        worker = self.workers.get(worker_id)
        return deadlines.stay(worker, self.limits, now) if worker is not None else []

    def launched(self, worker_id: str, pid: int) -> list[Effect]:
        """The process runs."""
        worker = self.workers[worker_id]
        worker.pid = pid
        return [Save(worker), *([Terminate(worker)] if worker.phase == "ending" else [])]

    def launch_failed(self, worker_id: str, error: RbeeError) -> list[Effect]:
        """The process could not be started."""
        worker = self.workers.pop(worker_id)
        return [Reply(worker, error), Delete(worker, error.message)]

    def called_back(self, worker_id: str, url: str, now: float) -> list[Effect]:
        """The worker has bound its port. Raises WorkerNotFoundError for a worker that is not ours."""
        if (worker := self.workers.get(worker_id)) is None:
            raise WorkerNotFoundError("no worker of this id was started here")
        if worker.phase != "starting":
            return []  # a repeated callback, after a lost reply
        worker.url = url
        deadlines.start_loading(worker, self.limits, now)
        return [Save(worker), Reply(worker, None), Follow(worker)]

    def adopt(self, worker_id: str, spec: WorkerSpec, url: str | None, pid: int, now: float) -> list[Effect]:
        """A worker of an earlier hive still runs; its event stream will say whether it loads or serves.

        One that had not called back (`url` None) is ended: its caller has been told that its start failed, and the
        next request starts another one, beside which it would take memory for nobody.
        """
        worker = self.workers[worker_id] = WorkerRecord(worker_id, spec, "starting", now, url=url, pid=pid)
        if url is None:
            return deadlines.end(worker, self.limits, now)
        deadlines.start_loading(worker, self.limits, now)
        worker.next_check = now  # ask at once: it may be a process that does not answer
        return [Follow(worker)]

    # A worker lives.

    def status(self, worker_id: str, status: WorkerStatus, now: float, unix: float) -> list[Effect]:
        """The worker has published its state."""
        if (worker := self.workers.get(worker_id)) is None:
            return []
        return deadlines.apply_status(worker, status, self.limits, now, unix)

    def checked(self, worker_id: str, *, is_alive: bool, now: float, unix: float) -> list[Effect]:
        """The worker has answered a health check, or has not."""
        if (worker := self.workers.get(worker_id)) is None:
            return []
        return deadlines.apply_check(worker, self.limits, now, unix, is_alive=is_alive)

    # A worker goes.

    def exited(self, worker_id: str, process_exit: ProcessExit, announced: RbeeError | None = None) -> list[Effect]:
        """The process has ended; `announced` is the error that it announced before."""
        worker = self.workers.pop(worker_id)
        worker.error = worker.error or announced
        is_wanted = worker.phase == "ending" and worker.error is None
        reason = None if is_wanted else worker.error.message if worker.error else process_exit.how
        ended = EndedRecord(worker, reason, process_exit)
        self.ended.append(ended)
        if self.is_stopping and isinstance(worker.error, UnloadFailedError):
            self.stuck.append(ended)
        delete = Delete(worker, reason)
        if worker.url is not None:
            return [delete]
        failure = worker.error or self._not_ready(worker, process_exit.how)
        failure.details |= {"log": process_exit.log, "last_lines": list(process_exit.last_lines)}
        return [Reply(worker, failure), delete]

    def _not_ready(self, worker: WorkerRecord, how: str) -> RbeeError:
        if self.is_stopping:
            return DrainingError("the hive is shutting down, and the worker was not ready yet")
        if worker.phase == "ending":
            return WorkerDrainingError("the worker was told to end before it was ready", worker_id=worker.id)
        return SpawnFailedError(f"the worker ended before it was ready: {how}")

    def end(self, worker_id: str, now: float) -> list[Effect]:
        """The worker is to go. Raises WorkerNotFoundError."""
        if (worker := self.workers.get(worker_id)) is None:
            raise WorkerNotFoundError("there is no worker of this id here")
        return deadlines.end(worker, self.limits, now)

    def outdated(self, worker_id: str, now: float) -> list[Effect]:
        """Other files have taken the place of those that the worker has loaded: it is to go once it is idle."""
        if (worker := self.workers.get(worker_id)) is None or worker.is_outdated:
            return []
        worker.is_outdated = True
        return [Save(worker), *deadlines.end_if_outdated(worker, self.limits, now)]

    def is_in_the_way(self, spec: WorkerSpec) -> bool:
        """Whether an outdated worker that ends still takes the memory that its successor needs."""
        return any(
            worker.is_outdated
            and worker.phase == "ending"
            and not worker.slots_busy
            and (worker.spec.model_ref, worker.spec.backend, worker.spec.device)
            == (spec.model_ref, spec.backend, spec.device)
            for worker in self.workers.values()
        )

    def refused_to_end(self, worker_id: str) -> list[Effect]:
        """The worker did not accept its shutdown in time."""
        worker = self.workers.get(worker_id)
        return [Terminate(worker)] if worker is not None else []

    def stop(self, now: float) -> list[Effect]:
        """The node shuts down: every worker is to go, all at once."""
        self.is_stopping = True
        return [effect for worker in self.workers.values() for effect in deadlines.end(worker, self.limits, now)]

    def force(self, now: float) -> list[Effect]:
        """The node waits for running requests no longer."""
        return [effect for worker in self.workers.values() for effect in deadlines.force_end(worker, self.limits, now)]

    # Time passes.

    def due(self) -> float | None:
        """Return when `tick` has something to do next."""
        return min(
            (time for worker in self.workers.values() for time in deadlines.due(worker, self.limits)), default=None
        )

    def tick(self, now: float) -> list[Effect]:
        """Do what is due."""
        return [effect for worker in self.workers.values() for effect in deadlines.tick(worker, self.limits, now)]
