"""Shows what runs where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.adapters import instance, process
from rbee.keeper import interrupt, render, session
from rbee.keeper.result import Result
from rbee.keeper.swarm import to_json, workers_table
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from argparse import Namespace

    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.terminal import Terminal
    from rbee.wire.queen import NodeHealth, SwarmWorker


def run(_options: Namespace, settings: Settings, _terminal: Terminal) -> Result:
    """Return the state of the queen, the nodes and the workers; starts nothing."""

    async def command(_hurry: trio.Event) -> Result:
        found = await session.find(settings)
        if found is None:
            queen: dict[str, object] = {"running": False, "url": None, "version": None, "pid": None, "mode": None}
            return Result(
                data={"queen": queen, "nodes": [], "workers": []},
                text="No queen is running. `rbee infer` starts one for itself; `rbee up` starts one that stays.",
            )
        holder = instance.find(settings.state_dir, "queen")
        own = holder if holder is not None and holder.url == found.url else None
        mode = None if own is None else "ephemeral" if own.ephemeral else "persistent"
        queen = {
            "running": True,
            "url": found.url,
            "version": found.health.version,
            "pid": own.identity.pid if own is not None else None,
            "mode": mode,
        }
        async with session.attach(settings, found) as client:
            local = await client.node_health(LOCAL_NODE)
            workers = (await client.workers()).workers
        nodes = [{"node": LOCAL_NODE, "status": local.status, "workers": len(local.workers)}]
        return Result(
            data={"queen": queen, "nodes": nodes, "workers": to_json(workers)},
            text=_text(queen, _hive(local, settings), workers),
        )

    return interrupt.run(command)


def _hive(local: NodeHealth, settings: Settings) -> str:
    """Return how the hive of this machine is doing."""
    if local.status == "alive":
        return "hive alive"
    if (hive := instance.find(settings.state_dir, "hive")) is None:
        return "no hive is running; the first request starts it"
    pid = hive.identity.pid
    if process.is_stopped(hive.identity):
        return f"the hive, pid {pid}, is stopped; `kill -CONT {pid}` lets it go on"
    return f"the hive, pid {pid}, does not answer; its log is {settings.logs_dir / 'hive.log'}"


def _text(queen: dict[str, object], hive: str, workers: list[SwarmWorker]) -> str:
    extra = [f"version {queen['version']}"]
    if queen["pid"] is not None:
        extra.append(f"pid {queen['pid']}")
    if queen["mode"] == "ephemeral":
        extra.append("for one command only")
    lines = [
        render.clean(f"Queen  {queen['url']}  ({', '.join(extra)})"),
        render.clean(f"Node   {LOCAL_NODE}  ({hive})"),
    ]
    return "\n".join(lines) + "\n\n" + workers_table(workers)
