"""Asks all nodes at once how they are, each for a bounded time, as the queen's interface shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from rbee import __version__
from rbee.errors import ConnectionTimeoutError, RbeeError, VersionMismatchError, WorkerNotFoundError
from rbee.queen.nodes.node import LOOK_SECONDS, HiveNotRunningError
from rbee.wire import queen as wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.queen.nodes.node import Node
    from rbee.wire.download import SwarmDownload
    from rbee.wire.hive import EndedWorker, Resources, WorkerList, WorkerRow

PREFIX: Final = 8
"""Characters of a worker's id that are enough to name it."""


class _Look(NamedTuple):
    """What a node's hive has told, or why it has not; `error` is None where all is well."""

    node: Node
    workers: WorkerList | None = None
    resources: Resources | None = None
    error: RbeeError | None = None

    @property
    def reason(self) -> str | None:
        return None if self.error is None else self.error.message.splitlines()[0]


async def workers_of(nodes: Sequence[Node]) -> wire.SwarmWorkers:
    """Return the workers of these nodes, and the nodes that did not say.

    A hive of this host that simply does not run has no workers, and is no failure.
    """
    swarm = wire.SwarmWorkers(workers=[])
    for look in await _look_at(nodes, memory=False):
        if look.workers is not None:
            swarm.workers += [worker_of(look.node.name, row) for row in look.workers.workers]
            swarm.ended += [_ended(look.node.name, ended) for ended in look.workers.ended]
        elif look.reason is not None and not isinstance(look.error, HiveNotRunningError):
            swarm.unreachable.append(wire.UnreachableNode(node=look.node.name, reason=look.reason))
    return swarm


async def status_of(nodes: Sequence[Node], downloads: Sequence[SwarmDownload]) -> wire.SwarmStatus:
    """Return how these nodes are, their workers, and which of the downloads are theirs."""
    names = {node.name for node in nodes}
    theirs = [download for download in downloads if download.node in names]
    status = wire.SwarmStatus(nodes=[], workers=[], downloads=theirs)
    for look in await _look_at(nodes, memory=True):
        status.nodes.append(_node(look))
        if look.workers is not None:
            status.workers += [worker_of(look.node.name, row) for row in look.workers.workers]
    return status


async def end_worker(nodes: Sequence[Node], worker_id: str) -> wire.WorkerEnding:
    """Have a worker end, wherever it is; returns once it has accepted that. Raises WorkerNotFoundError."""
    swarm = await workers_of(nodes)
    found = [worker for worker in swarm.workers if worker.worker_id == worker_id]
    if not found and len(worker_id) >= PREFIX:
        found = [worker for worker in swarm.workers if worker.worker_id.startswith(worker_id)]
    if len(found) != 1:
        raise _not_found(swarm, several=bool(found))
    (worker,) = found
    node = next(node for node in nodes if node.name == worker.node)
    async with node.reached() as hive:
        await hive.end_worker(worker.worker_id)
    message = f"worker {worker.worker_id} on {worker.node} is ending"
    return wire.WorkerEnding(message=message, worker_id=worker.worker_id, node=worker.node)


def _not_found(swarm: wire.SwarmWorkers, *, several: bool) -> WorkerNotFoundError:
    known = [f"{worker.worker_id} on {worker.node}" for worker in swarm.workers]
    hint = f"the workers that run: {', '.join(known)}" if known else "no worker runs"
    if swarm.unreachable:
        hint += "; not known are those of " + ", ".join(node.node for node in swarm.unreachable)
    return WorkerNotFoundError(
        "several workers have an id that begins so" if several else "there is no worker of this id",
        hint=hint,
        workers=[{"worker_id": worker.worker_id, "node": worker.node} for worker in swarm.workers],
        unreachable=[node.node for node in swarm.unreachable],
    )


async def _look_at(nodes: Sequence[Node], *, memory: bool) -> list[_Look]:
    """Ask all nodes at once; one that does not answer costs LOOK_SECONDS."""
    looks: dict[str, _Look] = {}

    async def look(node: Node) -> None:
        looks[node.name] = await _look(node, memory=memory)

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(look, node)
    return [looks[node.name] for node in nodes]


async def _look(node: Node, *, memory: bool) -> _Look:
    with trio.move_on_after(LOOK_SECONDS):
        try:
            async with node.reached() as hive:
                workers = await hive.workers()
                return _Look(node, workers, await hive.resources() if memory else None)
        except RbeeError as exc:
            return _Look(node, error=exc)
    return _Look(node, error=ConnectionTimeoutError(f"no answer within {LOOK_SECONDS:g} s", node=node.name))


def _node(look: _Look) -> wire.NodeStatus:
    if look.workers is None or look.resources is None:
        version = look.error.details.get("hive") if isinstance(look.error, VersionMismatchError) else None
        return wire.NodeStatus(node=look.node.name, status="unreachable", reason=look.reason, version=version)
    rows, memory = look.workers.workers, look.resources.memory
    return wire.NodeStatus(
        node=look.node.name,
        status="alive",
        version=__version__,  # another one is not spoken to
        workers=len(rows),
        slots_total=sum(row.slots_total for row in rows),
        slots_available=sum(row.slots_available for row in rows),
        memory_total=memory.total,
        memory_available=memory.available,
    )


def worker_of(node: str, row: WorkerRow) -> wire.SwarmWorker:
    """Return a worker of a hive as one of the swarm."""
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
