"""`rbee models list`: lists the fetched models of all nodes, or of one, and those that ship with rbee."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

import rbee.data
from rbee.keeper.command_line.checked import convert
from rbee.keeper.output import render, tables
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.keeper.views.workers import moment
from rbee.wire import model_ref
from rbee.wire.queen import NodeQuery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import NodeOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.keeper.session.attached_queen import AttachedQueen
    from rbee.wire.administration.aliases import ModelAlias
    from rbee.wire.models import SwarmModels


NONE_FETCHED: Final = "No models have been fetched yet; `rbee models pull REF` fetches one."


def run(options: NodeOptions, settings: Settings, terminal: Terminal) -> Result:
    """Return the rows of the catalogues; starts a hive on this machine, or on the node that `--node` names."""
    if options.node is not None:
        convert({"node": options.node}, NodeQuery)

    async def ask(queen: AttachedQueen) -> tuple[SwarmModels, list[ModelAlias]]:
        swarm = await queen.list_models(options.node, terminal.report)
        return swarm, [] if options.node is not None else await queen.known_aliases()

    swarm, aliases = session.ask(options, settings, terminal, ask)
    notes = [f"{node.node}: {node.error}" for node in swarm.nodes if node.error is not None]
    if not any(node.models for node in swarm.nodes):
        notes.append(NONE_FETCHED)
    builtin = _builtin()
    data = msgspec.to_builtins(swarm) | {"builtin": builtin, "aliases": msgspec.to_builtins(aliases)}
    return Result(data=data, text=_text(swarm, builtin, aliases, terminal.room), notes=tuple(notes))


def _builtin() -> list[dict[str, Any]]:
    """Return the models that are on every node, since they ship with rbee."""
    folder = Path(rbee.data.__path__[0])
    return [
        {"id": name, "model_ref": f"builtin:{name}", "size_bytes": (folder / file).stat().st_size}
        for name, file in model_ref.BUILTIN_FILES.items()
    ]


def _text(
    swarm: SwarmModels, builtin: Sequence[dict[str, Any]], aliases: Sequence[ModelAlias], room: int | None
) -> str:
    rows = [
        (row.id, node.node, row.model_ref, render.size(row.size_bytes), moment(row.last_used_unix))
        for node in swarm.nodes
        for row in node.models
    ]
    rows += [(row["id"], "every node", row["model_ref"], render.size(row["size_bytes"]), "–") for row in builtin]
    rows += [(one.name, one.node or "any node", f"→ {one.model or 'nothing'}", "–", "–") for one in aliases]
    return tables.table(("id", "node", "model", "size", "last used"), rows, room)
