"""Tells the callers of the relay why their worker ended, as its hive knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from rbee.errors import CATALOGUE, LoadingTimeoutError, ModelLoadFailedError, RbeeError, WorkerDrainingError

if TYPE_CHECKING:
    from rbee.queen.nodes.node import Node
    from rbee.wire.hive import EndedWorker

PATIENCE: Final = 2.0
"""Seconds until a hive has surely noticed that a worker's process is gone."""
PAUSE: Final = 0.1


async def explained(error: RbeeError, node: Node, worker_id: str) -> RbeeError:
    """Return `error` with why the worker ended, or why it could not load its model. It may not have ended at all.

    One whose end was asked for has not failed: whoever was sent there just before gets DrainingError.
    """
    with trio.move_on_after(PATIENCE):
        if (ended := await _ending(node, worker_id)) is None:
            return WorkerDrainingError("the worker was told to end", **error.details | {"worker_id": worker_id})
        if ended.code in (LoadingTimeoutError.code, ModelLoadFailedError.code):
            found = CATALOGUE[ended.code](ended.reason or "")
        else:
            found = type(error)(f"{error.message}: {ended.reason}")
        found.details = error.details | {"pid": ended.pid, "log": ended.log, "last_lines": ended.last_lines}
        return found
    return error


async def _ending(node: Node, worker_id: str) -> EndedWorker | None:
    """Return how a worker ended, once that is known; None where its end was asked for."""
    while True:
        if worker_id in node.ended:
            return node.ended[worker_id]
        # The hive's events may be late.
        workers = await node.workers()
        for ended in workers.ended if workers is not None else ():
            if ended.id == worker_id:
                return ended
        await trio.sleep(PAUSE)
