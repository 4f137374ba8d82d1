"""What a hive's pool decides to do about its workers (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rbee.errors import RbeeError
    from rbee.hive.workers.record import WorkerRecord


class _OfWorker(NamedTuple):
    worker: WorkerRecord


class Launch(_OfWorker):
    """Start the worker's process."""


class Follow(_OfWorker):
    """Hold the worker's event stream."""


class Reply(NamedTuple):
    """Reply to the callers that wait for the worker's start: it answers HTTP, or the error."""

    worker: WorkerRecord
    error: RbeeError | None


class CheckHealth(_OfWorker):
    """Ask the worker whether it is alive."""


class AskToEnd(_OfWorker):
    """Post a shutdown to the worker."""


class AskToLeave(_OfWorker):
    """Post a shutdown to the worker that it refuses where it has a request."""


class Terminate(_OfWorker):
    """Send SIGTERM."""


class Kill(_OfWorker):
    """Send SIGKILL."""


class Save(_OfWorker):
    """Store the worker's row."""


class Delete(NamedTuple):
    """Delete the worker's row and all that is held for it; `reason` is logged where its end was not asked for."""

    worker: WorkerRecord
    reason: str | None


Effect = Launch | Follow | Reply | CheckHealth | AskToEnd | AskToLeave | Terminate | Kill | Save | Delete
