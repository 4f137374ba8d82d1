"""A machine for a hive's workers without processes or sockets: the test says when something happens."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from rbee.adapters.daemon.process import Identity
from rbee.errors import ModelInUseError
from rbee.hive.workers.record import WorkerSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rbee.hive.workers.record import WorkerRecord
    from rbee.wire.common import Narration
    from rbee.wire.hive import SpawnRequest
    from rbee.wire.progress import Report
    from rbee.wire.worker import WorkerStatus

SPEC = WorkerSpec("builtin:bee-stories", "/m.gguf", "cpu", 0, "ram", 4, 512, 1)


class StandInProcess:
    """A worker's process; SIGKILL ends it, and SIGTERM does unless `is_stubborn`."""

    def __init__(self, identity: Identity, *, is_stubborn: bool = False) -> None:
        self.identity = identity
        self.signals: list[signal.Signals] = []
        self.ended = trio.Event()
        self._is_stubborn = is_stubborn

    def send(self, number: signal.Signals) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL or not self._is_stubborn:
            self.ended.set()

    async def listen(self, report: Callable[[Narration], None]) -> None:
        await trio.lowlevel.checkpoint()

    async def wait(self) -> str:
        await self.ended.wait()
        return self.signals[-1].name if self.signals else "exit code 0"


class StandInMachine:
    """Plans `SPEC` once `may_plan` is set; `launched` and `adopted_ones` are the processes by the worker's id or pid.

    Workers accept their end only where `accepts_end`, and end then; those `with_requests` make no room. The files of
    those in `replaced` were replaced, and of those in `failing` it cannot be found out; `on_status` publishes a
    worker's state. Of the `free` memory
    they take nothing, and give theirs back when they make room.
    """

    def __init__(self) -> None:
        self.planning = trio.Event()
        self.may_plan = trio.Event()
        self.may_plan.set()
        self.launched: dict[str, StandInProcess] = {}
        self.adopted_ones: dict[int, StandInProcess] = {}
        self.is_followed: set[str] = set()
        self.accepts_end = True
        self.free = 10**9
        self.with_requests: set[str] = set()
        self.is_stubborn = False
        self.replaced: set[str] = set()
        self.failing: set[str] = set()
        self.on_status: dict[str, Callable[[WorkerStatus], None]] = {}

    async def plan(self, request: SpawnRequest, report: Report) -> WorkerSpec:
        self.planning.set()
        await self.may_plan.wait()
        return replace(SPEC, model_ref=request.model_ref)

    def available_memory(self, spec: WorkerSpec) -> int:
        return self.free

    def promised_memory(self, worker: WorkerRecord) -> int:
        return 0

    def key_of(self, worker_id: str) -> str:
        return f"key of {worker_id}"

    async def launch(self, worker: WorkerRecord) -> StandInProcess:
        await trio.lowlevel.checkpoint()
        identity = Identity(1000 + len(self.launched), 1, "boot")
        process = self.launched[worker.id] = StandInProcess(identity, is_stubborn=self.is_stubborn)
        return process

    def adopted(self, identity: Identity) -> StandInProcess:
        process = self.adopted_ones[identity.pid] = StandInProcess(identity)
        return process

    async def follow(self, worker: WorkerRecord, on_status: Callable[[WorkerStatus], None]) -> None:
        self.is_followed.add(worker.id)
        self.on_status[worker.id] = on_status
        try:
            await trio.sleep_forever()
        finally:
            self.is_followed.remove(worker.id)

    async def is_alive(self, worker: WorkerRecord) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async def has_its_files(self, worker: WorkerRecord) -> bool:
        await trio.lowlevel.checkpoint()
        if worker.id in self.failing:
            raise RuntimeError("what nobody foresaw")
        return worker.id not in self.replaced

    async def ask_to_end(self, worker: WorkerRecord) -> bool:
        if not self.accepts_end:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if (process := self.launched.get(worker.id)) is not None:
            process.ended.set()
        return True

    async def ask_to_leave(self, worker: WorkerRecord) -> bool:
        if worker.id in self.with_requests:
            raise ModelInUseError("the worker has a request")
        self.free += worker.spec.memory
        return await self.ask_to_end(worker)

    def log_name(self, worker_id: str) -> str:
        return f"worker-{worker_id}.log"

    async def remove_old_logs(self, running: Collection[str]) -> None:
        await trio.lowlevel.checkpoint()

    def last_lines(self, worker_id: str) -> list[str]:
        return []
