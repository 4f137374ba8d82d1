"""Says at which URL the caller of a request reaches a worker, as far as the queen can know (PURE)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from rbee.wire import addresses
from rbee.wire import queen as wire
from rbee.wire.common import base_url

_UNREACHED: Final = re.compile(rf'{wire.UNREACHED}="([^"]{{0,4000}})"')


class Way(NamedTuple):
    """The URL of a worker for one caller; where it is not direct, only the queen reaches the worker."""

    url: str
    is_direct: bool


class Caller(NamedTuple):
    """Whose request it is: the address it comes from, ours that it has reached, and the hosts it has tried in vain."""

    address: str = "127.0.0.1"
    reached: str = "127.0.0.1"
    unreached: frozenset[str] = frozenset()
    relay_if_needed: bool = False
    keep: float | None = None
    """Seconds that the worker is to stay without a request, if the caller says so."""
    name: str = "local"
    """Whose turn it is where several wait: `CallerIdentity.caller`."""

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine; so looks one behind a proxy or a tunnel, which finds out by itself."""
        return addresses.is_loopback(self.address) or self.address == self.reached

    def way_to(self, url: str, *, everywhere: bool) -> Way:
        """Return the way to a worker which this machine reaches at `url`, and others too if it listens `everywhere`."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if addresses.is_own(host) and not self.is_here:
            if not everywhere:
                return Way(url, is_direct=False)
            host = self.reached
            url = base_url(host, parts.port or 0)
        return Way(url, is_direct=host not in self.unreached)


def preferences(prefer: str) -> tuple[bool, frozenset[str]]:
    """Return whether a caller wants its answer relayed where that is needed, and the hosts it has tried in vain."""
    found = _UNREACHED.search(prefer)
    return wire.RELAY_IF_NEEDED in prefer, frozenset(found[1].split() if found else ())
