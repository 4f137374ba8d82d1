"""Holds the connections to one daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

from rbee.adapters.http import client as http_client

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class Connected:
    """A daemon at a URL, opened by a token or key; `async with` closes the connections.

    A short call may take `timeout` seconds an attempt; what is safe to repeat is tried once after each of `delays`.
    `guard` is awaited before each request, and may refuse it. Raises ConnectionTimeoutError for what is no URL.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        timeout: float = 5.0,
        delays: Sequence[float] = http_client.SHORT_CALL_DELAYS,
        guard: http_client.Guard | None = None,
    ) -> None:
        self.url = url
        self._delays = delays
        self._http = http_client.connect(url, key, timeout=timeout, guard=guard)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def _get(self, path: str, kind: type[T], **params: str) -> T:
        """Return the answer to a question, which is safe to repeat."""
        return await http_client.call(self._http, "GET", path, kind, params=params or None, delays=self._delays)
