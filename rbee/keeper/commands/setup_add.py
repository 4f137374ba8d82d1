"""`rbee setup add-node` and `update-node`: registers a machine as a node, or changes a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from rbee.adapters.arguments import UsageError
from rbee.adapters.files import home, private
from rbee.keeper.command_line.checked import convert
from rbee.keeper.output.result import Result
from rbee.keeper.session import queen_address, session
from rbee.narrower_errors import HostKeyError
from rbee.wire import ssh_address
from rbee.wire.addresses import is_loopback
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
    address = queen_address.configured(settings)
    fields = _fields(options, is_queen_here=not address.is_named or is_loopback(address.machine))
    # Bad values are refused before anything starts; the other fields of an update are in the registry.
    placeholders = {"ssh_host": "unknown"} if options.is_update else {}
    requested = convert(placeholders | fields, Beehive, strict=True)

    async def register(queen: QueenClient) -> str:
        node = await _merged(queen, fields, requested) if options.is_update else requested
        return await _store(queen, node, terminal, is_update=options.is_update)

    message = session.ask(options, settings, terminal, register)
    next_step = "" if options.is_update else f" Next: rbee setup install --node {requested.node_name}"
    return Result(notes=(message + next_step,))


def _fields(options: NodeSettingsOptions, *, is_queen_here: bool) -> dict[str, Any]:
    values = {field: getattr(options, name) for name, field in FIELDS.items()}
    fields = {field: value for field, value in values.items() if value is not None}
    if "ssh_key_path" in fields and is_queen_here:
        fields["ssh_key_path"] = _key_path(fields["ssh_key_path"])
    if "ssh_host" in fields:
        fields |= _address(fields)
    return fields


def _key_path(text: str) -> str:
    """Return the path of the key file for the queen, which runs in another folder. Raises UsageError for none."""
    path = home.expanded(text).absolute()
    if not path.is_file() and not path.with_name(f"{path.name}.pub").is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise UsageError(
            f"--ssh-key {private.shown(path)} {what}",
            "it names the private key, or the public one of a key that the agent holds",
        )
    return str(path)


def _address(fields: dict[str, Any]) -> dict[str, Any]:
    """Return what --ssh-host says of host, user and port. Raises UsageError for what contradicts other options."""
    text = fields["ssh_host"]
    try:
        found = ssh_address.parse(text)
    except ValueError as exc:
        raise UsageError(
            f"--ssh-host {text} {exc}", "write it as for ssh: HOST, USER@HOST or ssh://USER@HOST:PORT"
        ) from exc
    said = {"ssh_host": found.host, "ssh_user": found.user, "ssh_port": found.port}
    for field, option in (("ssh_user", "--ssh-user"), ("ssh_port", "--ssh-port")):
        if said[field] is not None and fields.get(field, said[field]) != said[field]:
            raise UsageError(f"--ssh-host says {said[field]}, and {option} says {fields[field]}", "give it once")
    return {field: value for field, value in said.items() if value is not None}


async def _merged(queen: QueenClient, fields: dict[str, Any], requested: Beehive) -> Beehive:
    """Return the registered node with the changed fields; the queen refuses an unknown name."""
    for row in await queen.nodes():
        if row.node_name == requested.node_name:
            known = msgspec.structs.asdict(row)
            kept = {name: known[name] for name in Beehive.__struct_fields__ if name in known}
            if (follows := row.ssh_settings) is not None:
                # They go on following ssh's settings.
                for field, is_theirs in (("ssh_port", follows.has_port), ("ssh_user", follows.has_user)):
                    if is_theirs:
                        del kept[field]
            # The queen looks up again what the machine has.
            return convert(kept | {"backends": None, "devices": None} | fields, Beehive, strict=True)
    return requested


async def _store(queen: QueenClient, node: Beehive, terminal: Terminal, *, is_update: bool) -> str:
    send = queen.update_node if is_update else queen.add_node
    may_ask = node.accept_host_key is None
    asked: set[str] = set()
    while True:
        try:
            return _sentence((await send(node, terminal.report)).message)
        except HostKeyError as exc:
            # Once for each machine on the way.
            if (fingerprint := exc.unknown_fingerprint) is None or not may_ask or fingerprint in asked:
                raise
            host = exc.details.get("host", node.ssh_host)
            question = (
                f"The host key of {host} is not known yet: {fingerprint}\nIs this the key of that machine? [y/N] "
            )
            if not await terminal.confirm(question):
                raise
            asked.add(fingerprint)
            node.accept_host_key = fingerprint


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:] + "."
