"""Connections that outlive the client which opened them, for the next client of the same address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import httpx
import trio

from rbee.adapters.http.client import new_transport

if TYPE_CHECKING:
    from types import TracebackType

KEPT_SECONDS: Final = 5.0
"""How long connections are kept that nobody uses: below the 75 s after which our servers close them."""


class KeptConnections(httpx.AsyncBaseTransport):
    """The transport of any number of clients, each of which leaves its connections to the next.

    To connect costs more than a short request. `run` closes what is not used any more.
    """

    def __init__(self) -> None:
        self._transport = new_transport()
        self._clients = 0
        self._left_at = 0.0
        self._is_over = False

    async def __aenter__(self) -> Self:
        self._clients += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        exc: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._clients -= 1
        self._left_at = trio.current_time()
        if self._is_over:
            await self._close_unused()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)

    async def run(self) -> None:
        """Close the connections each time that no client has been there for KEPT_SECONDS.

        When this is cancelled they are closed too, once the last client has left.
        """
        try:
            while True:
                await trio.sleep(KEPT_SECONDS)
                if trio.current_time() - self._left_at >= KEPT_SECONDS:
                    await self._close_unused()
        finally:
            self._is_over = True
            await self._close_unused()

    async def _close_unused(self) -> None:
        if not self._clients:
            with trio.CancelScope(shield=True):
                await self._transport.aclose()
