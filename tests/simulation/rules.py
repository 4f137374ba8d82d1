"""What must hold in every run: looked at after each step of every task, and once more when all is quiet."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import trio

from rbee.errors import AlreadyRunningError
from tests.simulation.worker import Worker
from tests.simulation.world import Violation

if TYPE_CHECKING:
    from rbee.hive.workers.pool import Pool
    from rbee.hive.workers.supervisor import WorkerSupervisor
    from rbee.queen.scheduling.choose_worker import Wanted
    from tests.simulation.site import Site
    from tests.simulation.world import World

STEPS: Final = 20_000
"""Steps at one moment after which the clock will not go on any more."""
LISTS: Final = 100
"""Questions for the list of workers within a second; more is a loop that waits for nothing."""
SLOT_SECONDS: Final = 2.0
"""From the end of a request at its client to the slot that is free: a second, a decode step, and the way there."""
REQUEST_SECONDS: Final = 1200.0
"""Within these every request has ended, whatever happens."""
WAIT_SECONDS: Final = 5.0
"""For news of a free slot to reach the queue, and a promise that was not kept to lapse."""
OWN_REASONS: Final = ("gives up", "MODEL_NOT_FOUND", "BACKEND_UNAVAILABLE", "VRAM_EXHAUSTED", "ALL_SLOTS_BUSY")
LATE: Final = 1.0
ENDING_SLACK: Final = 5.0


class Rules(trio.abc.Instrument):
    """Watches a simulation, and ends it where something does not hold."""

    def __init__(self) -> None:
        self.violation: Violation | None = None
        self.scope = trio.CancelScope()
        self._began: dict[str, float] = {}
        self._ended: dict[str, tuple[float, str]] = {}
        self._answering: dict[str, str] = {}
        self._ending: dict[tuple[str, str], float] = {}
        self._lists: Counter[int] = Counter()
        self._free_since: dict[object, float] = {}
        self._steps = 0
        self._seen: tuple[float, object] = (-1.0, None)
        self._world: Any = None

    def watch(self, world: World, site: Site) -> None:
        self._world = world
        self._site = site

    # Requests.

    def began(self, request_id: str) -> None:
        self._began[request_id] = trio.current_time()

    def ended(self, request_id: str, outcome: str) -> None:
        """A request has come to its end, as its client sees it."""
        if request_id in self._ended:
            raise Violation(f"{request_id} ends twice: {self._ended[request_id][1]}, then {outcome}")
        self._ended[request_id] = (trio.current_time(), outcome)
        if outcome == AlreadyRunningError.code:
            raise Violation(f"{request_id} is told of a hive that starts or ends, instead of being served by it")

    def heard(self, request_id: str, worker_id: str) -> None:
        """A token of a worker has arrived; those that never do are nobody's answer, and another worker may begin."""
        if self._answering.setdefault(request_id, worker_id) != worker_id:
            raise Violation(f"{request_id} is answered by two workers")

    @property
    def running(self) -> set[str]:
        return self._began.keys() - self._ended.keys()

    def outcomes(self) -> Counter[str]:
        return Counter(outcome for _, outcome in self._ended.values())

    def check_outcomes(self) -> None:
        """Nothing went wrong, and nobody was told to end: requests fail for reasons of their own alone."""
        for request_id, (at, outcome) in self._ended.items():
            if outcome not in OWN_REASONS and not outcome.endswith("tokens"):
                raise Violation(f"nothing went wrong, and {request_id} ended at {at:.3f} with {outcome}")

    def asked_for_list(self) -> None:
        second = int(trio.current_time())
        self._lists[second] += 1
        if self._lists[second] > LISTS:
            raise Violation(f"the list of workers is asked for more than {LISTS} times in a second")

    # After each step.

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.violation is not None or self._world is None:
            return
        try:
            self._check()
        except Violation as exc:
            self.violation = exc
            self.scope.cancel()

    def _check(self) -> None:
        """Look at what may have changed with this step: all that depends on time, and the pool when it tells so."""
        process, now = self._site.hive, trio.current_time()
        hive = process.hive if process is not None and process.is_running else None
        seen = (now, hive.changed.next if hive is not None else None)
        if now != self._seen[0]:
            self._steps = 0
            self._check_requests(now)
            self._check_workers(now)
        self._steps += 1
        if self._steps > STEPS:
            raise Violation(f"{STEPS} steps, and the clock still shows {now:.3f}")
        if hive is not None and seen != self._seen:
            self._check_pool(process.name, hive.pool, now)
            self._check_queue(hive.pool, now)
        self._seen = seen

    def _check_requests(self, now: float) -> None:
        for request_id in self.running:
            if now > self._began[request_id] + REQUEST_SECONDS:
                raise Violation(f"{request_id} has not ended {REQUEST_SECONDS:g} s after its start")

    def _check_workers(self, now: float) -> None:
        for process in self._world.processes.values():
            if not isinstance(process, Worker):
                continue
            status = process.status.now
            if not 0 <= status.slots_busy <= status.slots_total:
                raise Violation(f"{process.name} has {status.slots_busy} of {status.slots_total} slots busy")
            free = len(process.slots._free)
            running = process.slots._running.values()
            lent = sum(one.is_silent and one.slot is not None for one in running)
            if (busy := len(process.requests)) + free != status.slots_total or busy - lent != status.slots_busy:
                raise Violation(f"{process.name} has {busy} busy and {free} free slots, and shows {process.status}")
            if free and any(one.slot is None and not one.is_silent for one in running):
                raise Violation(f"{process.name} has {free} free slots, and one waits for its own")
            for request_id in process.requests.values():
                at, outcome = self._ended.get(request_id, (now, ""))
                if now > at + SLOT_SECONDS:
                    raise Violation(
                        f"{request_id} ended at {at:.3f} ({outcome}) and still has a slot of {process.name}"
                    )

    def _check_pool(self, hive: str, pool: Pool, now: float) -> None:
        starting: Counter[tuple[str, str, int]] = Counter()
        for worker in pool.workers.values():
            name, spec = self._world.trace.name(worker.id), worker.spec
            if not 0 <= worker.slots_available <= spec.slots:
                raise Violation(f"{name} shows {worker.slots_available} of {spec.slots} slots free")
            if worker.deadline is None and worker.phase != "serving":
                raise Violation(f"{name} is {worker.phase} and has no deadline")
            if worker.deadline is not None and worker.deadline < now - LATE:
                raise Violation(f"{name} is {worker.phase}, and its deadline has passed: {worker.deadline:.3f}")
            if worker.phase == "starting":
                starting[spec.model_ref, spec.backend, spec.device] += 1
            if worker.phase == "ending":
                since = self._ending.setdefault((hive, worker.id), now)
                if now > since + pool.limits.drain + pool.limits.unload + ENDING_SLACK:
                    raise Violation(f"{name} is to end since {since:.3f} and is still there")
            else:
                self._ending.pop((hive, worker.id), None)  # it had a request, and made no room
        for (model, backend, device), count in starting.items():
            if count > 1:
                raise Violation(f"{count} workers for {model} on {backend}:{device} start at the same time")
        for place in self._world.total:
            most = sum(
                worker.spec.memory
                for worker in pool.workers.values()
                if (worker.spec.resource, worker.spec.device) == place and worker.phase != "serving"
            )
            if not 0 <= pool.reserved(*place) <= most:
                raise Violation(f"{pool.reserved(*place)} bytes of {place} are reserved, for workers of {most}")

    def _check_queue(self, pool: Pool, now: float) -> None:
        """Nobody waits in line for what is free."""
        queen = self._world.queen
        if queen is None or not queen.is_running or self._world.drawn.reach_the_network:
            return
        queue = queen.node._loop._scheduler._queue
        waiting = queue.waiters
        if any(until < now - WAIT_SECONDS for until in queue.held_until()):
            raise Violation("a request waits for a worker that knows its beginning for longer than it wanted to")
        for order in waiting:
            if not queue.is_held(order, now) and any(_serves(worker, order.wanted) for worker in pool.workers.values()):
                since = self._free_since.setdefault(order, now)
                if now > since + WAIT_SECONDS:
                    raise Violation(f"a slot for {order.wanted} is free since {since:.3f}, and a request waits for it")
            else:
                self._free_since.pop(order, None)
        for order in self._free_since.keys() - set(waiting):
            del self._free_since[order]

    # When all is quiet.

    def check_quiet(self) -> None:
        """Nothing has happened for a while: what is known, what is stored and what runs must be the same."""
        running = {process.id: process for process in self._world.processes.values() if isinstance(process, Worker)}
        rows, hive = self._site.rows(), self._site.hive
        if self.running:
            raise Violation(f"{', '.join(sorted(self.running))} never ended")
        known = hive.hive.pool.workers if hive is not None and hive.is_running and hive.hive is not None else {}
        for kind, ids in (("knows", known.keys()), ("has stored", rows.keys())):
            if ids != running.keys():
                raise Violation(f"the hive {kind} {self._names(ids)}, and {self._names(running.keys())} run")
        for worker_id, process in running.items():
            if rows[worker_id] != (process.url, process.identity.pid):
                raise Violation(f"{process.name} is stored as {rows[worker_id]}")
            if process.status.now.slots_busy:
                raise Violation(f"{process.name} has {process.status.now.slots_busy} busy slots and no request")
            worker, is_now = known[worker_id], process.status.now.on_wire()
            if worker.phase != "ending" and (worker.state, worker.slots_available) != (
                is_now.state,
                is_now.slots_available,
            ):
                raise Violation(
                    f"{process.name} is {is_now}, and shown as {worker.state}, {worker.slots_available} free"
                )
        if hive is not None and hive.is_running and hive.hive is not None:
            self._check_books(hive.hive, hive.hive.pool)
            self._check_node(hive.hive.pool)

    def _check_node(self, pool: Pool) -> None:
        """Compare what the queen has in mind with the hive's own books."""
        if (queen := self._world.queen) is None or not queen.is_running:
            return
        node = queen.node._loop._scheduler
        held = {
            "requests": node._unanswered,
            "starts": node._starts,
            "line": node._queue.waiters,
            "next tries": node._retry_at,
            "hive's start": node._hive.waiting,
        }
        for name, left in held.items():
            if left:
                raise Violation(f"the queen's {name} still holds {left}")
        if reserved := node._queue.reservations.worker_ids() - pool.workers.keys():
            raise Violation(f"the queen still reserves slots of {self._names(reserved)}")
        rows = queen.node.mirror.rows
        seen = {worker_id: (row.state, row.slots_available) for worker_id, row in rows.items()}
        real = {worker.id: (worker.state, worker.slots_available) for worker in pool.workers.values()}
        if seen != real:
            raise Violation(f"the queen takes the workers to be {seen}, and they are {real}")

    def _check_books(self, hive: WorkerSupervisor, pool: Pool) -> None:
        for place in self._world.total:
            loading = sum(
                worker.spec.memory
                for worker in pool.workers.values()
                if (worker.spec.resource, worker.spec.device) == place and worker.state == "loading"
            )
            if (reserved := pool.reserved(*place)) != loading:
                raise Violation(f"{reserved} bytes of {place} are still reserved, and {loading} will be taken")
        held = hive.held()
        for name, worker_ids in held.items():
            if left := worker_ids - pool.workers.keys():
                raise Violation(f"the hive's {name} still holds {self._names(left)}")
        if held["starts"]:
            raise Violation("somebody still waits for a start")

    def check_empty(self) -> None:
        """Every worker has gone: nothing is held, stored or known any more."""
        self.check_quiet()
        for process in self._world.processes.values():
            if isinstance(process, Worker):
                raise Violation(f"{process.name} (pid {process.identity.pid}) is still there")
        for place in self._world.total:
            if used := self._world.used(*place):
                raise Violation(f"{used} bytes of {place} are still taken")

    def _names(self, ids: object) -> str:
        return ", ".join(sorted(self._world.trace.name(found) for found in ids)) or "nobody"  # type: ignore[attr-defined]


def _serves(worker: Any, wanted: Wanted) -> bool:
    """Tell whether a worker has a free slot for a request."""
    spec = worker.spec
    return (
        worker.slots_available > 0
        and spec.model_ref == wanted.model_ref
        and wanted.backend in (None, spec.backend)
        and wanted.device in (None, spec.device)
    )
