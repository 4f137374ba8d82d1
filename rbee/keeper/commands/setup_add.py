"""`rbee setup add-node` and `update-node`: registers a machine as a node, or changes a node."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rbee.errors import HostKeyError
from rbee.keeper.output.result import Result
from rbee.keeper.session import session
from rbee.wire.decode import convert
from rbee.wire.registry import Beehive

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.command_line.typed import NodeSettingsOptions
    from rbee.keeper.output.terminal import Terminal

FIELDS: Final = {
    "name": "node_name",
    "ssh_host": "ssh_host",
    "ssh_port": "ssh_port",
    "ssh_user": "ssh_user",
    "ssh_key": "ssh_key_path",
    "install_path": "install_path",
    "git_repo": "git_repo_url",
    "git_branch": "git_branch",
    "tunnel": "tunnel",
    "accept_host_key": "accept_host_key",
}
"""Option → field of the queen's request."""


def run(options: NodeSettingsOptions, settings: Settings, terminal: Terminal) -> Result:
    """Have the queen connect to the machine, and store the node if that succeeds."""
    fields = _fields(options)
    # Bad values are refused before anything starts; the other fields of an update are in the registry.
    placeholders = {"ssh_host": "unknown", "ssh_user": "unknown"} if options.is_update else {}
    requested = convert(placeholders | fields, Beehive, strict=True)

    async def register(queen: QueenClient) -> str:
        node = await _merged(queen, fields, requested) if options.is_update else requested
        return await _store(queen, node, terminal, is_update=options.is_update)

    message = session.ask(options, settings, terminal, register)
    next_step = "" if options.is_update else f" Next: rbee setup install --node {requested.node_name}"
    return Result(notes=(message + next_step,))


def _fields(options: NodeSettingsOptions) -> dict[str, Any]:
    values = {field: getattr(options, name) for name, field in FIELDS.items()}
    fields = {field: value for field, value in values.items() if value is not None}
    if "ssh_key_path" in fields:
        # The queen runs in another folder.
        fields["ssh_key_path"] = str(Path(fields["ssh_key_path"]).expanduser().absolute())
    return fields


async def _merged(queen: QueenClient, fields: dict[str, Any], requested: Beehive) -> Beehive:
    """Return the registered node with the changed fields; the queen refuses an unknown name."""
    for row in await queen.nodes():
        if row.node_name == requested.node_name:
            known = msgspec.structs.asdict(row)
            kept = {name: known[name] for name in Beehive.__struct_fields__ if name in known}
            # The queen looks up again what the machine has.
            return convert(kept | {"backends": None, "devices": None} | fields, Beehive, strict=True)
    return requested


async def _store(queen: QueenClient, node: Beehive, terminal: Terminal, *, is_update: bool) -> str:
    send = queen.update_node if is_update else queen.add_node
    try:
        return _sentence((await send(node, terminal.report)).message)
    except HostKeyError as exc:
        if (fingerprint := exc.unknown_fingerprint) is None or node.accept_host_key is not None:
            raise
        question = (
            f"The host key of {node.ssh_host} is not known yet: {fingerprint}\nIs this the key of that machine? [y/N] "
        )
        if not await terminal.confirm(question):
            raise
        node.accept_host_key = fingerprint
    return _sentence((await send(node, terminal.report)).message)


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:] + "."
