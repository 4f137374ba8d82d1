"""The machine under a simulated hive: what stands where `LocalMachine` starts, asks and ends real processes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.daemon.announce import SilentEndError
from rbee.adapters.http.sse_client import StreamLostError
from rbee.errors import BackendUnavailableError, ModelInUseError, ModelNotFoundError, RbeeError, SpawnFailedError
from rbee.hive.workers.processes import STREAM_PAUSE
from rbee.hive.workers.record import WorkerSpec
from tests.simulation.worker import Worker, key_of
from tests.simulation.world import NEEDED, Violation

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Collection

    from rbee.adapters.daemon.process import Identity
    from rbee.hive.workers.record import Resource, WorkerRecord
    from rbee.wire.common import Narration
    from rbee.wire.hive import SpawnRequest
    from rbee.wire.worker import WorkerStatus
    from tests.simulation.network import Network
    from tests.simulation.world import Process, World

HEALTH_SECONDS: Final = 5.0
ACKNOWLEDGE_SECONDS: Final = 5.0
PIPE_SECONDS: Final = 1.0
"""How long after a process's end the loop may still take it to run: so long it waits for its pipe."""
DEVICES: Final[dict[tuple[str, int], Resource]] = {("cpu", 0): "ram", ("cuda", 0): "vram", ("cuda", 1): "vram"}


class SimulatedProcess:
    """A worker's process, as the hive that started it has it, or as one that adopted it."""

    def __init__(self, world: World, identity: Identity, *, is_adopted: bool) -> None:
        self.identity = identity
        self._world = world
        self._process = world.find(identity)
        self._is_adopted = is_adopted
        self._ended_at = trio.current_time()

    def send(self, number: signal.Signals) -> None:
        process = self._process
        if process is None or not process.is_running:
            ended_at = process.ended_at if process is not None else self._ended_at
            if trio.current_time() > ended_at + PIPE_SECONDS + 1:
                raise Violation(f"{number.name} is sent to pid {self.identity.pid}, which ended at {ended_at:.3f}")
            return
        assert isinstance(process, Worker)
        self._world.trace.add(process.name, f"gets {number.name}")
        if number.name == "SIGTERM":
            process.terminate()
        else:
            process.kill()

    async def listen(self, report: Callable[[Narration], None]) -> None:
        if self._is_adopted:
            return
        assert isinstance(self._process, Worker)
        async for item in self._process.announced:
            if item is None:
                return
            if isinstance(item, RbeeError):
                raise item
            report(item)
        raise SilentEndError("the process ended before it was ready")

    async def wait(self) -> str:
        if self._process is None:
            await trio.lowlevel.checkpoint()
            return "it ended before it was adopted"
        await self._process.ended.wait()
        return self._process.how or ""


class SimulatedMachine:
    """What one hive can do; once its process has been killed, nothing."""

    def __init__(self, hive: Process, network: Network, chance_name: str) -> None:
        self._hive = hive
        self._world = hive.world
        self._network = network
        self._chance = hive.world.chance(chance_name)

    async def _pause(self, most: float) -> None:
        await trio.sleep(self._chance.choice((0, self._chance.uniform(0, most))))

    async def plan(self, request: SpawnRequest, report: Callable[[Narration], None]) -> WorkerSpec:
        await self._pause(1)
        model = request.reference()
        backend, device = request.backend or "cpu", request.device or 0
        if model not in NEEDED:
            raise ModelNotFoundError("there is no such model")
        if (backend, device) not in DEVICES:
            raise BackendUnavailableError("there is no such backend")
        memory = NEEDED[model]
        return WorkerSpec(
            model, f"/{model}.gguf", backend, device, DEVICES[backend, device], self._world.slots, 512, memory
        )

    def available_memory(self, spec: WorkerSpec) -> int:
        return self._world.free(spec.resource, spec.device)

    def promised_memory(self, worker: WorkerRecord) -> int:
        return 0

    def key_of(self, worker_id: str) -> str:
        return key_of(worker_id)

    async def launch(self, worker: WorkerRecord) -> SimulatedProcess:
        await self._pause(0.2)
        if self._chance.random() < self._world.faults.launch_fails:
            raise SpawnFailedError("the worker's process cannot be started: resource temporarily unavailable")
        process = Worker(self._world, self._network, worker.id, worker.spec, self._hive)
        process.ports_from = worker.ports_from or process.ports_from
        self._world.trace.add(process.name, f"starts, pid {process.identity.pid}, for {worker.spec.model_ref}")
        self._world.nursery.start_soon(process.run)
        child = SimulatedProcess(self._world, process.identity, is_adopted=False)
        await self._pause(0.1)
        return child

    def adopted(self, identity: Identity) -> SimulatedProcess:
        return SimulatedProcess(self._world, identity, is_adopted=True)

    async def follow(self, worker: WorkerRecord, on_status: Callable[[WorkerStatus], None]) -> None:
        assert worker.url is not None
        key, name = key_of(worker.id), f"the events of {self._world.trace.name(worker.id)}"
        while True:
            with suppress(StreamLostError, RbeeError):
                await self._network.stream(worker.url, name, lambda found, send: found.follow(key, send), on_status)
            await trio.sleep(STREAM_PAUSE)

    async def is_alive(self, worker: WorkerRecord) -> bool:
        assert worker.url is not None
        try:
            told = await self._network.call(
                worker.url, "a health check", lambda found: found.tell_id(), seconds=HEALTH_SECONDS
            )
        except RbeeError:
            return False
        return told == worker.id

    async def has_its_files(self, worker: WorkerRecord) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async def ask_to_end(self, worker: WorkerRecord) -> bool:
        return await self._shut_down(worker, only_if_idle=False)

    async def ask_to_leave(self, worker: WorkerRecord) -> bool:
        return await self._shut_down(worker, only_if_idle=True)

    async def _shut_down(self, worker: WorkerRecord, *, only_if_idle: bool) -> bool:
        assert worker.url is not None
        key = key_of(worker.id)
        try:
            await self._network.call(
                worker.url,
                "a shutdown",
                lambda found: found.shut_down(key, only_if_idle=only_if_idle),
                seconds=ACKNOWLEDGE_SECONDS,
            )
        except ModelInUseError:
            raise
        except RbeeError:
            return False
        return True

    async def remove_old_logs(self, running: Collection[str]) -> None:
        await trio.lowlevel.checkpoint()

    def log_name(self, worker_id: str) -> str:
        return f"worker-{worker_id}.log"

    def last_lines(self, worker_id: str) -> list[str]:
        return []
