"""Starts, asks and ends the worker processes of this machine."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import trio

from rbee.adapters import tokens
from rbee.adapters.daemon import announce, process
from rbee.adapters.hardware import inventory
from rbee.adapters.http import sse_client
from rbee.adapters.logs import tail, worker_files
from rbee.clients.worker import WorkerClient
from rbee.errors import ModelInUseError, RbeeError, SpawnFailedError
from rbee.hive.workers import context_fit, model_files
from rbee.hive.workers.make_spec import available_memory, plan

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Collection
    from pathlib import Path

    from rbee.adapters.config import Settings
    from rbee.hive.models.library import Library
    from rbee.hive.workers.record import WorkerRecord, WorkerSpec
    from rbee.wire.common import Narration
    from rbee.wire.hive import SpawnRequest
    from rbee.wire.progress import Report
    from rbee.wire.worker import WorkerStatus

log = logging.getLogger(__name__)

STREAM_PAUSE = 1.0
"""Seconds between two attempts to hold a worker's event stream."""


class AdoptedProcess:
    """A worker's process that an earlier hive started: not our child, so we cannot learn its exit status."""

    def __init__(self, identity: process.Identity) -> None:
        self.identity = identity

    def send(self, number: signal.Signals) -> None:
        process.send_signal(self.identity, number)

    async def listen(self, report: Callable[[Narration], None]) -> None:
        """Return at once: it announced itself to the hive that started it."""

    async def wait(self) -> str:
        await process.wait_gone(self.identity)
        return "it ended, and only the hive that started it could have learnt how"


class ChildProcess(AdoptedProcess):
    """One that we have started."""

    def __init__(self, child: trio.Process) -> None:
        self._child = child
        # A process that has ended already is still ours to reap; nothing is ever sent to it.
        super().__init__(process.identify(child.pid) or process.Identity(child.pid, 0, process.boot_id()))

    async def listen(self, report: Callable[[Narration], None]) -> None:
        await announce.listen(self._child, report)

    async def wait(self) -> str:
        code = await self._child.wait()
        if self._child.stdin is not None:
            await self._child.stdin.aclose()
        return process.describe_end(code)


@dataclass(frozen=True, slots=True)
class LocalMachine:
    """The machine this hive runs on: a WorkerMachine, which documents it. `url` is where workers reach the hive.

    With `ephemeral` workers end when the pipe on their stdin closes, which it does however the hive ends.
    """

    settings: Settings
    library: Library
    token: str
    url: str
    ephemeral: bool = False

    async def plan(self, request: SpawnRequest, report: Report) -> WorkerSpec:
        return await plan(request, self.settings, self.library, report)

    def available_memory(self, spec: WorkerSpec) -> int:
        return available_memory(spec)

    def promised_memory(self, worker: WorkerRecord) -> int:
        if worker.spec.resource != "ram" or worker.pid is None or not worker.has_loaded:
            return 0
        found = inventory.process_memory(worker.pid)
        # What the engine has made a copy of is mapped still, and needed no more.
        return min(found.mapped + found.untouched, max(0, worker.spec.memory - found.own))

    def key_of(self, worker_id: str) -> str:
        return tokens.worker_key(self.token, worker_id)

    async def launch(self, worker: WorkerRecord) -> ChildProcess:
        secret = msgspec.json.encode({"key": self.key_of(worker.id)}) + b"\n"
        log_path = self._log_file(worker.id)
        try:
            return ChildProcess(
                await process.start(self.command(worker), log=log_path, stdin=secret, hold_stdin=self.ephemeral)
            )
        except OSError as exc:
            raise SpawnFailedError(f"the worker's process cannot be started: {exc.strerror}") from exc

    def command(self, worker: WorkerRecord) -> list[str]:
        """Return the command that starts `worker`; its key is not in it."""
        spec, settings = worker.spec, self.settings
        options: dict[str, object] = {
            "--id": worker.id,
            "--model-ref": spec.model_ref,
            "--model-path": spec.path,
            "--backend": spec.backend,
            "--device": spec.device,
            "--slots": spec.slots,
            "--context": spec.context,
            "--longest": context_fit.longest_of(spec),
            "--kv": spec.kv,
            "--memory": spec.memory,
            "--threads": settings.worker.threads,
            "--host": settings.hive.host,
            "--advertise": settings.hive.advertise,
            "--port-from": max(settings.worker.port_from, worker.ports_from or 0),
            "--hive-url": self.url,
            "--log": self._log_file(worker.id),
            "--config": settings.file,
        }
        arguments = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        if self.ephemeral:
            arguments.append("--ephemeral")
        return [*(settings.worker.command or (*process.program(), "worker")), *arguments]

    def adopted(self, identity: process.Identity) -> AdoptedProcess:
        return AdoptedProcess(identity)

    async def follow(self, worker: WorkerRecord, on_status: Callable[[WorkerStatus], None]) -> None:
        assert worker.url is not None
        key = self.key_of(worker.id)
        while True:
            with suppress(sse_client.StreamLostError, RbeeError):
                async with WorkerClient(worker.url, key) as client:
                    await client.follow(on_status)
            await trio.sleep(STREAM_PAUSE)

    async def is_alive(self, worker: WorkerRecord) -> bool:
        assert worker.url is not None
        try:
            with trio.fail_after(self.settings.timeouts.health):
                async with WorkerClient(worker.url, None) as client:
                    return (await client.health()).worker_id == worker.id
        except (trio.TooSlowError, RbeeError) as exc:
            log.warning("worker %s did not answer its health check: %s", worker.id, exc or "timeout")
            return False

    async def has_its_files(self, worker: WorkerRecord) -> bool:
        return await model_files.are_current(worker, self.library)

    async def ask_to_end(self, worker: WorkerRecord) -> bool:
        return await self._shut_down(worker, only_if_idle=False)

    async def ask_to_leave(self, worker: WorkerRecord) -> bool:
        return await self._shut_down(worker, only_if_idle=True)

    async def _shut_down(self, worker: WorkerRecord, *, only_if_idle: bool) -> bool:
        assert worker.url is not None
        try:
            with trio.fail_after(self.settings.timeouts.acknowledge):
                async with WorkerClient(worker.url, self.key_of(worker.id)) as client:
                    await client.shut_down(only_if_idle=only_if_idle)
        except ModelInUseError:
            raise
        except (trio.TooSlowError, RbeeError) as exc:
            log.warning("worker %s did not accept its shutdown: %s", worker.id, exc)
            return False
        return True

    def log_name(self, worker_id: str) -> str:
        return worker_files.name(worker_id)

    async def remove_old_logs(self, running: Collection[str]) -> None:
        await worker_files.remove_old(self.settings.logs_dir, running, self.settings.logs.kept_workers)

    def last_lines(self, worker_id: str) -> list[str]:
        return tail.last_lines(self._log_file(worker_id))

    def _log_file(self, worker_id: str) -> Path:
        return self.settings.logs_dir / self.log_name(worker_id)
