"""Tells the addresses of this machine from those of others."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import trio

from rbee.wire.addresses import is_loopback, is_own


def names() -> set[str]:
    """Return the names that this machine gives itself, in small letters; nobody else is asked."""
    return {name.lower() for name in (socket.gethostname(), os.uname().nodename) if name}


async def full_name() -> str:
    """Return the name with its domain that the resolver knows this machine by, which may take some seconds."""
    return (await trio.to_thread.run_sync(socket.getfqdn, abandon_on_cancel=True)).lower()


def outward() -> str | None:
    """Return the address under which machines of the local network most likely reach this one; None without a network.

    It is the one that a packet to far away would be sent from; nothing is sent.
    """
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        found = str(probe.getsockname()[0])
        return None if is_own(found) else found
    return None


async def is_of_this_machine(host: str) -> bool:
    """Whether a server on this machine can listen on `host`. True for a name that nobody knows: listening says why."""
    if is_own(host):
        return True
    try:
        found = await trio.socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return True
    return any(_is_local(family, address) for family, _, _, _, address in found)


async def own_addresses(host: str) -> list[str]:
    """Return the addresses of this machine, without names, that `host` means; none where it means another one."""
    try:
        found = await trio.socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return []
    return list({str(address[0]) for family, _, _, _, address in found if _is_local(family, address)})


def _is_local(family: int, address: tuple[object, ...]) -> bool:
    """Whether a packet to the address would be sent from it: the kernel knows, and nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            return is_loopback(str(address[0])) or bool(probe.getsockname()[0] == address[0])
    except OSError:
        return False
