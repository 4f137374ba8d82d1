"""A simulated hive's process: the product's loop, pool, registry and reconciliation over a simulated machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from rbee.errors import RbeeError, StorageError
from rbee.hive.workers import rows, view
from rbee.hive.workers.effects import Launch, Reply
from rbee.hive.workers.supervisor import WorkerSupervisor
from tests.simulation.machine import SimulatedMachine
from tests.simulation.world import Process, Violation

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from rbee.adapters.config import Timeouts
    from rbee.adapters.daemon.process import Identity
    from rbee.hive.workers.effects import Effect
    from rbee.wire.hive import ReadyCallback, SpawnRequest, WorkerList
    from tests.simulation.network import Network, Send
    from tests.simulation.world import World

HIVE_URL: Final = "http://node:9200"


class WatchedSupervisor(WorkerSupervisor):
    """The product's supervisor, with its decisions written down and counted."""

    def __init__(self, process: HiveProcess, limits: Timeouts, machine: SimulatedMachine, transact: Any) -> None:
        super().__init__(limits, machine, transact)
        self._process = process

    def perform(self, effects: Sequence[Effect]) -> None:
        if not self._process.is_running:
            return  # killed in the middle of a step
        trace = self._process.world.trace
        for effect in effects:
            worker, kind = effect.worker, type(effect).__name__
            if kind not in ("Save", "CheckHealth"):
                trace.add(self._process.name, f"{kind} {trace.name(worker.id)} ({worker.phase})")
            if isinstance(effect, Reply):
                self._process.once("replied to", worker.id)
            if isinstance(effect, Launch):
                self._process.once("launched", worker.id)
        super().perform(effects)


class HiveProcess(Process):
    """One hive, from its start to its end; the registry and the workers outlive it."""

    def __init__(self, world: World, network: Network, registry: sqlite3.Connection, limits: Timeouts, number: int):
        super().__init__(world, f"hive{number}")
        self.limits = limits
        self.answers = trio.Event()
        self.hive: WatchedSupervisor | None = None
        self._done: set[tuple[str, str]] = set()
        self._network = network
        self._registry = registry
        self._chance = world.chance(self.name)

    async def main(self) -> str:
        try:
            known = rows.compare(await self._transact(rows.last_known), self._is_running)
        except RbeeError as exc:
            return f"exit code 1: {exc.message}"
        await trio.sleep(self._chance.uniform(0, 1))
        machine = SimulatedMachine(self, self._network, f"machine of {self.name}")
        self.hive = WatchedSupervisor(self, self.limits, machine, self._transact)
        for worker in known.surviving:
            self.hive.adopt(worker)
        for worker_id in known.gone:
            self.hive.forget(worker_id)
        self.listen(HIVE_URL)
        self.answers.set()
        if every := self.world.faults.hive_deaf_every:
            self.nursery.start_soon(self.grow_deaf, self._chance, every)
        self.world.trace.add(
            self.name, f"answers; adopts {', '.join(worker.id for worker in known.surviving) or 'nobody'}"
        )
        await self.hive.run()
        self.stop_listening()
        await trio.sleep(self._chance.uniform(0, 0.5))
        return "exit code 0"

    def _is_running(self, identity: Identity) -> bool:
        return self.world.find(identity) is not None

    async def _transact(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run `work` at once: threads and the mock clock do not mix."""
        await trio.sleep(self._chance.choice((0, 0, 0.01)))
        if not self.is_running:
            await trio.sleep_forever()
        if self._chance.random() < self.world.faults.registry_fails:
            self.world.trace.add(self.name, "cannot use its registry")
            raise StorageError("models.db: database or disk is full")
        with self._registry:
            self._registry.execute("BEGIN IMMEDIATE")
            result = work(self._registry)
        await trio.sleep(self._chance.choice((0, 0, 0.01)))
        return result

    def once(self, what: str, worker_id: str) -> None:
        """Note what may happen to a worker's start only once."""
        if (what, worker_id) in self._done:
            raise Violation(f"the start of {self.world.trace.name(worker_id)} is {what} twice")
        self._done.add((what, worker_id))

    def stop(self) -> None:
        """Begin its end, as a signal does."""
        if self.hive is None:
            self.end("SIGTERM")
        else:
            self.hive.stop()

    def force(self) -> None:
        if self.hive is not None:
            self.hive.force()

    # What it answers.

    def _serving(self) -> WatchedSupervisor:
        assert self.hive is not None
        return self.hive

    async def called_back(self, callback: ReadyCallback) -> None:
        await self._serving().called_back(callback)

    async def end_worker(self, worker_id: str) -> None:
        await self._serving().end_worker(worker_id)

    async def list_workers(self) -> WorkerList:
        self.world.rules.asked_for_list()
        return self._serving().view()

    async def spawn(self, request: SpawnRequest, send: Send) -> None:
        """Start a worker; what is told meanwhile is for nobody here."""
        await send(await self._serving().spawn(request, lambda _: None))

    async def follow(self, send: Send) -> None:
        """Send what is, then every change that lasts until it is sent, as the hive's `/v1/events` does."""
        hive, told = self._serving(), None
        while True:
            changed = hive.changed.next
            now = hive.view()
            for _, message in view.changes(told, now):
                await send(message)
            told = now
            if hive.is_over:
                return
            await changed.wait()
