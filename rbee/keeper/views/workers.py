"""Shows the workers of the swarm alike in every command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from rbee.keeper.output import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.download import SwarmDownload
    from rbee.wire.queen import EndedWorker, NodeStatus, SwarmWorker, UnreachableNode

NO_QUEEN: Final = "No queen is running, so no workers are known."
SHORT: Final = 8
"""Characters of a worker's id that tell it from others, and by which it can be ended."""


def workers_table(workers: Sequence[SwarmWorker]) -> str:
    """Return the workers as a table, or a sentence where there are none."""
    if not workers:
        return "No workers are running."
    rows = [
        (
            worker.worker_id[:SHORT],
            worker.node,
            worker.state,
            worker.model_ref,
            f"{worker.backend}:{worker.device}",
            f"{worker.slots_available}/{worker.slots_total}",
            worker.url,
        )
        for worker in workers
    ]
    return render.table(("worker", "node", "state", "model", "device", "free slots", "url"), rows)


def unreachable(nodes: Sequence[UnreachableNode | NodeStatus]) -> list[str]:
    """Return a line for each node of which nothing is known."""
    return [
        render.clean(f"{node.node} is unreachable: {node.reason}") for node in nodes if node.status == "unreachable"
    ]


def to_json(
    rows: Sequence[SwarmWorker | EndedWorker | UnreachableNode | NodeStatus | SwarmDownload],
) -> Any:
    """Return what the queen lists as JSON values, with the keys of the queen's own answer."""
    return msgspec.to_builtins(list(rows))
