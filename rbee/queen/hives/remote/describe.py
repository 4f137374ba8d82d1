"""Finds out over SSH what the user has not said of a node that is registered."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec

from rbee.adapters.ssh import dial
from rbee.adapters.ssh.target import Target
from rbee.queen.hives.link import narrate
from rbee.queen.hives.remote.probe import probe
from rbee.wire.registry import BeehiveRow

if TYPE_CHECKING:
    from rbee.adapters.config import Settings
    from rbee.queen.hives.remote.probe import Machine
    from rbee.wire.progress import Report
    from rbee.wire.registry import Beehive


async def describe(asked: Beehive, settings: Settings, report: Report, known: BeehiveRow | None = None) -> BeehiveRow:
    """Connect to the machine and return the node's row. Raises SshFailedError; stores nothing but a new host key.

    Where `known` is the same machine, its key must be the one that is pinned.
    """
    key_path = None if asked.ssh_key_path is None else os.path.expanduser(asked.ssh_key_path)  # noqa: ASYNC240, PTH111
    is_same = known is not None and (known.ssh_host, known.ssh_port) == (asked.ssh_host, asked.ssh_port)
    pinned = known.host_key if known is not None and is_same else None
    target = Target(asked.ssh_host, asked.ssh_port, asked.ssh_user, key_path, pinned)
    narrate(report, asked.node_name, "ssh_test", f"Testing SSH connection to {asked.ssh_host}")
    async with dial.connect(
        target,
        own_known_hosts=settings.state_dir / "known_hosts",
        accept=asked.accept_host_key,
        seconds=settings.timeouts.ssh_connect,
    ) as connection:
        machine = await probe(connection)
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
    return msgspec.convert(msgspec.structs.asdict(asked) | found, BeehiveRow)


def _in_words(machine: Machine) -> str:
    python = machine.python()
    runs = f"Python {'.'.join(map(str, python.version))}" if python else "no Python that fits"
    devices = ", ".join(f"{count} × {name}" for name, count in machine.devices.items())
    return f"{machine.system} {machine.architecture}, {runs}, {devices}"
