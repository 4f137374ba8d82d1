"""The table of workers, moments, and the JSON of rows, as every command shows them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rbee.keeper.output import render, tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.progress import SwarmDownload
    from rbee.wire.queen import NodeStatus, SwarmEndedWorker, SwarmWorker, UnreachableNode

NO_WORKERS_KNOWN: Final = "No queen is running, so no workers are known."
NO_WORKERS_RUN: Final = "No workers are running."
_ENDLESS: Final = timedelta(days=1000)
SHORT: Final = 8
"""Characters of a worker's id that are shown; they are enough to identify it."""


def workers_table(workers: Sequence[SwarmWorker], room: int | None) -> str:
    """Return the workers as a table that fits into `room` columns."""
    rows = [
        (
            worker.worker_id[:SHORT],
            worker.node,
            worker.state,
            worker.model_ref,
            f"{worker.backend}:{worker.device}",
            f"{worker.slots_available} of {worker.slots_total}",
            until(worker),
            worker.url,
        )
        for worker in workers
    ]
    return tables.table(("worker", "node", "state", "model", "device", "free slots", "loaded until", "url"), rows, room)


def until(worker: SwarmWorker) -> str:
    """Return when a worker that is idle ends if no request comes."""
    if worker.idle_until is None:
        return "–"
    ends, now = datetime.fromtimestamp(worker.idle_until).astimezone(), datetime.now().astimezone()
    if ends - now > _ENDLESS:
        return "it is ended"
    if ends.date() == now.date():
        return ends.strftime("%H:%M:%S")
    # A table with a whole date does not fit into 80 columns.
    return ends.strftime("%d %b %H:%M" if ends.year == now.year else "%d %b %Y")


def moment(unix: float | None) -> str:
    """Return a moment in the local time."""
    return "never" if unix is None else datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def unreachable(nodes: Sequence[UnreachableNode | NodeStatus]) -> list[str]:
    return [
        render.clean(f"{node.node} is {node.state or node.status}: {node.reason}")
        for node in nodes
        if node.status == "unreachable"
    ]


def to_json(rows: Sequence[SwarmWorker | SwarmEndedWorker | UnreachableNode | NodeStatus | SwarmDownload]) -> Any:
    """Return rows of the queen's answer as JSON values, with the same keys."""
    return msgspec.to_builtins(list(rows))
