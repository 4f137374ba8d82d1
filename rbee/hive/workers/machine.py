"""What a hive's loop needs of the machine it runs on: the one seam between its decisions and processes and sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Collection

    from rbee.adapters.daemon.process import Identity
    from rbee.hive.workers.record import Spec, Worker
    from rbee.wire.common import Narration
    from rbee.wire.hive import SpawnRequest
    from rbee.wire.progress import Report
    from rbee.wire.worker import WorkerStatus


class Child(Protocol):
    """A worker's process while it runs."""

    @property
    def identity(self) -> Identity:
        """Which process it is, for the registry."""
        ...

    def send(self, number: signal.Signals) -> None:
        """Signal the process, unless it has ended."""
        ...

    async def listen(self, report: Callable[[Narration], None]) -> None:
        """Pass on what the worker announces until it is ready or says why not; raises its error."""
        ...

    async def wait(self) -> str:
        """Return how the process ended, in words, once it has."""
        ...


class Machine(Protocol):
    """Starts, asks and ends workers."""

    async def plan(self, request: SpawnRequest, report: Report) -> Spec:
        """Check a request and return what exactly is to be started; raises why it cannot be."""
        ...

    def available_memory(self, spec: Spec) -> int:
        """Return the bytes that are free now on the device of `spec`."""
        ...

    def key_of(self, worker_id: str) -> str:
        """Return the key that opens a worker, and with which it calls back."""
        ...

    async def launch(self, worker: Worker) -> Child:
        """Start the worker's process. Raises SpawnFailedError."""
        ...

    def adopted(self, identity: Identity) -> Child:
        """Return the process of a worker that an earlier hive started."""
        ...

    async def follow(self, worker: Worker, changed: Callable[[WorkerStatus], None]) -> None:
        """Hold the worker's event stream until cancelled, and pass on what it says."""
        ...

    async def is_alive(self, worker: Worker) -> bool:
        """Return whether this very worker has answered a health check in time."""
        ...

    async def ask_to_end(self, worker: Worker) -> bool:
        """Post a shutdown; returns whether the worker accepted in time."""
        ...

    def log_name(self, worker_id: str) -> str:
        """Return the file name of the worker's log."""
        ...

    async def remove_old_logs(self, running: Collection[str]) -> None:
        """Remove the logs of workers that ended, all but the newest."""
        ...

    def last_lines(self, worker_id: str) -> list[str]:
        """Return the last lines of the worker's log, the newest last."""
        ...
