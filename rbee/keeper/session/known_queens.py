"""Remembers what was learnt of queens on other machines, from one command to the next."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from rbee.adapters.files import private

if TYPE_CHECKING:
    from rbee.adapters.config import Settings

REMEMBERED_SECONDS: Final = 3600.0
"""How long a worker's host counts as out of reach: a firewall changes, and a laptop travels."""
MAX_QUEENS: Final = 50


class KnownQueen(msgspec.Struct):
    """A queen by its URL: the hosts of workers that were not reached from here, and when (Unix seconds).

    `is_warned`: the user was told that the way to it can be read by others. `has_proven`: it has shown that it knows
    the swarm's token.
    """

    is_warned: bool = False
    has_proven: bool = False
    unreached: dict[str, float] = msgspec.field(default_factory=dict)


class KnownQueens:
    """The file of known queens; what cannot be read or written is not known, and that costs a moment only."""

    def __init__(self, settings: Settings) -> None:
        self.path = settings.state_dir / "queens.json"

    def unreached(self, url: str) -> list[str]:
        """Return the hosts of workers that were tried in vain a short while ago."""
        now = time.time()
        found = self._read().get(url, KnownQueen()).unreached
        return [host for host, at in found.items() if abs(now - at) < REMEMBERED_SECONDS]

    def add_unreached(self, url: str, host: str) -> None:
        queens = self._read()
        now = time.time()
        queen = queens.setdefault(url, KnownQueen())
        kept = {known: at for known, at in queen.unreached.items() if abs(now - at) < REMEMBERED_SECONDS}
        queen.unreached = kept | {host: now}
        self._write(queens)

    def warn_once(self, url: str) -> bool:
        """Whether the user has not been warned of this queen yet; from now on it was."""
        queens = self._read()
        queen = queens.setdefault(url, KnownQueen())
        if queen.is_warned:
            return False
        queen.is_warned = True
        self._write(queens)
        return True

    def has_proven(self, url: str) -> bool:
        """Whether the queen has shown before that it knows the swarm's token."""
        return self._read().get(url, KnownQueen()).has_proven

    def add_proven(self, url: str) -> None:
        queens = self._read()
        queen = queens.setdefault(url, KnownQueen())
        if not queen.has_proven:
            queen.has_proven = True
            self._write(queens)

    def _read(self) -> dict[str, KnownQueen]:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=dict[str, KnownQueen])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}

    def _write(self, queens: dict[str, KnownQueen]) -> None:
        newest = dict(list(queens.items())[-MAX_QUEENS:])
        with suppress(OSError):
            private.make_private(self.path.parent)
            with private.written_beside(self.path, msgspec.json.encode(newest)) as scratch:
                scratch.replace(self.path)
