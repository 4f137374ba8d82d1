"""Tells why a worker ended: in words, with the end of its log and where that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from rbee.errors import (
    CATALOGUE,
    DrainingError,
    LoadingTimeoutError,
    ModelLoadFailedError,
    NodeNotFoundError,
    RbeeError,
)
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.errors import WorkerFailedError
    from rbee.wire.queen import EndedWorker, SwarmWorkers, TaskHandle

PATIENCE: Final = 2.0
"""Seconds until a hive has surely noticed that a worker's process is gone."""
PAUSE: Final = 0.1


def name_node(error: RbeeError) -> None:
    """Say on which node it happened, where the queen knows: a daemon's own words are about "here"."""
    if (node := error.details.get("node")) is not None and not isinstance(error, NodeNotFoundError):
        error.message = f"node {node}: {error.message}"


async def explained(error: WorkerFailedError, handle: TaskHandle, queen: QueenClient) -> RbeeError:
    """Return an error with why its worker ended, once the hive knows; a worker that has not ended adds nothing.

    Where the hive knows why the model was not loaded, that is the error. A worker that is gone, and has no reason, was
    told to end: who has no text of it yet gets DrainingError.
    """
    swarm: SwarmWorkers | None = None
    with trio.move_on_after(PATIENCE):
        while True:
            swarm = await _look(queen) or swarm
            for ended in swarm.ended if swarm is not None else ():
                if ended.worker_id == handle.worker_id:
                    return _with_reason(error, ended)
            await trio.sleep(PAUSE)
    if swarm is not None and not error.details.get("tokens") and not _may_run(handle, swarm):
        return DrainingError("the worker was told to end")
    return error


async def _look(queen: QueenClient) -> SwarmWorkers | None:
    try:
        return await queen.workers()
    except RbeeError:
        return None


def _may_run(handle: TaskHandle, swarm: SwarmWorkers) -> bool:
    """Tell whether a worker is there still, as far as its node can say."""
    return handle.worker_id in {worker.worker_id for worker in swarm.workers} or handle.node in {
        unreachable.node for unreachable in swarm.unreachable
    }


def _with_reason(error: RbeeError, ended: EndedWorker) -> RbeeError:
    if ended.code in (LoadingTimeoutError.code, ModelLoadFailedError.code):
        error = CATALOGUE[ended.code](ended.reason, hint=error.hint)
    else:
        error.message += f"\nthe worker (pid {ended.pid}) ended: {ended.reason}"
    error.message += end_of_log(ended.last_lines)
    return error


def add_log(error: RbeeError, settings: Settings) -> None:
    """Add to an error of a worker's start what the hive sent of its log, and where that is."""
    log, lines = error.details.get("log"), error.details.get("last_lines")
    if isinstance(lines, list):
        error.message += end_of_log([str(line) for line in lines])
    if isinstance(log, str):
        where = f"its log is {place_of(settings, log, str(error.details.get('node', LOCAL_NODE)))}"
        error.hint = f"{error.hint}; {where}" if error.hint else where


def end_of_log(lines: Sequence[str]) -> str:
    """Return a paragraph with the end of a log; empty where there is none."""
    return "".join(["\nthe end of its log:", *(f"\n  {line}" for line in lines)]) if lines else ""


def place_of(settings: Settings, log: str, node: str) -> str:
    """Return where the user finds a log of a node."""
    # From another machine the name may be anything, and it becomes part of a path that is shown.
    name = log.rpartition("/")[2]
    return str(settings.logs_dir / name) if node == LOCAL_NODE else f"{name} in the folder of logs on {node}"
