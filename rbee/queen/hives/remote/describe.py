"""Finds out over SSH what the user has not said of a node that is registered."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import msgspec

from rbee.adapters.ssh import dial
from rbee.adapters.ssh.target import SSH_PORT, Target
from rbee.queen.hives.link import narrate
from rbee.queen.hives.remote.probe import probe
from rbee.wire.registry import BeehiveRow, SshSettings

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.adapters.ssh.connection import SshConnection
    from rbee.queen.hives.remote.probe import Machine
    from rbee.wire.progress import Report
    from rbee.wire.registry import Beehive


async def describe(asked: Beehive, settings: Settings, report: Report, known: BeehiveRow | None = None) -> BeehiveRow:
    """Connect to the machine and return the node's row. Raises SshFailedError; stores nothing but a new host key.

    Where `known` is the same machine, its key must be the one that is pinned.
    """
    key_path = None if asked.ssh_key_path is None else os.path.expanduser(asked.ssh_key_path)  # noqa: ASYNC240, PTH111
    pinned = known.host_key if known is not None and _is_same_machine(known, asked) else None
    target = Target(asked.ssh_host, asked.ssh_port or None, asked.ssh_user or None, key_path, pinned)
    narrate(report, asked.node_name, "ssh_test", f"Testing SSH connection to {asked.ssh_host}")
    async with dial.connect(
        target,
        own_known_hosts=settings.state_dir / "known_hosts",
        accept=asked.accept_host_key,
        seconds=settings.timeouts.ssh_connect,
    ) as connection:
        machine = await probe(connection)
    server = connection.server
    for note in server.notes:
        narrate(report, asked.node_name, "ssh_settings", note[:1].upper() + note[1:])
    human = f"SSH connection to {asked.ssh_host} works: {_in_words(machine)}"
    narrate(report, asked.node_name, "ssh_ready", human)
    found = {
        "ssh_key_path": key_path,
        "install_path": machine.absolute(asked.install_path),
        "host_key": connection.host_key,
        "last_connected_unix": time.time(),
        "last_error": None,
        "status": "reachable",
        "backends": machine.backends if asked.backends is None else asked.backends,
        "devices": machine.devices if asked.devices is None else asked.devices,
        "spawned_by_queen": False,
    }
    row = msgspec.structs.asdict(asked) | found | msgspec.to_builtins(way(connection))
    return msgspec.convert(row, BeehiveRow)


def way(connection: SshConnection) -> dict[str, Any]:
    """Return the fields of a row that may follow ssh's settings, as they are now."""
    server = connection.server
    return {"ssh_port": server.port, "ssh_user": server.user, "ssh_settings": _settings(connection)}


def _settings(connection: SshConnection) -> SshSettings | None:
    """Return what of the way came from ssh's settings; None where nothing did."""
    server = connection.server
    found = SshSettings(
        address=server.host,
        has_port=server.has_port,
        has_user=server.has_user,
        is_proxied=connection.is_proxied,
    )
    return None if found == SshSettings(address=server.name) else found


def _is_same_machine(known: BeehiveRow, asked: Beehive) -> bool:
    """Whether what is asked for leads to the machine that is registered, by the same settings."""
    follows = known.ssh_settings is not None and known.ssh_settings.has_port
    return known.ssh_host == asked.ssh_host and (
        (asked.ssh_port or SSH_PORT) == known.ssh_port or (follows and not asked.ssh_port)
    )


def _in_words(machine: Machine) -> str:
    python = machine.python()
    runs = f"Python {'.'.join(map(str, python.version))}" if python else "no Python that fits"
    devices = ", ".join(f"{count} × {name}" for name, count in machine.devices.items())
    return f"{machine.system} {machine.architecture}, {runs}, {devices}"
