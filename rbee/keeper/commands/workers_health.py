"""Shows whether a node's hive and workers are well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.keeper import interrupt, render, session
from rbee.keeper.result import Result
from rbee.keeper.swarm import NO_QUEEN
from rbee.wire.queen import LOCAL_NODE, NodeHealth

if TYPE_CHECKING:
    from argparse import Namespace

    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.terminal import Terminal


def run(options: Namespace, settings: Settings, _terminal: Terminal) -> Result:
    """Return the health of one node; starts nothing."""
    node = options.node or settings.defaults.node or LOCAL_NODE

    async def command(_hurry: trio.Event) -> Result:
        if (found := await session.find(settings)) is None:
            health = NodeHealth(status="unreachable", workers=[])
            return Result(data=_data(node, health), notes=(NO_QUEEN,))
        async with session.attach(settings, found) as client:
            health = await client.node_health(node)
        return Result(data=_data(node, health), text=_text(node, health))

    return interrupt.run(command)


def _data(node: str, health: NodeHealth) -> dict[str, object]:
    return {"node": node, "status": health.status, "workers": msgspec.to_builtins(health.workers)}


def _text(node: str, health: NodeHealth) -> str:
    if health.status == "unreachable":
        return f"{node}: no hive answers"
    rows = [(worker.worker_id, worker.state, "yes" if worker.ready else "no") for worker in health.workers]
    count = render.plural(len(rows), "worker")
    return f"{node}: hive alive, {count}" + ("\n\n" + render.table(("worker", "state", "ready"), rows) if rows else "")
