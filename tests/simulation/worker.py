"""A simulated worker: the product's own slots, status and orphan rule around a model that takes its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import trio

from rbee.adapters.daemon.lifecycle import Stopping
from rbee.concurrency.background import cancel_when
from rbee.errors import (
    CancelledError,
    DrainingError,
    InferenceTimeoutError,
    InvalidApiKeyError,
    ModelInUseError,
    ModelLoadFailedError,
    RbeeError,
    SpawnFailedError,
)
from rbee.wire.common import Narration
from rbee.wire.error_body import to_body
from rbee.wire.hive import ReadyCallback
from rbee.wire.worker import LoadingProgress, Readiness
from rbee.worker.engine.sequence import JobEnded, TextEvent
from rbee.worker.engine.slots import Slots
from rbee.worker.status.metrics import WorkerMetrics
from rbee.worker.status.orphan import end_when_orphaned
from rbee.worker.status.status import Status
from tests.simulation.world import NEEDED, Process, Violation

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from rbee.hive.workers.record import WorkerSpec
    from rbee.worker.engine.sequence import EngineEvent, Job
    from rbee.worker.engine.slots import JobHandle
    from tests.simulation.network import Network, Send
    from tests.simulation.world import World

ORPHAN_SECONDS: Final = 120.0
DRAIN_SECONDS: Final = 30.0
INFERENCE_SECONDS: Final = 300.0
LAYERS: Final = 4
TOKEN_SECONDS: Final = 0.8
"""A decode step of the simulated engine."""


def key_of(worker_id: str) -> str:
    return f"key of {worker_id}"


class Engine:
    """Generates tokens at a steady pace, and stands where the thread around llama.cpp does."""

    def __init__(self, nursery: trio.Nursery, deliver: Callable[[list[EngineEvent]], None]) -> None:
        self._nursery = nursery
        self._deliver = deliver
        self._cancelled: set[int] = set()
        self._preempted: dict[int, trio.Event] = {}
        self.running: dict[int, int] = {}
        """Which job has which slot."""
        self.names: dict[int, str] = {}
        """The request of each job."""

    def start(self, job: Job) -> None:
        self._enter(job.number, job.slot)
        self._nursery.start_soon(self._generate, job)

    def _enter(self, number: int, slot: int) -> None:
        if slot in self.running:
            raise Violation(f"slot {slot} is given out twice")
        self.running[slot] = number

    def _leave(self, number: int) -> None:
        for slot in [slot for slot, found in self.running.items() if found == number]:
            del self.running[slot]

    def cancel(self, number: int) -> None:
        self._cancelled.add(number)
        if number in self._preempted:
            self._preempted[number].set()

    def preempt(self, number: int) -> None:
        self._leave(number)
        self._preempted[number] = trio.Event()

    def resume(self, number: int, slot: int) -> None:
        self._enter(number, slot)
        self._preempted.pop(number).set()

    async def _generate(self, job: Job) -> None:
        for count in range(1, job.limit + 1):
            await trio.sleep(TOKEN_SECONDS)
            while job.number in self._preempted and job.number not in self._cancelled:
                await self._preempted[job.number].wait()
            is_cancelled = job.number in self._cancelled
            if is_cancelled or count == job.limit:
                self._leave(job.number)
                outcome: Any = CancelledError("the request was cancelled") if is_cancelled else "length"
                self._deliver([JobEnded(job.number, "x", count, outcome)])
                return
            self._deliver([TextEvent(job.number, "x", count)])


class Worker(Process):
    """One worker's process, from the fork to its exit."""

    def __init__(self, world: World, network: Network, worker_id: str, spec: WorkerSpec, hive: Process) -> None:
        super().__init__(world, world.trace.name(worker_id))
        self.id = worker_id
        self.spec = spec
        self.ports_from = 8001
        self.status = Status(spec.slots)
        self.slots = Slots(self.status, WorkerMetrics(self.status))
        self._announcements, self.announced = trio.open_memory_channel["Narration | RbeeError | None"](100)
        self._engine: Engine | None = None
        self._network = network
        self._hive = hive
        self._stopping = Stopping()
        self._chance = chance = world.chance(f"worker {self.name}")
        self._draw(chance)

    def _draw(self, chance: random.Random) -> None:
        faults = self.world.faults

        def happens(share: float) -> bool:
            return chance.random() < share

        self.start_seconds = chance.uniform(25, 40) if happens(faults.slow_start) else chance.uniform(0, 2)
        self.dies_at_start = chance.choice(("error", "silence")) if happens(faults.dies_at_start) else None
        self.load_seconds = chance.uniform(200, 400) if happens(faults.slow_load) else chance.uniform(0, 30)
        self.load_fails = happens(faults.load_fails)
        self.load_hangs = happens(faults.load_hangs)
        self.refuses_shutdown = happens(faults.refuses_shutdown)
        self.ignores_sigterm = happens(faults.ignores_sigterm)
        self.exit_seconds = chance.uniform(1, 20) if happens(faults.slow_exit) else chance.uniform(0, 0.5)
        self.holds_pipe = happens(faults.holds_pipe)
        self.crash_after = chance.expovariate(1 / faults.crash_every) if faults.crash_every else None

    # What it does.

    async def main(self) -> str:
        if self.crash_after is not None:
            self.nursery.start_soon(self._crash, self.crash_after)
        if every := self.world.faults.deaf_every:
            self.nursery.start_soon(self.grow_deaf, self._chance, 5 * every)
        if every := self.world.faults.told_to_end_every:
            self.nursery.start_soon(self._be_told, self._chance.expovariate(1 / (5 * every)))
        await trio.sleep(self.start_seconds)
        if self.dies_at_start is not None:
            if self.dies_at_start == "error":
                self._announce(SpawnFailedError("no port is free"))
            return "exit code 1"
        self.listen(self._free_url())
        self.world.trace.add(self.name, f"answers at {self.url}")
        self._announce(Narration(actor="llm-worker-rbee", action="http_ready", target=self.id, human="answers"))
        how: list[str] = []
        async with trio.open_nursery() as work:
            self._engine = Engine(work, self.slots.deliver)
            work.start_soon(self._work, how)
            work.start_soon(end_when_orphaned, self.status, ORPHAN_SECONDS, self._stopping.ask)
            await self._stopping.asked.wait()
            self.world.trace.add(self.name, f"drains {self.status.now.slots_busy} requests")
            await self._drain()
            work.cancel_scope.cancel()
        self.status.close()
        await trio.sleep(self.exit_seconds)
        return how[0] if how else "exit code 0"

    def _announce(self, item: Narration | RbeeError | None) -> None:
        """Write a line to the hive's pipe; None says that it is ready."""
        if self._hive.is_running:
            self._announcements.send_nowait(item)

    def _free_url(self) -> str:
        port = self.ports_from
        while f"http://node:{port}" in self.world.listeners:
            port += 1
        return f"http://node:{port}"

    async def _work(self, how: list[str]) -> None:
        """Tell the hive, load, and serve."""
        callback = ReadyCallback(
            worker_id=self.id,
            url=self.url,
            model_ref=self.spec.model_ref,
            backend=self.spec.backend,
            device=self.spec.device,
        )
        try:
            await self._network.call(
                self._hive.url, f"the callback of {self.name}", lambda hive: hive.called_back(callback), repeats=True
            )
        except RbeeError as exc:
            self.world.trace.add(self.name, f"cannot call back: {exc.message}")
            self._announce(exc)
            how.append("exit code 1")
            self._stopping.ask()
            return
        self._announce(None)
        await self._load()

    async def _load(self) -> None:
        place = (self.spec.resource, self.spec.device)
        needed = NEEDED[self.spec.model_ref]
        for layer in range(1, LAYERS + 1):
            self._take(place, needed * layer**2 // LAYERS**2)
            self.status.set_loading(LoadingProgress(layers_loaded=layer, layers_total=LAYERS, vram_mb=0))
            await trio.sleep(self.load_seconds / LAYERS)
            if layer == LAYERS // 2 and self.load_hangs:
                self.world.trace.add(self.name, "hangs while it loads")
                await trio.sleep_forever()
            if layer == LAYERS // 2 and self.load_fails:
                self.memory.clear()
                self.world.trace.add(self.name, "cannot load its model")
                self.status.set_failed(ModelLoadFailedError("the file is corrupt"))
                return
        self.world.trace.add(self.name, "has loaded its model")
        self.status.set_loaded()

    def _take(self, place: tuple[str, int], memory: int) -> None:
        self.memory[place] = memory
        if (over := -self.world.free(*place)) > 0 and not self.world.drawn.registry_fails:
            # Where the registry cannot be written, a hive may not know of a worker that an earlier one started.
            raise Violation(f"{self.name} takes {over / 1e6:.0f} MB of {place[0]} {place[1]} more than there are")

    async def _drain(self) -> None:
        """End as `Service.drain` does."""
        self.status.set_draining()
        with trio.move_on_after(DRAIN_SECONDS):
            async with cancel_when(self._stopping.forced):
                await self.status.wait_idle()
        if self.status.now.slots_busy:
            self.slots.cancel_all(DrainingError("the worker is shutting down"))
            with trio.move_on_after(2):
                await self.status.wait_idle()

    async def _be_told(self, seconds: float) -> None:
        """Somebody who is not the hive tells it to end."""
        await trio.sleep(seconds)
        self._stopping.ask()

    async def _crash(self, seconds: float) -> None:
        await trio.sleep(seconds)
        self.end("SIGSEGV")

    def kill(self) -> None:
        """SIGKILL has come; a process deep in the kernel ends a little later."""
        self.world.nursery.start_soon(self._end_soon)

    async def _end_soon(self) -> None:
        await trio.sleep(self._chance.choice((0, 0.3)))
        self.end("SIGKILL")

    def end(self, how: str) -> None:
        super().end(how)
        if not self.holds_pipe:
            self._announcements.close()

    def terminate(self) -> None:
        """SIGTERM has come."""
        if self.ignores_sigterm:
            self.world.trace.add(self.name, "ignores SIGTERM")
        elif not self.url:
            self.end("SIGTERM")
        else:
            self._stopping.on_signal()

    @property
    def requests(self) -> dict[int, str]:
        """Who has which slot of the engine."""
        engine = self._engine
        return {slot: engine.names.get(number, "somebody") for slot, number in engine.running.items()} if engine else {}

    # What it answers.

    def check_key(self, key: str) -> None:
        if key != key_of(self.id):
            raise InvalidApiKeyError("the key is not that of this worker")

    async def tell_id(self) -> str:
        return self.id

    async def tell_ready(self) -> Readiness:
        now = self.status.now
        error = None if now.error is None else to_body(now.error)["error"]
        return Readiness(ready=now.is_ready, state=now.state, error=error)

    async def follow(self, key: str, send: Send) -> None:
        """Send what is, then every change, as the worker's `/v1/events` does."""
        self.check_key(key)
        sent = None
        with self.status.followed():
            while True:
                changed, now = self.status.changed, self.status.now
                if (state := now.on_wire()) != sent:
                    sent = state
                    await send(state)
                if now.is_closed:
                    return
                await changed.wait()

    async def shut_down(self, key: str, *, only_if_idle: bool = False) -> None:
        self.check_key(key)
        if only_if_idle:
            if self.status.now.running:
                raise ModelInUseError("the worker has a request")
            self.status.set_draining()
        if self.refuses_shutdown:
            self.world.trace.add(self.name, "does not accept its shutdown")
            await trio.sleep_forever()
        self._stopping.ask()

    async def infer(self, key: str, request_id: str, tokens: int, send: Send) -> None:
        """Generate, and send each token and the end."""
        self.check_key(key)
        self.status.check_ready()
        options: Any = None
        job = self.slots.start(self._engine, request_id, [1], options, tokens)  # type: ignore[arg-type]
        self._engine.names[job.number] = request_id
        if every := self.world.faults.silent_every:
            self.nursery.start_soon(self._pause_reading, job, every)
        try:
            with trio.fail_after(INFERENCE_SECONDS):
                async with job:
                    await self._send_events(job, send)
        except trio.TooSlowError:
            raise InferenceTimeoutError("the inference did not end in time") from None

    async def _pause_reading(self, job: JobHandle, every: float) -> None:
        """Have the reader take nothing for a while, now and then."""
        chance = self.world.chance(f"reader of {job.request_id}")
        while not job.has_ended:
            await trio.sleep(chance.expovariate(10 / every))
            self.slots.set_silent(job, True)
            await trio.sleep(chance.uniform(0, 60))
            self.slots.set_silent(job, False)

    async def _send_events(self, job: JobHandle, send: Send) -> None:
        while True:
            for event in await job.next():
                if isinstance(event, JobEnded) and isinstance(event.outcome, RbeeError):
                    raise event.outcome
                await send(("done" if isinstance(event, JobEnded) else "token", event.tokens))
                if isinstance(event, JobEnded):
                    return

    async def cancel(self, key: str, request_id: str) -> None:
        self.check_key(key)
        if (job := self.slots.find(request_id)) is not None:
            await job.cancel()
