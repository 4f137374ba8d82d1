"""What a hive's pool wants to be done about its workers (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rbee.errors import RbeeError
    from rbee.hive.workers.record import Worker


class Launch(NamedTuple):
    """Start the worker's process."""

    worker: Worker


class Follow(NamedTuple):
    """Hold the worker's event stream."""

    worker: Worker


class Answer(NamedTuple):
    """The start that was asked for has come to this: the worker answers HTTP, or the error."""

    worker: Worker
    error: RbeeError | None


class CheckHealth(NamedTuple):
    """Ask the worker whether it is alive."""

    worker: Worker


class AskToEnd(NamedTuple):
    """Post a shutdown to the worker."""

    worker: Worker


class Terminate(NamedTuple):
    """Send SIGTERM."""

    worker: Worker


class Kill(NamedTuple):
    """Send SIGKILL."""

    worker: Worker


class Keep(NamedTuple):
    """Store the worker's row."""

    worker: Worker


class Forget(NamedTuple):
    """Delete the worker's row; `reason` is for the log where its end was not asked for."""

    worker: Worker
    reason: str | None


Effect = Launch | Follow | Answer | CheckHealth | AskToEnd | Terminate | Kill | Keep | Forget
