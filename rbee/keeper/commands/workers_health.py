"""`rbee workers health`: shows whether hives and workers are healthy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.keeper.command_line.checked import convert
from rbee.keeper.output import render, tables
from rbee.keeper.output.result import Result
from rbee.keeper.session import interrupt, running_queen
from rbee.keeper.session.attached_queen import attach
from rbee.keeper.views.workers import NO_WORKERS_KNOWN, SHORT
from rbee.wire.queen import NodeQuery

if TYPE_CHECKING:
    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import NodeOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.queen import NodeStatus, SwarmStatus, SwarmWorker


def run(options: NodeOptions, settings: Settings, terminal: Terminal) -> Result:
    """Return the health of the nodes; starts nothing."""
    if options.node is not None:
        convert({"node": options.node}, NodeQuery)

    async def command(_force: trio.Event) -> Result:
        if (found := await running_queen.find(settings)) is None:
            return Result(data={"nodes": []}, notes=(NO_WORKERS_KNOWN,))
        async with attach(settings, found, terminal) as client:
            status = await client.status(options.node)
        return Result(data=_data(status), text="\n\n".join(_text(node, status, terminal.room) for node in status.nodes))

    return interrupt.run(command)


def _workers(node: NodeStatus, status: SwarmStatus) -> list[SwarmWorker]:
    return [worker for worker in status.workers if worker.node == node.node]


def _is_ready(worker: SwarmWorker) -> bool:
    return worker.state in ("idle", "busy")


def _data(status: SwarmStatus) -> dict[str, object]:
    return {
        "nodes": [
            {
                "node": node.node,
                "status": node.status,
                "reason": node.reason,
                "workers": [
                    {"worker_id": worker.worker_id, "state": worker.state, "ready": _is_ready(worker)}
                    for worker in _workers(node, status)
                ],
            }
            for node in status.nodes
        ]
    }


def _text(node: NodeStatus, status: SwarmStatus, room: int | None) -> str:
    if node.status == "unreachable":
        return render.clean(f"{node.node}: {node.reason}")
    workers = _workers(node, status)
    rows = [(worker.worker_id[:SHORT], worker.state, "yes" if _is_ready(worker) else "no") for worker in workers]
    head = render.clean(f"{node.node}: hive alive, {render.plural(len(rows), 'worker')}")
    return head + ("\n\n" + tables.table(("worker", "state", "ready"), rows, room) if rows else "")
