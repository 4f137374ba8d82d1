"""Tells the callers of the relay why their worker ended, as its hive knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from rbee.errors import CATALOGUE, LoadingTimeoutError, ModelLoadFailedError, RbeeError

if TYPE_CHECKING:
    from rbee.queen.node import Node
    from rbee.wire.hive import EndedWorker

PATIENCE: Final = 2.0
"""Seconds until a hive has surely noticed that a worker's process is gone."""
PAUSE: Final = 0.1


async def explained(error: RbeeError, node: Node, worker_id: str) -> RbeeError:
    """Return `error` with why the worker ended, or why it could not load its model. It may not have ended at all."""
    with trio.move_on_after(PATIENCE):
        while (ended := await _ended(node, worker_id)) is None:  # noqa: ASYNC110 (another process changes)
            await trio.sleep(PAUSE)
        if ended.code in (LoadingTimeoutError.code, ModelLoadFailedError.code):
            found = CATALOGUE[ended.code](ended.reason or "")
        else:
            found = type(error)(f"{error.message}: {ended.reason}")
        found.details = error.details | {"pid": ended.pid, "log": ended.log, "last_lines": ended.last_lines}
        return found
    return error


async def _ended(node: Node, worker_id: str) -> EndedWorker | None:
    workers = await node.workers()
    ended = [] if workers is None else workers.ended
    return next((worker for worker in ended if worker.id == worker_id), None)
