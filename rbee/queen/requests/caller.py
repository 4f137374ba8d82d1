"""Says at which URL the caller of a request reaches a worker, as far as the queen can know (PURE)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from rbee.wire import addresses
from rbee.wire import queen as wire
from rbee.wire.common import PRIORITY_HEADER, SESSION_HEADER, base_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.queen.access.identity import CallerIdentity

SESSIONS: Final = (SESSION_HEADER, "X-Claude-Code-Session-Id", "session_id")
"""Headers in which clients name their session; the last one is Codex's."""
MAX_SESSION: Final = 100
_URGENCY: Final = re.compile(r"(?:^|,)\s*u\s*=\s*([0-7])\s*(?:$|[,;])")
_BACKGROUND: Final = 6
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
    """Whose turn it is where several wait: see `turn_of`."""
    is_batch: bool = False
    """Whether nobody waits for the answer: all others go before it."""
    salt: str = ""
    """What is computed for it is of use to requests with the same salt alone: each API key has one."""
    session: str = ""
    """What its client calls that which the request belongs to, where it says so."""

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


def turn_of(identity: CallerIdentity, header: Callable[[str], str | None]) -> str:
    """Return whose turn it is where several wait: an API key's, else a session's, else an address's.

    Where everyone is let in it is the address: whoever names a session for each request would get every turn.
    """
    if identity.kind in ("key", "open"):
        return identity.caller
    return f"{identity.caller} {identity.address} {session_of(header)}".strip()


def session_of(header: Callable[[str], str | None]) -> str:
    """Return the session that a client names, or an empty text."""
    return next((found for name in SESSIONS if (found := header(name))), "")[:MAX_SESSION]


def says_batch(header: Callable[[str], str | None]) -> bool:
    """Return whether a request says that nobody waits for its answer; what is no priority says nothing."""
    found = _URGENCY.search(header(PRIORITY_HEADER) or "")
    return found is not None and int(found[1]) >= _BACKGROUND
