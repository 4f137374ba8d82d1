"""A connection to a daemon which has one request after the other, without httpx.

httpx and httpcore took a third of what the queen computed until the first token of an answer that it relays, and a
fifth of what it does for each further one. h11 writes requests and reads the heads of answers, here as there.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import h11
import trio

from rbee.adapters.http.client import DEAD_PEER, describe_refusal
from rbee.adapters.http.direct.chunked_body import ChunkedBody, ChunkedBodyError

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOSED: Final = "the connection was closed"
_MAX_READ: Final = 65536


class DirectConnectionError(Exception):
    """A connection could not be made, was closed, or brought what is no HTTP; the text says which."""


class DirectConnection:
    """An open connection; `close` it, or ask over it again while it `is_usable`.

    It reads no further than `read_body` is awaited, and what awaits that may be cancelled: then it is to be closed.
    """

    def __init__(self, stream: trio.SocketStream, host: str) -> None:
        self.host = host
        """The host and port, for people and the header of that name."""
        self._stream = stream
        self._parser = h11.Connection(h11.CLIENT)
        self._chunks: ChunkedBody | None = None
        """The body of the answer, where it is chunked: h11 has read the head alone."""
        self.left_at = 0.0
        """When its last answer was over."""

    async def ask(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes, seconds: float
    ) -> None:
        """Send a request in one piece. What goes wrong is found out by `read_head`, but for trio.TooSlowError."""
        fields = [("Host", self.host), *headers, ("Content-Length", str(len(body)))]
        send = self._parser.send
        head = send(h11.Request(method=method, target=path, headers=fields))
        content, end = send(h11.Data(data=body)), send(h11.EndOfMessage())
        assert head is not None
        assert content is not None
        assert end is not None
        await self._write(head + content + end, seconds)

    async def read_head(self) -> h11.Response:
        """Return the head of the answer. Raises DirectConnectionError."""
        while True:
            event = self._next_event()
            if isinstance(event, h11.Response):
                if (b"transfer-encoding", b"chunked") in event.headers:
                    self._chunks = ChunkedBody()
                    self._chunks.rest, _ = self._parser.trailing_data
                return event
            if event is h11.NEED_DATA:
                self._parser.receive_data(await self._read())

    async def read_body(self) -> bytes:
        """Return what has come of the answer's body, at least a byte; nothing when it is over."""
        data = b""
        while True:
            if found := self.take_body(data):
                return found
            if self.is_over:
                return b""
            data = await self._read()
            if not data and self._chunks is not None:
                raise DirectConnectionError(CLOSED)
            if not data:
                self._parser.receive_data(b"")  # the end of a body without a length, or of a connection

    def take_body(self, data: bytes = b"") -> bytes:
        """Return what has come of the body and was read from the socket; `data` was read just now."""
        if self._chunks is not None:
            try:
                return self._chunks.feed(data)
            except ChunkedBodyError as exc:
                raise DirectConnectionError(CLOSED) from exc
        if data:
            self._parser.receive_data(data)
        pieces = []
        while isinstance(event := self._next_event(), h11.Data):
            pieces.append(event.data)
        return b"".join(pieces)

    @property
    def is_over(self) -> bool:
        """Whether the answer has come to its end."""
        if self._chunks is not None:
            return self._chunks.is_over
        return self._parser.their_state is not h11.SEND_BODY

    def leave(self) -> bool:
        """Make ready for the next request; returns whether there can be one."""
        if self._parser.our_state is not h11.DONE or not self.is_over or (self._chunks and self._chunks.rest):
            return False
        if self._chunks is None and self._parser.their_state is not h11.DONE:
            return False
        self._parser, self._chunks = h11.Connection(h11.CLIENT), None
        self.left_at = trio.current_time()
        return True

    @property
    def is_usable(self) -> bool:
        """Whether the other side has left it open; nothing is to be read before a request, but for its end."""
        if (descriptor := self._stream.socket.fileno()) == -1:
            return False
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        self._stream.socket.close()

    def _next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        try:
            return self._parser.next_event()
        except h11.RemoteProtocolError as exc:
            raise DirectConnectionError(CLOSED) from exc

    async def _write(self, data: bytes, seconds: float) -> None:
        try:
            with suppress(BlockingIOError):
                data = data[os.write(self._stream.socket.fileno(), data) :]
            if data:
                with trio.fail_after(seconds):
                    await self._stream.send_all(data)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # an answer may have come before, which says why

    async def _read(self) -> bytes:
        try:
            while True:
                # Without a try before: what is next of a stream has seldom come when one asks for it.
                await trio.lowlevel.wait_readable(self._stream.socket)
                with suppress(BlockingIOError):
                    return os.read(self._stream.socket.fileno(), _MAX_READ)
        except (OSError, trio.ClosedResourceError) as exc:
            raise DirectConnectionError(CLOSED) from exc


async def connect(url: str, seconds: float) -> DirectConnection:
    """Connect to the daemon at a URL within these seconds. Raises DirectConnectionError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise DirectConnectionError("not a valid URL") from exc
    if parts.scheme != "http" or not host:
        raise DirectConnectionError("not a valid URL")
    try:
        with trio.fail_after(seconds):
            stream = await trio.open_tcp_stream(host, port or 80)
    except trio.TooSlowError as exc:
        raise DirectConnectionError("timeout") from exc
    except (OSError, UnicodeError) as exc:
        raise DirectConnectionError(describe_refusal(exc)) from exc
    for level, option, value in (*DEAD_PEER, (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)):
        stream.setsockopt(level, option, value)
    return DirectConnection(stream, parts.netloc.rpartition("@")[2])
