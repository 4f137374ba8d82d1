"""Works out why a worker ended, for the callers whose request it had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from rbee.clients.wait_ready import ENDED, WorkerUnreachedError
from rbee.errors import CATALOGUE, LoadingTimeoutError, ModelLoadFailedError, RbeeError, WorkerFailedError
from rbee.narrower_errors import WorkerDrainingError

if TYPE_CHECKING:
    from rbee.queen.nodes.node import Node
    from rbee.wire.hive import EndedWorker

PATIENCE_SECONDS: Final = 2.0
"""Until a hive has surely noticed that a worker's process is gone."""
POLL_SECONDS: Final = 0.05


async def why_ended(node: Node, worker_id: str, context: str | None = None) -> RbeeError | None:
    """Return the error that says why a worker ended; None where, as far as its node knows, it has not.

    It is a WorkerDrainingError where the worker was told to end, or its hive knows nothing of it: another worker may
    take the request then. It is the error of the load where the model could not be loaded, else a WorkerFailedError;
    `context` goes before its reason. Takes up to PATIENCE_SECONDS.
    """
    mirror, rows = node.mirror, set[str]()
    is_known = False
    with trio.move_on_after(PATIENCE_SECONDS):
        while True:
            if worker_id in mirror.ended:
                return _error(mirror.ended[worker_id], worker_id, context)
            if mirror.is_live:
                is_known, rows = True, set(mirror.rows)
            elif (workers := await node.workers()) is not None:
                is_known, rows = True, {row.id for row in workers.workers}
                for ended in workers.ended:
                    if ended.id == worker_id:
                        return _error(ended, worker_id, context)
            await trio.sleep(POLL_SECONDS)
    if not is_known or worker_id in rows:
        return None
    # A hive that crashed with its workers has left none who knows; so has one whose events were lost at that moment.
    return WorkerDrainingError("the worker is gone, and its hive does not know how it ended", worker_id=worker_id)


async def explained(error: WorkerFailedError, node: Node, worker_id: str) -> RbeeError:
    """Return the error of a caller whose request a worker had, with why that ended; the worker may not have ended."""
    context = ENDED if isinstance(error, WorkerUnreachedError) else error.message
    found = await why_ended(node, worker_id, context)
    if found is None:
        return error
    found.details = error.details | found.details
    return found


def _error(ended: EndedWorker | None, worker_id: str, context: str | None) -> RbeeError:
    """Return how a worker ended; None stands for an end that was asked for."""
    if ended is None:
        return WorkerDrainingError("the worker was told to end", worker_id=worker_id)
    error: RbeeError
    if ended.code in (LoadingTimeoutError.code, ModelLoadFailedError.code):
        error = CATALOGUE[ended.code](ended.reason or "")
    else:
        error = WorkerFailedError(f"{context or f'the worker (pid {ended.pid}) ended'}: {ended.reason}")
    error.details = {"pid": ended.pid, "log": ended.log, "last_lines": ended.last_lines}
    return error
