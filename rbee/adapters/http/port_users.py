"""Says which other users of this machine listen where a URL leads: what is sent there, they read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from rbee.adapters.daemon import port_owner
from rbee.adapters.http import own_address
from rbee.narrower_errors import KeyRefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

NOBODY: Final[frozenset[int]] = frozenset()


async def strangers(url: str) -> frozenset[int]:
    """Return the ids of the users, other than this one and root, whose programs listen where `url` leads.

    None of them for a URL that leads to another machine, nor where the system does not show who listens: so it is for
    a port that the kernel passes on into a container.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    users: set[int] = set()
    for address in await own_address.own_addresses(parts.hostname or ""):
        users |= port_owner.users_at(address, port)
    return frozenset(users - {0, os.geteuid()})


def guard(url: str, known: frozenset[int] = NOBODY) -> Callable[[Any], Awaitable[None]]:
    """Return what is awaited before each request to `url` that carries the token.

    It raises KeyRefusedError once another user has the port that is not one of the `known`: a daemon that has ended
    leaves it to anybody.
    """

    async def check(_request: object) -> None:
        if await strangers(url) - known:
            raise KeyRefusedError(
                f"port {urlsplit(url).port} has been taken by another user{whose(url)}; the token was not sent there",
                host=urlsplit(url).netloc,
            )

    return check


def whose(url: str) -> str:
    """Say who listens there on this machine, as in ` (user bee, pid 7)`; nothing where that is not shown."""
    at = urlsplit(url)
    owner = port_owner.find(at.hostname or "", at.port or 0)
    return f" ({owner})" if owner is not None else ""
