"""Asks all nodes at once how they are, each for a bounded time, as the queen's interface shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from rbee.errors import ConnectionTimeoutError, RbeeError, VersionMismatchError, WorkerNotFoundError
from rbee.queen.nodes.node import ANSWER_SECONDS, HiveAbsentError, HiveNotRunningError
from rbee.wire import queen as wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rbee.clients.hive import HiveClient
    from rbee.queen.nodes.node import Node
    from rbee.wire.hive import EndedWorker, Resources, Space, WorkerList, WorkerRow
    from rbee.wire.progress import SwarmDownload

T = TypeVar("T")

PREFIX: Final = 8
"""Characters of a worker's id that are enough to name it."""


async def workers_of(nodes: Sequence[Node]) -> wire.SwarmWorkers:
    """Return the workers of these nodes, and the nodes that did not say.

    A hive of this host that simply does not run has no workers, and is no failure.
    """

    async def ask(_: Node, hive: HiveClient) -> WorkerList:
        return await hive.workers()  # more than the mirror shows: the workers that ended before it was live

    swarm = wire.SwarmWorkers(workers=[])
    for node, answer in await _ask_all(nodes, ask):
        if not isinstance(answer, RbeeError):
            swarm.workers += [worker_of(node.name, row) for row in answer.workers]
            swarm.ended += [_ended(node.name, ended) for ended in answer.ended]
        elif not isinstance(answer, HiveNotRunningError):
            state, reason = _absence(answer)
            swarm.unreachable.append(wire.UnreachableNode(node=node.name, reason=reason, state=state))
    return swarm


async def status_of(nodes: Sequence[Node], downloads: Sequence[SwarmDownload]) -> wire.SwarmStatus:
    """Return how these nodes are, their workers, and which of the downloads are theirs."""

    async def ask(node: Node, hive: HiveClient) -> tuple[list[WorkerRow], Resources]:
        resources = await hive.resources()
        rows = node.known_workers()
        return (await hive.workers()).workers if rows is None else rows, resources

    names = {node.name for node in nodes}
    theirs = [download for download in downloads if download.node in names]
    status = wire.SwarmStatus(nodes=[], workers=[], downloads=theirs)
    for node, answer in await _ask_all(nodes, ask):
        if isinstance(answer, RbeeError):
            status.nodes.append(_unreachable(node, answer))
        else:
            rows, resources = answer
            status.nodes.append(_alive(node, rows, resources.memory))
            status.workers += [worker_of(node.name, row) for row in rows]
    return status


async def end_worker(nodes: Sequence[Node], worker_id: str) -> wire.WorkerEnding:
    """Have a worker end, wherever it is; returns once it has accepted that. Raises WorkerNotFoundError."""
    swarm = await workers_of(nodes)
    found = [worker for worker in swarm.workers if worker.worker_id == worker_id]
    if not found and len(worker_id) >= PREFIX:
        found = [worker for worker in swarm.workers if worker.worker_id.startswith(worker_id)]
    if len(found) != 1:
        raise _not_found(swarm, worker_id, several=bool(found))
    (worker,) = found
    node = next(node for node in nodes if node.name == worker.node)
    async with node.connect() as hive:
        await hive.end_worker(worker.worker_id)
    message = f"worker {worker.worker_id} on {worker.node} is ending"
    return wire.WorkerEnding(message=message, worker_id=worker.worker_id, node=worker.node)


def _not_found(swarm: wire.SwarmWorkers, worker_id: str, *, several: bool) -> WorkerNotFoundError:
    known = [f"{worker.worker_id} on {worker.node}" for worker in swarm.workers]
    hint = f"the workers that run: {', '.join(known)}" if known else "no worker runs"
    if swarm.unreachable:
        hint += "; not known are those of " + ", ".join(node.node for node in swarm.unreachable)
    if several:
        message = "several workers have an id that begins so"
    elif len(worker_id) < PREFIX:
        message = f"the id is too short: give a worker's first {PREFIX} characters, or more"
    else:
        message = "there is no worker of this id"
    return WorkerNotFoundError(
        message,
        hint=hint,
        workers=[{"worker_id": worker.worker_id, "node": worker.node} for worker in swarm.workers],
        unreachable=[node.node for node in swarm.unreachable],
    )


async def _ask_all(
    nodes: Sequence[Node], ask: Callable[[Node, HiveClient], Awaitable[T]]
) -> list[tuple[Node, T | RbeeError]]:
    """Ask the hives of all nodes at once; one that does not answer costs ANSWER_SECONDS."""
    answers: dict[str, T | RbeeError] = {}

    async def ask_one(node: Node) -> None:
        answers[node.name] = ConnectionTimeoutError(f"no answer within {ANSWER_SECONDS:g} s", node=node.name)
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                async with node.connect() as hive:
                    answers[node.name] = await ask(node, hive)
            except RbeeError as exc:
                answers[node.name] = exc

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(ask_one, node)
    return [(node, answers[node.name]) for node in nodes]


def _absence(error: RbeeError) -> tuple[str, str]:
    """Return in a word how a node is whose hive did not answer, and why."""
    if isinstance(error, HiveAbsentError):
        return error.absence
    return "not started" if isinstance(error, HiveNotRunningError) else "unreachable", error.message.splitlines()[0]


def _unreachable(node: Node, error: RbeeError) -> wire.NodeStatus:
    version = error.details.get("hive") if isinstance(error, VersionMismatchError) else None
    state, reason = _absence(error)
    return wire.NodeStatus(node=node.name, status="unreachable", reason=reason, version=version, state=state)


def _alive(node: Node, rows: Sequence[WorkerRow], memory: Space) -> wire.NodeStatus:
    return wire.NodeStatus(
        node=node.name,
        status="alive",
        state="alive",
        version=node.version,
        workers=len(rows),
        slots_total=sum(row.slots_total for row in rows),
        slots_available=sum(row.slots_available for row in rows),
        memory_total=memory.total,
        memory_available=memory.available,
    )


def worker_of(node: str, row: WorkerRow) -> wire.SwarmWorker:
    """Return a worker of a hive as one of the swarm."""
    return wire.SwarmWorker(worker_id=row.id, node=node, **_shared(row, wire.SwarmWorker))


def _ended(node: str, ended: EndedWorker) -> wire.SwarmEndedWorker:
    values = _shared(ended, wire.SwarmEndedWorker) | {"reason": ended.reason or ""}
    return wire.SwarmEndedWorker(worker_id=ended.id, node=node, **values)


def _shared(row: WorkerRow | EndedWorker, kind: type[wire.SwarmWorker | wire.SwarmEndedWorker]) -> dict[str, Any]:
    """Return the values of the fields that a row of a hive and one of the swarm have in common."""
    return {name: getattr(row, name) for name in row.__struct_fields__ if name in kind.__struct_fields__}
