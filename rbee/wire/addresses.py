"""Says what the host of a URL means: one machine, every address of it, or another one on each machine."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

_REMEMBERED: Final = 128
"""Hosts, of which each request asks a dozen times; to take one apart takes 10 us."""


@lru_cache(_REMEMBERED)
def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on `host`."""
    found = _parse(host)
    return host.lower().removesuffix(".") == "localhost" if found is None else found.is_loopback


@lru_cache(_REMEMBERED)
def is_unspecified(host: str) -> bool:
    """Whether `host` means all addresses of the machine that listens on it; nobody else can use it to get there."""
    found = _parse(host)
    return found is not None and found.is_unspecified


def is_own(host: str) -> bool:
    """Whether `host` means a different machine on each machine: loopback, or the unspecified address."""
    return is_loopback(host) or is_unspecified(host)


def reachable(host: str) -> str:
    """Return the host at which this machine reaches what listens on `host`: loopback where that is every address."""
    if not is_unspecified(host):
        return host
    return "::1" if ":" in host else "127.0.0.1"


def is_met(host: str, listening: str) -> bool:
    """Whether one that asks for `host` may meet what listens at this address: at the very same one, or at every one.

    Of a name it is not known which addresses it has, but for localhost.
    """
    asked = _parse(host)
    if is_unspecified(host) or is_unspecified(listening):
        return True
    return is_loopback(listening) or not is_loopback(host) if asked is None else _parse(listening) == asked


@lru_cache(_REMEMBERED)
def plain(host: str) -> str:
    """Return an address as its own family writes it: one of IPv4 in a socket of IPv6 is `::ffff:192.0.2.7` there."""
    found = _parse(host)
    return host if found is None else str(found)


def _parse(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return found if mapped is None else mapped
