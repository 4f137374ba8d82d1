"""What a hive's workers need of the machine: the one seam between decisions and real processes and sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Collection

    from rbee.adapters.daemon.process import Identity
    from rbee.hive.workers.record import WorkerRecord, WorkerSpec
    from rbee.wire.common import Narration
    from rbee.wire.hive import SpawnRequest
    from rbee.wire.progress import Report
    from rbee.wire.worker import WorkerStatus


class WorkerProcess(Protocol):
    """A worker's process while it runs."""

    @property
    def identity(self) -> Identity:
        """Which process it is, for the registry."""
        ...

    def send(self, number: signal.Signals) -> None: ...

    async def listen(self, report: Callable[[Narration], None]) -> None:
        """Report what the worker announces until it is ready; raises the error that it announces instead."""
        ...

    async def wait(self) -> str:
        """Return how the process ended, in words, once it has."""
        ...


class WorkerMachine(Protocol):
    """Starts, asks and ends workers."""

    async def plan(self, request: SpawnRequest, report: Report) -> WorkerSpec:
        """Check a request and return what exactly to start. Raises the error why it cannot be started."""
        ...

    def available_memory(self, spec: WorkerSpec) -> int: ...

    def promised_memory(self, worker: WorkerRecord) -> int:
        """Return how much of the memory that looks available a worker needs.

        That is its model's file, mapped into it, and the part of its context that it has not used yet.
        """
        ...

    def key_of(self, worker_id: str) -> str:
        """Return the key that opens a worker, and with which it calls back."""
        ...

    async def launch(self, worker: WorkerRecord) -> WorkerProcess:
        """Start the worker's process. Raises SpawnFailedError."""
        ...

    def adopted(self, identity: Identity) -> WorkerProcess: ...

    async def follow(self, worker: WorkerRecord, on_status: Callable[[WorkerStatus], None]) -> None:
        """Hold the worker's event stream until cancelled; `on_status` is called with each state it publishes."""
        ...

    async def is_alive(self, worker: WorkerRecord) -> bool:
        """Return whether this very worker has answered a health check in time."""
        ...

    async def has_its_files(self, worker: WorkerRecord) -> bool:
        """Return whether its model's files are still those that the worker has loaded, as far as is known."""
        ...

    async def ask_to_end(self, worker: WorkerRecord) -> bool:
        """Post a shutdown; returns whether the worker accepted in time."""
        ...

    async def ask_to_leave(self, worker: WorkerRecord) -> bool:
        """Post a shutdown; returns whether the worker accepted in time. Raises ModelInUseError: it has a request."""
        ...

    def log_name(self, worker_id: str) -> str: ...

    async def remove_old_logs(self, running: Collection[str]) -> None:
        """Remove the logs of workers that ended, all but the newest."""
        ...

    def last_lines(self, worker_id: str) -> list[str]: ...
