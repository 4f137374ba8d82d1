"""What callers may ask of a hive's workers: start one, end one, follow them all."""

from __future__ import annotations

import logging
import uuid
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.store.write_behind import WriteBehind
from rbee.concurrency.background import cancel_when
from rbee.concurrency.contained import as_error, contained
from rbee.concurrency.recent import Recent
from rbee.errors import DrainingError, OutOfMemoryError
from rbee.hive.workers import context_fit, rows, view
from rbee.hive.workers.execution import Execution, Start
from rbee.hive.workers.loop import DecisionLoop
from rbee.hive.workers.pool import Pool
from rbee.hive.workers.preflight import MEGABYTE, SHORTEST_CONTEXT
from rbee.hive.workers.room import Room
from rbee.wire import model_ref
from rbee.wire.common import Narration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.adapters.config import Timeouts
    from rbee.adapters.store.sqlite import Transact
    from rbee.hive.workers.effects import Effect
    from rbee.hive.workers.host import WorkerMachine
    from rbee.hive.workers.record import WorkerRecord, WorkerSpec
    from rbee.hive.workers.rows import LastKnownWorker
    from rbee.wire import hive as wire
    from rbee.wire.models import ModelRow
    from rbee.wire.progress import Report
    from rbee.wire.worker import EndedRequest

log = logging.getLogger(__name__)

BUSY_SECONDS: Final = 30.0
"""For requests to end whose workers stand in the way of another model, beside the time that a worker has to unload."""
LOOK_SECONDS: Final = 0.5
"""After which it is looked again whether there is memory, if nothing has changed here."""
MAX_ENDED: Final = 500
ACCEPT_SECONDS: Final = 3.0
"""For a worker to accept its end while a caller waits; less than a short call may take."""


