"""Registers a node, or changes one that is registered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rbee.errors import HostKeyError
from rbee.keeper.output.result import Result
from rbee.keeper.session import interrupt, session
from rbee.keeper.session.child_queen import Options
from rbee.wire.decode import convert
from rbee.wire.registry import Beehive

if TYPE_CHECKING:
    from argparse import Namespace

    import trio

    from rbee.adapters.config import Settings
    from rbee.clients.queen import QueenClient
    from rbee.keeper.output.terminal import Terminal

GIVEN: Final = {
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
"""Options and the fields of the queen's message that they fill."""


def run(options: Namespace, settings: Settings, terminal: Terminal) -> Result:
    """Have the queen connect to the machine, and store the node if that works."""
    fields = _fields(options)
    # What is wrong is refused before anything starts; an update's other fields are in the registry.
    standing = {"ssh_host": "unknown", "ssh_user": "unknown"} if options.is_update else {}
    asked = convert(standing | fields, Beehive, strict=True)

    async def command(force: trio.Event) -> Result:
        own = Options(options.config, options.debug)
        async with session.use(settings, terminal, force, options=own) as queen:
            node = await _merged(queen, fields, asked) if options.is_update else asked
            done = await _store(queen, node, terminal, is_update=options.is_update)
        following = "" if options.is_update else f" Next: rbee setup install --node {node.node_name}"
        return Result(notes=(done + following,))

    return interrupt.run(command)


def _fields(options: Namespace) -> dict[str, Any]:
    given = {field: getattr(options, name) for name, field in GIVEN.items()}
    fields = {field: value for field, value in given.items() if value is not None}
    if "ssh_key_path" in fields:
        # The queen works in another folder.
        fields["ssh_key_path"] = str(Path(fields["ssh_key_path"]).expanduser().absolute())
    return fields


async def _merged(queen: QueenClient, fields: dict[str, Any], asked: Beehive) -> Beehive:
    """Return the registered node with what is to change; an unknown name is the queen's to refuse."""
    for row in await queen.nodes():
        if row.node_name == asked.node_name:
            known = msgspec.structs.asdict(row)
            kept = {name: known[name] for name in Beehive.__struct_fields__ if name in known}
            # What the machine has is looked up anew.
            return convert(kept | {"backends": None, "devices": None} | fields, Beehive, strict=True)
    return asked


async def _store(queen: QueenClient, node: Beehive, terminal: Terminal, *, is_update: bool) -> str:
    send = queen.update_node if is_update else queen.add_node
    try:
        return _done((await send(node, terminal.narrate)).message)
    except HostKeyError as exc:
        if (found := exc.unknown_fingerprint) is None or node.accept_host_key is not None:
            raise
        question = f"The host key of {node.ssh_host} is not known yet: {found}\nIs it the one of that machine? [y/N] "
        if not await terminal.confirm(question):
            raise
        node.accept_host_key = found
    return _done((await send(node, terminal.narrate)).message)


def _done(message: str) -> str:
    return message[:1].upper() + message[1:] + "."
