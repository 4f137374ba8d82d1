"""`rbee setup list-nodes`: lists the registered nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.keeper.output import render
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.keeper.views.workers import moment

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.registry import BeehiveRow


def run(options: Options, settings: Settings, terminal: Terminal) -> Result:
    nodes = session.ask(options, settings, terminal, lambda queen: queen.nodes())
    notes = () if nodes else ("No nodes are registered; `rbee setup add-node` registers one.",)
    return Result(data={"nodes": msgspec.to_builtins(nodes)}, text=_text(nodes), notes=notes)


def _text(nodes: list[BeehiveRow]) -> str:
    return "\n\n".join(["Registered nodes", *map(_block, nodes)]) if nodes else ""


def _block(row: BeehiveRow) -> str:
    port = "" if row.ssh_port == 22 else f":{row.ssh_port}"
    lines = {
        "status": row.status + (f" ({row.last_error.splitlines()[0]})" if row.last_error else ""),
        "last connected": moment(row.last_connected_unix),
        "install path": row.install_path,
        "devices": ", ".join(f"{count} × {name}" for name, count in row.devices.items()) or "unknown",
    }
    head = f"{row.node_name} ({row.ssh_host}{port})"
    return "\n".join([render.clean(head), *(f"  {name:<15} {render.clean(value)}" for name, value in lines.items())])