class WorkerSupervisor:
    """The workers of one hive. Its loop alone changes `pool`; others read it."""

    def __init__(
        self, limits: Timeouts, machine: WorkerMachine, transact: Transact, *, max_memory: int | None = None
    ) -> None:
        self.pool = Pool(limits, max_memory)
        self._limits = limits
        self._machine = machine
        self._stopping = trio.Event()
        self._stored = WriteBehind(transact)
        self._loop = DecisionLoop(self.pool, self.perform)
        self.changed = self._loop.changed
        """Notified when `view`, `is_over` or `ended_requests` changes."""
        self.ended_requests: Recent[EndedRequest] = Recent(MAX_ENDED)
        """The last requests that ended at the workers."""

    async def run(self) -> None:
        """Run until the hive has been stopped and every worker is gone."""
        async with trio.open_nursery() as nursery:
            self._execution = Execution(
                nursery, self.pool, self._machine, self._stored, self._loop.decide, self._on_ended
            )
            nursery.start_soon(self._stored.run)
            await self._loop.run()
            self._stored.close()

    def _on_ended(self, request: EndedRequest) -> None:
        self.ended_requests.add(request)
        self.changed.notify()

    def perform(self, effects: Sequence[Effect]) -> None:
        """Carry out what was decided; called by the loop."""
        self._execution.perform(effects)

    @property
    def is_over(self) -> bool:
        """Whether the hive has been stopped and every worker is gone."""
        return self._loop.is_over

    def view(self) -> wire.WorkerList:
        return view.workers(self.pool)

    async def spawn(self, request: wire.SpawnRequest, report: Report) -> wire.SpawnReply:
        """Check, start a worker, and return once it answers HTTP; its model loads meanwhile.

        When the caller is cancelled the worker is started all the same: it is there for the next request.
        """
        wanted = await self._plan(request, report)
        await self.check_files()
        await self._wait_for_room(wanted)
        patience = trio.current_time() + self._limits.unload + BUSY_SECONDS
        while True:
            # A shorter context is better than to load another model again, which makes room; too short a one is not.
            is_there = await self._make_room(request, context_fit.shortened(wanted, context_fit.SURE), report, patience)
            spec = await self._fitted(request, wanted, context_fit.SURE if is_there else SHORTEST_CONTEXT)
            if spec is not wanted:
                report(Narration(actor="rbee-hive", action="context", target=spec.model_ref, human=_too_little(spec)))
            try:
                return await self._start(request, spec, report)
            except OutOfMemoryError as exc:
                # Another start has taken the room that both have waited for: it is waited for like those before.
                if not (is_there and exc.is_passing):
                    raise

    async def _fitted(self, request: wire.SpawnRequest, spec: WorkerSpec, least: int) -> WorkerSpec:
        """Return a spec with as long a context as there is memory for now, where it may be shortened."""
        found = spec

        def decide() -> Sequence[Effect]:
            nonlocal found
            if not (request.reuse and self.pool.like(spec) is not None):
                found = context_fit.fitted(spec, self.pool.left(spec, self._available(spec)), least)
            return ()

        await self._loop.ask(decide)
        return found

    async def _start(self, request: wire.SpawnRequest, spec: WorkerSpec, report: Report) -> wire.SpawnReply:
        start = Start(report)

        def decide() -> Sequence[Effect]:
            # Here, and not in the caller's task: what the caller saw of the workers is past.
            known = self.pool.like(spec) if request.reuse else None
            if known is not None:
                if known.phase == "starting":
                    self._execution.starts.setdefault(known.id, []).append(start)
                else:
                    start.outcome.settle(view.spawn_reply(known, self._machine.key_of(known.id)))
                return ()
            worker_id = str(uuid.uuid4())
            try:
                effects = self.pool.spawn(worker_id, spec, self._available(spec), trio.current_time())
            except Exception as exc:  # noqa: BLE001 (it is the caller's)
                start.outcome.settle(as_error(exc, "starting a worker"))
                return ()
            self._execution.starts[worker_id] = [start]
            return effects

        self._loop.decide(decide)
        return await start.outcome.wait()

    async def _plan(self, request: wire.SpawnRequest, report: Report) -> WorkerSpec:
        """Return what to start; gives up as soon as the hive stops.

        Reading a model's header may take seconds, and a hive whose workers are gone cuts what still runs: the caller
        would see a lost connection, and not that the next hive takes the request.
        """
        async with cancel_when(self._stopping):
            return await self._machine.plan(request, report)
        raise DrainingError("the hive is shutting down and starts no workers")

    async def _wait_for_room(self, spec: WorkerSpec) -> None:
        """Wait for the end of workers that have loaded what this model's file was before: both may not fit."""
        with trio.move_on_after(self._limits.unload):
            while True:
                changed = self.changed.next
                if not self.pool.is_in_the_way(spec):
                    return
                await changed.wait()

    async def _make_room(self, request: wire.SpawnRequest, spec: WorkerSpec, report: Report, patience: float) -> bool:
        """Have idle workers leave for a model that does not fit beside them, the longest idle first.

        Returns whether there is room, once there is, or it is clear that there will be none: the start says with which
        numbers. Where those that have requests stand in the way, their end is waited for, until `patience` is over.
        """

        def tell(action: str, target: str, human: str) -> None:
            log.info("%s", human)
            report(Narration(actor="rbee-hive", action=action, target=target, human=human))

        is_told = False
        with trio.move_on_at(patience):
            while True:
                changed, now = self.changed.next, trio.current_time()
                # One that has its last request just now is in none of these, and has been idle for no time.
                workers = self.pool.workers.values()
                idle_from = {one.id: one.idle_from for one in workers if one.idle_from is not None}
                room = await self._find_room(request, spec)
                for worker in room.leaving:
                    idle, own = now - idle_from.get(worker.id, now), worker.spec
                    what = f"idle for {idle:.0f} s, {own.memory // MEGABYTE} MB"
                    tell("make_room", worker.id, f"{own.model_ref} makes room for {spec.model_ref}: {what}")
                if room.waits_for and not is_told:
                    is_told = True
                    names = ", ".join(sorted({worker.spec.model_ref for worker in room.waits_for}))
                    tell("wait", spec.model_ref, f"Waiting for room: {names} in use")
                if not room.is_coming:
                    return room.is_there
                with trio.move_on_after(LOOK_SECONDS):
                    await changed.wait()
        return False

    async def _find_room(self, request: wire.SpawnRequest, spec: WorkerSpec) -> Room:
        found = Room([])

        def decide() -> Sequence[Effect]:
            nonlocal found
            if self.pool.is_stopping or (request.reuse and self.pool.like(spec) is not None):
                return ()
            found, effects = self.pool.make_room(spec, self._available(spec), trio.current_time(), request.awaited)
            return effects

        await self._loop.ask(decide)
        return found

    def _available(self, spec: WorkerSpec) -> int:
        """Return the bytes free on a device, without those that look so, and that workers need."""
        is_ram = spec.resource == "ram"
        promised = sum(map(self._machine.promised_memory, self.pool.workers.values())) if is_ram else 0
        return self._machine.available_memory(spec) - promised

    async def check_files(self) -> None:
        """Have workers whose model's files were replaced take no more requests, and end once they are idle."""
        async with trio.open_nursery() as nursery:
            for worker in self.pool.workers.values():
                if not worker.is_outdated:
                    nursery.start_soon(self._check_files_of, worker)

    async def _check_files_of(self, worker: WorkerRecord) -> None:
        with contained(f"looking at the files of worker {worker.id}"):
            if not await self._machine.has_its_files(worker):
                log.info("worker %s has loaded a file that was replaced since; it ends when it is idle", worker.id)
                await self._loop.ask(partial(self._outdated, worker.id))

    def _outdated(self, worker_id: str) -> Sequence[Effect]:
        return self.pool.outdated(worker_id, trio.current_time())

    async def watch_files(self) -> None:
        """Check the files at the pace of health checks, for requests that no hive is asked about."""
        while True:
            await trio.sleep(self._limits.health_interval)
            await self.check_files()

    async def called_back(self, callback: wire.ReadyCallback) -> None:
        """A worker has bound its port. Raises WorkerNotFoundError."""
        await self._loop.ask(lambda: self.pool.called_back(callback.worker_id, callback.url, trio.current_time()))

    async def end_worker(self, worker_id: str) -> None:
        """Begin to end a worker; returns once it has accepted that. Raises WorkerNotFoundError.

        One that does not accept it is ended all the same: a caller waits for it no longer than a short call may take.
        """
        await self._loop.ask(lambda: self.pool.end(worker_id, trio.current_time()))
        with trio.move_on_after(ACCEPT_SECONDS):
            await self._execution.wait_end_reply(worker_id)

    async def users_of(self, row: ModelRow) -> list[str]:
        """Return the ids of the workers that have a model, including those that still start."""
        users: list[str] = []

        def find_users() -> Sequence[Effect]:
            for worker in self.pool.workers.values():
                # Of a worker that an earlier hive started only the reference is known, and it may be another name.
                ref = model_ref.parse(worker.spec.model_ref)
                is_adopted = not worker.spec.path and (ref.provider, ref.reference) == (row.provider, row.reference)
                if is_adopted or worker.spec.path == row.local_path:
                    users.append(worker.id)
            return ()

        await self._loop.ask(find_users)
        return users

    def adopt(self, known: LastKnownWorker) -> None:
        def decide() -> Sequence[Effect]:
            effects = self.pool.adopt(known.id, known.spec, known.url, known.identity.pid, trio.current_time())
            self._execution.watch_adopted(self.pool.workers[known.id], self._machine.adopted(known.identity))
            return effects

        self._loop.decide(decide)

    def forget(self, worker_id: str) -> None:
        """Delete the row of a worker that has ended since an earlier hive stored it."""
        self._stored.put(worker_id, partial(rows.delete, worker_id=worker_id))

    def stop(self) -> None:
        """Begin to end every worker; `run` returns once they are gone."""
        self._stopping.set()
        self._loop.decide(lambda: self.pool.stop(trio.current_time()))

    def force(self) -> None:
        self._loop.decide(lambda: self.pool.force(trio.current_time()))

    def held(self) -> dict[str, set[str]]:
        """Return the workers that callers wait for, and those for which anything else is held beside the pool."""
        return {"starts": set(self._execution.starts), "execution": self._execution.worker_ids}


def _too_little(spec: WorkerSpec) -> str:
    return f"There is not the memory now for as long a context as the model could have: {context_fit.in_words(spec)}"
