"""Shows the workers of several nodes as the queen's interface describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.wire import queen as wire

if TYPE_CHECKING:
    from rbee.queen.node import Node
    from rbee.wire.hive import EndedWorker, WorkerRow


async def workers_of(nodes: list[Node]) -> wire.SwarmWorkers:
    """Return the workers of these nodes; a node whose hive does not answer has none."""
    swarm = wire.SwarmWorkers(workers=[])
    for node in nodes:
        if (found := await node.workers()) is not None:
            swarm.workers += [_worker(node.name, row) for row in found.workers]
            swarm.ended += [_ended(node.name, ended) for ended in found.ended]
    return swarm


def _worker(node: str, row: WorkerRow) -> wire.SwarmWorker:
    return wire.SwarmWorker(
        worker_id=row.id,
        node=node,
        state=row.state,
        model_ref=row.model_ref,
        url=row.url,
        backend=row.backend,
        device=row.device,
        slots_total=row.slots_total,
        slots_available=row.slots_available,
    )


def _ended(node: str, ended: EndedWorker) -> wire.EndedWorker:
    return wire.EndedWorker(
        worker_id=ended.id,
        node=node,
        model_ref=ended.model_ref,
        backend=ended.backend,
        device=ended.device,
        pid=ended.pid,
        reason=ended.reason or "",
        code=ended.code,
        ended_at=ended.ended_at,
        log=ended.log,
        last_lines=ended.last_lines,
    )
