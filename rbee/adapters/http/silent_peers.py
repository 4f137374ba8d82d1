"""Notices peers that take nothing of what they are sent, for all connections of a server in one task.

A task for each of them would wake so often that hundreds of streams spend more on that than on what they send.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.http import tcp_info
from rbee.adapters.http.tcp_info import PROBE_SECONDS
from rbee.concurrency.contained import keep_running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOOKS: Final = 5
"""How often within its limit a peer is looked at that may be silent; one that takes what it is sent, twice."""


class WatchedPeer:
    """One peer, which is silent when it takes nothing for `limit` seconds; `on_change` is called when that changes.

    One that is sent nothing acknowledges the kernel's probes, once in PROBE_SECONDS; so its silence is noticed that
    much later.
    """

    def __init__(self, stream: trio.SocketStream, limit: float, on_change: Callable[[], object]) -> None:
        self.is_silent = False
        self._stream = stream
        self.limit = limit
        self._on_change = on_change
        self._acknowledged = -1
        self._began_at = self._moved_at = trio.current_time()
        self.pause = limit / _LOOKS
        self.due = -1.0
        """When it is to be looked at."""

    def look(self, now: float) -> bool:
        """Look whether it takes what it is sent; returns False when the connection is closed."""
        if (delivery := tcp_info.read(self._stream)) is None:
            return False
        closely = self.limit / _LOOKS
        if delivery.pending and delivery.acknowledged == self._acknowledged:
            if self.pause > closely:
                self._moved_at = now - closely  # what is pending may have been sent just now
            silence = now - self._moved_at
        else:
            self._acknowledged, self._moved_at = delivery.acknowledged, now
            # Before it was watched it may have been sent nothing, and not probed either: its request waited in line.
            quiet = min(delivery.idle_seconds, now - self._began_at)
            silence = 0 if delivery.pending else quiet - PROBE_SECONDS
        self.pause = closely if silence > 0 else self.limit / 2
        self.due = now + self.pause
        if (is_silent := silence >= self.limit) != self.is_silent:
            self.is_silent = is_silent
            self._on_change()
        return True


class SilentPeers:
    """Looks at the peers that are watched, while `run` runs."""

    def __init__(self) -> None:
        self._watched: set[WatchedPeer] = set()
        self._news = trio.lowlevel.ParkingLot()

    @contextmanager
    def watched(
        self, stream: trio.SocketStream, limit: float, on_change: Callable[[], object]
    ) -> Iterator[WatchedPeer]:
        """Watch a peer within the block."""
        peer = WatchedPeer(stream, limit, on_change)
        self._watched.add(peer)
        self._news.unpark()
        try:
            yield peer
        finally:
            self._watched.discard(peer)

    async def run(self) -> None:
        """Look at the peers until cancelled."""
        await keep_running("watching clients", self._look)

    async def _look(self) -> None:
        while True:
            if not self._watched:
                await self._news.park()
            now = trio.current_time()
            for peer in [peer for peer in self._watched if peer.due <= now]:
                if not peer.look(now):
                    self._watched.discard(peer)
            await trio.sleep(min((peer.limit for peer in self._watched), default=0) / _LOOKS)
