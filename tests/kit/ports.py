"""Ports that stay free until the program under test takes them, and addresses that nobody else uses.

A port that was free a moment ago may be taken when a program binds it. So each one is held: bound by us, and nobody
listens. The kernel gives such a port to no one who asks for any free one, and refuses what connects to it; rbee and
sshd set SO_REUSEADDR, as we do, and so may listen there all the same.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from typing import Final

WORKERS: Final = 24
"""Ports a machine's workers have to themselves."""
_LOWEST, _HIGHEST = 10_000, 32_000
"""Below what the kernel gives to those who ask for any port (ip_local_port_range)."""
_held: Final[dict[tuple[str, int], socket.socket]] = {}


def hold_port(address: str = "127.0.0.1") -> int:
    """Return a port of this address at which only those listen who are told of it."""
    while True:
        holder = socket.socket()
        holder.bind((address, 0))
        # Afterwards: bound with it, the kernel may choose a port that another one of us holds already.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port: int = holder.getsockname()[1]
        if _held.setdefault((address, port), holder) is holder:
            return port
        holder.close()  # it may choose one all the same, once the program that listened there has ended


def _blocks() -> itertools.cycle[int]:
    # pytest-xdist's workers each have a part of the range; two runs at once begin at different places of it.
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    blocks = list(range(_LOWEST, _HIGHEST, WORKERS))[number::8]
    begin = os.getpid() % len(blocks)
    return itertools.cycle(blocks[begin:] + blocks[:begin])


_next_block: Final = _blocks()


def worker_ports() -> int:
    """Return the first of some ports for workers, which take the first free one from there upwards."""
    return next(_next_block)


def own_address() -> str:
    """Return a loopback address at which nobody listens: 127.0.0.0/8 is all of this machine.

    Hives of all nodes listen at one port, so each node has an address to itself.
    """
    while True:
        address = ".".join(["127", *(str(random.randint(2, 250)) for _ in range(3))])
        with socket.socket() as probe:
            if probe.connect_ex((address, 9200)) != 0:
                return address
