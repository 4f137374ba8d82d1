"""The view of `rbee status`: the queen, the nodes, the downloads and the workers, as JSON and as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rbee import __version__
from rbee.adapters.daemon import instance, process
from rbee.keeper.output import render, tables
from rbee.keeper.views.workers import NO_WORKERS_RUN, SHORT, to_json, until
from rbee.wire.queen import LOCAL_NODE

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.session.running_queen import RunningQueen
    from rbee.wire.progress import SwarmDownload
    from rbee.wire.queen import NodeStatus, SwarmStatus, SwarmWorker

NO_QUEEN: Final = "No queen is running. `rbee infer` starts one for itself; `rbee up` starts one that stays."
EMPTY: Final[dict[str, Any]] = {
    "queen": {"running": False, "url": None, "version": None, "pid": None, "mode": None},
    "nodes": [],
    "workers": [],
    "downloads": [],
}
"""The data when no queen is running."""


class StatusView(NamedTuple):
    """The swarm at one moment, as JSON values and as text; `note` says that there is nothing of a kind."""

    data: dict[str, Any]
    text: str
    note: str


def draw(found: RunningQueen, status: SwarmStatus, settings: Settings, room: int | None) -> StatusView:
    """Return the view of what the queen has answered, for a terminal with `room` columns."""
    own = found.own
    queen: dict[str, Any] = {
        "running": True,
        "url": found.url,
        "version": found.health.version,
        "pid": own.identity.pid if own is not None else None,
        "mode": None if own is None else "ephemeral" if own.ephemeral else "persistent",
    }
    data = {
        "queen": queen,
        "nodes": to_json(status.nodes),
        "workers": to_json(status.workers),
        "downloads": to_json(status.downloads),
    }
    unreachable = [_why_unreachable(node, found, settings) for node in status.nodes if node.status == "unreachable"]
    downloads = [_download(download) for download in status.downloads]
    parts = [
        _queen(queen),
        _nodes(status.nodes, room),
        "\n".join(unreachable),
        "\n".join(downloads),
        _workers(status.workers, room),
    ]
    return StatusView(data, "\n\n".join(filter(None, parts)), "" if status.workers else NO_WORKERS_RUN)


def _queen(queen: dict[str, Any]) -> str:
    extra = [f"version {queen['version']}"]
    if queen["version"] != __version__:
        extra[0] += f", and this command {__version__}"
    if queen["pid"] is not None:
        extra.append(f"pid {queen['pid']}")
    if queen["mode"] == "ephemeral":
        extra.append("for one command only")
    return render.clean(f"Queen  {queen['url']}  ({', '.join(extra)})")


def _nodes(nodes: list[NodeStatus], room: int | None) -> str:
    rows = []
    for node in nodes:
        if node.status == "unreachable" or node.memory_total is None:
            rows.append((node.node, _state(node), "–", "–", "–"))
            continue
        memory = f"{render.size(node.memory_available or 0)} of {render.size(node.memory_total)}"
        slots = f"{node.slots_available} of {node.slots_total}" if node.workers else "–"
        rows.append((node.node, node.version or "?", str(node.workers), slots, memory))
    return tables.table(("node", "hive", "workers", "free slots", "free memory"), rows, room)


def _state(node: NodeStatus) -> str:
    """Return in a word how a node is; a queen of an earlier version has none for it."""
    return node.state or ("not started" if node.node == LOCAL_NODE and node.version is None else node.status)


def _why_unreachable(node: NodeStatus, queen: RunningQueen, settings: Settings) -> str:
    """Return why a node does not answer; about the host of its own queen the keeper knows more than that."""
    is_here = node.node == LOCAL_NODE and queen.own is not None
    hive = instance.find(settings.state_dir, "hive") if is_here else None
    if node.node == LOCAL_NODE and hive is None and node.version is None:
        reason = "no hive is running; the first request starts it"
    elif hive is None:
        reason = node.reason or node.status
    elif process.is_stopped(hive.identity):
        pid = hive.identity.pid
        reason = f"the hive, pid {pid}, is stopped; `kill -CONT {pid}` lets it go on"
    else:
        reason = f"the hive, pid {hive.identity.pid}, does not answer; its log is {settings.logs_dir / 'hive.log'}"
    return render.clean(f"{node.node}: {reason}")


def _download(download: SwarmDownload) -> str:
    """Return one line about a model that a node is fetching."""
    done, total = download.bytes_downloaded, download.bytes_total
    words = [f"{100 * done // total} % of {render.size(total)}"] if total else []
    match download.stage:
        case "asking":
            words.append("asking the hub")
        case "retrying":
            words.append(f"trying again: {download.message}")
        case "verifying":
            words.append("verifying")
        case _:
            words.append(f"{download.speed_mbps:.1f} MB/s")
    return render.clean(f"{download.node}: fetching {download.model_ref}, {', '.join(words)}")


def _workers(workers: list[SwarmWorker], room: int | None) -> str:
    if not workers:
        return ""
    rows = [
        (
            worker.worker_id[:SHORT],
            worker.node,
            worker.state,
            f"{worker.slots_available} of {worker.slots_total}",
            f"{worker.backend}:{worker.device}",
            until(worker),
            worker.model_ref,
        )
        for worker in workers
    ]
    return tables.table(("worker", "node", "state", "free slots", "device", "loaded until", "model"), rows, room)
