"""What a hive's pool decides to do about its workers (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rbee.errors import RbeeError
    from rbee.hive.workers.record import WorkerRecord


class Launch(NamedTuple):
    """Start the worker's process."""

    worker: WorkerRecord


class Follow(NamedTuple):
    """Hold the worker's event stream."""

    worker: WorkerRecord


class Reply(NamedTuple):
    """Reply to the callers that wait for the worker's start: it answers HTTP, or the error."""

    worker: WorkerRecord
    error: RbeeError | None


class CheckHealth(NamedTuple):
    """Ask the worker whether it is alive."""

    worker: WorkerRecord


class AskToEnd(NamedTuple):
    """Post a shutdown to the worker."""

    worker: WorkerRecord


class Terminate(NamedTuple):
    """Send SIGTERM."""

    worker: WorkerRecord


class Kill(NamedTuple):
    """Send SIGKILL."""

    worker: WorkerRecord


class Save(NamedTuple):
    """Store the worker's row."""

    worker: WorkerRecord


class Delete(NamedTuple):
    """Delete the worker's row and all that is held for it; `reason` is logged where its end was not asked for."""

    worker: WorkerRecord
    reason: str | None


Effect = Launch | Follow | Reply | CheckHealth | AskToEnd | Terminate | Kill | Save | Delete
