"""`rbee setup remove-node`: removes a node from the registry."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from rbee.keeper.command_line.checked import convert
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.wire.registry import NodeName

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.command_line.typed import NodeNameOptions
    from rbee.keeper.output.terminal import Terminal
    from rbee.wire.registry import BeehiveRow

SSH_PORT: Final = 22


def run(options: NodeNameOptions, settings: Settings, terminal: Terminal) -> Result:
    """Have the queen end the node's hive, if a queen started it, and remove the node."""

    convert({"node_name": options.name}, NodeName)

    async def remove(queen: QueenClient) -> BeehiveRow | None:
        rows = {row.node_name: row for row in await queen.nodes()}
        await queen.remove_node(options.name, terminal.report)
        return rows.get(options.name)

    row = session.ask(options, settings, terminal, remove)
    note = f"Node {options.name} was removed from the registry. What is installed there stays"
    return Result(notes=(f"{note}." if row is None else f"{note}; to delete it:\n  {deletion(row)}",))


def deletion(row: BeehiveRow) -> str:
    """Return the command that deletes an installation, quoted twice: ssh passes its words to a shell there."""
    command = shlex.join(["rm", "-r", row.install_path])
    port = [] if row.ssh_port == SSH_PORT else ["-p", str(row.ssh_port)]
    key = [] if row.ssh_key_path is None else ["-i", row.ssh_key_path]
    return shlex.join(["ssh", *port, *key, f"{row.ssh_user}@{row.ssh_host}", command])
