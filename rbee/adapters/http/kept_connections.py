"""Connections that outlive the request for which they were opened, for the next one to the same address."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from rbee.adapters.http.client import KEPT_SECONDS
from rbee.adapters.http.direct.connection import DirectConnection, connect
from rbee.concurrency.contained import keep_running

_CHECKS: Final = 5
"""How often within that time it is looked for such connections."""


class KeptConnections:
    """Connections by address: each request takes one that is free, and leaves it to the next.

    To connect costs more than a short request. `run` closes what is not used any more.
    """

    def __init__(self) -> None:
        self._free: dict[str, deque[DirectConnection]] = {}
        """By address; those that were used last come last."""
        self._is_over = False

    async def take(self, url: str, seconds: float) -> DirectConnection:
        """Return a connection to an address, opened within these seconds if need be; it has to be left.

        Raises DirectConnectionError.
        """
        free = self._free.get(url)
        while free:
            # The one that was used last: of many only those that are needed stay open.
            connection = free.pop()
            if connection.is_usable:
                return connection
            connection.close()
        return await connect(url, seconds)

    def leave(self, url: str, connection: DirectConnection) -> None:
        """Keep a connection whose answer is over for the next request; any other is closed."""
        if connection.leave() and not self._is_over:
            self._free.setdefault(url, deque()).append(connection)
        else:
            connection.close()

    async def run(self) -> None:
        """Close connections that nobody has used for KEPT_SECONDS.

        When this is cancelled all are closed, those that are still used once they are left.
        """
        try:
            await keep_running("closing unused connections", self._close_regularly)
        finally:
            self._is_over = True
            self._close_unused(0)

    async def _close_regularly(self) -> None:
        while True:
            await trio.sleep(KEPT_SECONDS / _CHECKS)
            self._close_unused(KEPT_SECONDS)

    def _close_unused(self, seconds: float) -> None:
        before = trio.current_time() - seconds
        for url, free in list(self._free.items()):
            while free and free[0].left_at <= before:
                free.popleft().close()
            if not free:
                del self._free[url]
