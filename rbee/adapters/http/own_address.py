"""Tells the addresses of this machine from those of others."""

from __future__ import annotations

import socket

import trio

from rbee.wire.addresses import is_loopback, is_own


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
