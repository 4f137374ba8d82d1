"""`rbee setup list-nodes`: lists the registered nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rbee.keeper.output import render, tables
from rbee.keeper.output.result import Result
from rbee.keeper.session import interrupt, registry_file, running_queen, session
from rbee.keeper.views.workers import moment

if TYPE_CHECKING:
    import trio

    from rbee.adapters.config import Settings
    from rbee.keeper.command_line.typed import Options
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.queen import NodeStatus
    from rbee.wire.registry import BeehiveRow


def run(options: Options, settings: Settings, terminal: Terminal) -> Result:
    """Return the registered nodes, and how their hives are if a queen runs; starts one only where the file needs it."""

    async def command(force: trio.Event) -> Result:
        found = await running_queen.find(settings)
        if found is None and (rows := registry_file.read(settings)) is not None:
            return _result(rows, {}, terminal.room)
        async with session.use(settings, terminal, force, options=options) as queen:
            rows = await queen.nodes()
            states = {} if found is None else {node.node: node for node in (await queen.status()).nodes}
        return _result(rows, states, terminal.room)

    return interrupt.run(command)


def _result(rows: list[BeehiveRow], states: dict[str, NodeStatus], room: int | None) -> Result:
    notes = () if rows else ("No nodes are registered; `rbee setup add-node` registers one.",)
    text = (
        "\n\n".join(["Registered nodes", *(_block(row, states.get(row.node_name), room) for row in rows)])
        if rows
        else ""
    )
    return Result(data={"nodes": msgspec.to_builtins(rows)}, text=text, notes=notes)


def _hive(state: NodeStatus) -> str:
    if state.status == "alive":
        return f"{state.version}, {render.plural(state.workers, 'worker')}"
    return f"{state.state or state.status} ({state.reason})"


def _block(row: BeehiveRow, state: NodeStatus | None, room: int | None) -> str:
    port = "" if row.ssh_port == 22 else f":{row.ssh_port}"
    lines = {
        "status": row.status + (f" ({row.last_error.splitlines()[0]})" if row.last_error else ""),
        **({} if state is None else {"hive": _hive(state)}),
        "last connected": moment(row.last_connected_unix),
        "install path": row.install_path,
        "devices": ", ".join(f"{count} × {name}" for name, count in row.devices.items()) or "unknown",
    }
    head = f"{row.node_name} ({row.ssh_host}{port})"
    return f"{render.clean(head)}\n{tables.fields(lines.items(), room, indent='  ')}"
