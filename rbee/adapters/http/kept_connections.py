"""Connections that outlive the client which opened them, for the next client of the same address."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import httpx
import trio

from rbee.adapters.http.client import KEPT_SECONDS, new_transport
from rbee.concurrency.contained import contained, keep_running

if TYPE_CHECKING:
    from types import TracebackType

    from rbee.adapters.http.transport import DaemonTransport

_CHECKS: Final = 5
"""How often within that time it is looked for such connections."""


@dataclass(eq=False)
class _Address:
    """The connections to one address, how many clients use them, and when the last one has left."""

    transport: DaemonTransport = field(default_factory=new_transport)
    clients: int = 0
    left_at: float = 0.0


class KeptConnections:
    """Connections by address: each client of an address leaves its own to the next.

    To connect costs more than a short request. `run` closes what is not used any more.
    """

    def __init__(self) -> None:
        self._addresses: dict[str, _Address] = {}
        self._is_over = False

    def transport(self, url: str) -> httpx.AsyncBaseTransport:
        """Return what one client of an address takes its connections from."""
        return _Lease(self, url)

    def enter(self, url: str) -> DaemonTransport:
        """Count a client of an address, and return the connections to it."""
        address = self._addresses.setdefault(url, _Address())
        address.clients += 1
        return address.transport

    async def leave(self, url: str) -> None:
        """A client has left the connections to an address to the next one."""
        address = self._addresses[url]
        address.clients -= 1
        address.left_at = trio.current_time()
        if self._is_over:
            await self._close_unused(0)

    async def run(self) -> None:
        """Close the connections to each address that no client has used for KEPT_SECONDS.

        When this is cancelled all are closed, those that are still used once the client has left.
        """
        try:
            await keep_running("closing unused connections", self._close_regularly)
        finally:
            self._is_over = True
            await self._close_unused(0)

    async def _close_regularly(self) -> None:
        while True:
            await trio.sleep(KEPT_SECONDS / _CHECKS)
            await self._close_unused(KEPT_SECONDS)

    async def _close_unused(self, seconds: float) -> None:
        before = trio.current_time() - seconds
        unused = [url for url, kept in self._addresses.items() if not kept.clients and kept.left_at <= before]
        with trio.CancelScope(shield=True):
            for transport in [self._addresses.pop(url).transport for url in unused]:
                with contained("closing connections"):
                    await transport.aclose()


class _Lease(httpx.AsyncBaseTransport):
    """The connections to an address as one client has them, from its beginning to its end."""

    def __init__(self, kept: KeptConnections, url: str) -> None:
        self._kept = kept
        self._url = url
        self._transport: DaemonTransport | None = None

    async def __aenter__(self) -> Self:
        self._transport = self._kept.enter(self._url)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        exc: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._kept.leave(self._url)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert self._transport is not None, "the client is used outside of its block"
        return await self._transport.handle_async_request(request)
