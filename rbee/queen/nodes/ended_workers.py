"""Tells the callers of the relay why their worker ended, as its hive knows it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import trio

from rbee.errors import CATALOGUE, LoadingTimeoutError, ModelLoadFailedError, RbeeError, WorkerDrainingError
from rbee.wire.hive import WorkerGone, WorkerList

if TYPE_CHECKING:
    from rbee.queen.nodes.node import Node
    from rbee.wire.hive import EndedWorker, HiveEvent

PATIENCE: Final = 2.0
"""Seconds until a hive has surely noticed that a worker's process is gone."""
PAUSE: Final = 0.1
REMEMBERED: Final = 100


class Endings:
    """How the last workers of a node ended, by id, as its hive's events have told; None for an end that was asked for.

    A hive that ends takes its own memory of them along, just when those who were sent to its workers ask.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, EndedWorker | None] = OrderedDict()

    def hear(self, event: HiveEvent | None) -> None:
        """Take note of what the hive tells."""
        match event:
            case WorkerGone(id=worker_id, ended=ended):
                self._known[worker_id] = ended
            case WorkerList(ended=ended):
                self._known.update((worker.id, worker) for worker in ended)
            case _:
                return
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._known

    def __getitem__(self, worker_id: str) -> EndedWorker | None:
        return self._known[worker_id]


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
        if worker_id in node.endings:
            return node.endings[worker_id]
        # The hive's events may be late.
        workers = await node.workers()
        for ended in workers.ended if workers is not None else ():
            if ended.id == worker_id:
                return ended
        await trio.sleep(PAUSE)
