"""Connections to daemons for httpx, each used for one request after the other.

httpcore's own pool looks at each of its connections whenever a request begins or ends: with 200 streams that took
10 ms of each request. This one takes the connection that is free for longest.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import httpcore
import httpx
import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator


_LONG: Final = 65536
"""Bytes that are written at once."""


class DaemonTransport(httpx.AsyncBaseTransport):
    """Any number of connections; one that is free is kept for `keep` seconds."""

    def __init__(self, checks: ssl.SSLContext, options: Iterable[Any], *, keep: float) -> None:
        self._checks = checks
        self._options = options
        self._keep = keep
        self._free: dict[str, deque[httpcore.AsyncHTTPConnection]] = {}
        """By address."""
        self._used: set[httpcore.AsyncHTTPConnection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        if url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol("the address does not begin with http:// or https://")
        asked = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        address = str(asked.url.origin)
        connection = await self._free_one(address) or httpcore.AsyncHTTPConnection(
            asked.url.origin, self._checks, self._keep, network_backend=_Network(), socket_options=self._options
        )
        self._used.add(connection)
        try:
            with _errors_of_httpx():
                response = await connection.handle_async_request(asked)
        except BaseException:
            self._used.discard(connection)
            await _close(connection)  # one that is cancelled before it has sent anything does not close itself
            raise
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response.stream, lambda: self._leave(connection, address)),
            extensions=response.extensions,
        )

    async def _free_one(self, address: str) -> httpcore.AsyncHTTPConnection | None:
        """Return the connection that is free for longest; closes those too old, and those the other side has closed."""
        free = self._free.get(address)
        while free:
            connection = free.popleft()
            if not connection.has_expired():
                return connection
            await _close(connection)
        return None

    def _leave(self, connection: httpcore.AsyncHTTPConnection, address: str) -> None:
        """Keep a connection whose answer is over, if it can be used again."""
        self._used.discard(connection)
        if connection.is_idle():
            self._free.setdefault(address, deque()).append(connection)

    async def aclose(self) -> None:
        """Close all connections, those that are used too."""
        for connection in [*self._used, *(one for free in self._free.values() for one in free)]:
            await _close(connection)
        self._used.clear()
        self._free.clear()


class _Body(httpx.AsyncByteStream):
    """The body of an answer, at whose end the connection is free."""

    def __init__(self, stream: Any, on_end: Callable[[], None]) -> None:
        self._stream = stream
        self._on_end = on_end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _errors_of_httpx():
            async for piece in self._stream:
                yield piece

    async def aclose(self) -> None:
        try:
            # Cancelled, httpcore would leave a connection open whose answer has not come to its end.
            with trio.CancelScope(shield=True), _errors_of_httpx():
                await self._stream.aclose()
        finally:
            self._on_end()


async def _close(connection: httpcore.AsyncHTTPConnection) -> None:
    with trio.CancelScope(shield=True):
        await connection.aclose()


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    """Raise httpx's own errors: httpcore's have the same names."""
    try:
        yield
    except Exception as exc:
        kind = getattr(httpx, type(exc).__name__, None) if type(exc).__module__.startswith("httpcore") else None
        if kind is None:
            raise
        raise kind(str(exc)) from exc


class _Network(httpcore.TrioBackend):
    """Connects as httpcore does; a read without a limit costs a third of httpcore's own.

    Each of those has a cancel scope and two context managers. A stream of events has one limit around all of its reads,
    and thousands of them a second.
    """

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Socket(await super().connect_tcp(host, port, timeout, local_address, socket_options))


class _Socket(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._socket: trio.socket.SocketType = stream.get_extra_info("socket")
        self._unsent: list[bytes] = []
        self._patience: float | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._unsent:
            with suppress(httpcore.WriteError):  # an answer may have come before, which says why
                await self._flush()
        if timeout is not None:
            return await self._stream.read(max_bytes, timeout)
        try:
            while True:
                # Without a try before: what is next of a stream has seldom come when one asks for it.
                await trio.lowlevel.wait_readable(self._socket)
                with suppress(BlockingIOError):
                    return os.read(self._socket.fileno(), max_bytes)
        except (OSError, trio.ClosedResourceError) as exc:
            raise httpcore.ReadError(str(exc)) from exc

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write what is long; the rest waits for the first read, so that a request's head and body are one packet."""
        self._unsent.append(buffer)
        self._patience = timeout
        if len(buffer) > _LONG:
            await self._flush()

    async def _flush(self) -> None:
        data = b"".join(self._unsent)
        self._unsent.clear()
        with suppress(OSError):  # httpcore's own way of writing finds out what is wrong
            data = data[os.write(self._socket.fileno(), data) :]
        if data:
            await self._stream.write(data, self._patience)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return await self._stream.start_tls(ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
