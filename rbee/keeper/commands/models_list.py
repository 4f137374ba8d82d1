"""`rbee models list`: lists the fetched models of all nodes, or of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.keeper.output import render
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.keeper.views.workers import moment

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import NodeOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.models import SwarmModels


def run(options: NodeOptions, settings: Settings, terminal: Terminal) -> Result:
    """Return the rows of the catalogues; starts a hive on this machine, or on the node that `--node` names."""
    swarm = session.ask(options, settings, terminal, lambda queen: queen.list_models(options.node, terminal.report))
    notes = tuple(f"{node.node}: {node.error}" for node in swarm.nodes if node.error is not None)
    return Result(data=msgspec.to_builtins(swarm), text=_text(swarm), notes=notes)


def _text(swarm: SwarmModels) -> str:
    rows = [
        (row.id, node.node, row.model_ref, render.size(row.size_bytes), moment(row.last_used_unix))
        for node in swarm.nodes
        for row in node.models
    ]
    if not rows:
        return (
            "No models have been fetched yet; `rbee models pull REF` fetches one. builtin:bee-stories is always there."
        )
    return render.table(("id", "node", "model", "size", "last used"), rows)
