# ruff: noqa: E402 (something has to happen before httpx is imported)
"""The HTTP client: short calls that are retried where that is safe, and event streams; the only import of httpx."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

# httpx imports its own command line, with click and rich, where it can: 40 ms that nobody here asked for.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import httpx
import httpx_sse
import msgspec
import trio

from rbee.adapters.logs import correlation
from rbee.errors import ConnectionTimeoutError, InternalError, RbeeError, from_body
from rbee.wire.common import CORRELATION_HEADER, DONE, EVENT_STREAM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

T = TypeVar("T")
Client = httpx.AsyncClient

SHORT_CALL_DELAYS: Final = (0.0, 0.1, 0.2)
"""Seconds before each attempt of a short call that is safe to repeat."""
ONCE: Final = (0.0,)
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""A daemon's answer is a few kilobytes; a stranger at its port may send without end."""
STREAM_SILENCE: Final = 30.0
"""Seconds without a byte after which a stream is lost: the other side sends a comment every 10."""
DEAD_PEER_SECONDS: Final = 6
"""Without an acknowledgement after which a connection is lost, so that a partition is noticed within 10 seconds."""
_PROBES: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    # Of what we send, and of the probes too: it takes the place of their own count (tcp(7)).
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_SECONDS * 1000),
)
_LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0)
TAKEN: Final = ("timeout", "the connection was closed")
"""How the attempts of a ConnectionTimeoutError end where a program listens that is none of ours; else nobody does."""
_UNREACHED: Final = (httpx.TransportError, httpx.InvalidURL, UnicodeError)
"""What httpx raises when it cannot reach an address; the last two when the address itself is none."""


class Event(NamedTuple):
    """One server-sent event (HTML standard, section 9.2); `name` is `message` unless the stream says otherwise."""

    name: str
    data: str


class StreamLostError(Exception):
    """A stream ended before its last event."""


class EventStream:
    """The events of an open stream, in order, without the last one; its end may be a StreamLostError."""

    def __init__(self, channel: trio.MemoryReceiveChannel[Event], failure: list[StreamLostError]) -> None:
        self._channel = channel
        self._failure = failure

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self._channel.receive()
        except trio.EndOfChannel:
            if self._failure:
                raise self._failure[0] from None
            raise StopAsyncIteration from None


@cache
def _no_certificates() -> ssl.SSLContext:
    """Return an empty context: traffic inside the swarm is plain HTTP, and loading CA files takes 20 to 30 ms."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def connect(base_url: str, key: str | None, *, timeout: float = 5.0) -> httpx.AsyncClient:
    """Return a client for one daemon; close it with `async with`. Raises ConnectionTimeoutError for what is no URL."""
    # Unpacked as it is: compression costs more than it saves within a swarm, and can break in ways of its own.
    headers = {"Accept-Encoding": "identity"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    try:
        return httpx.AsyncClient(
            base_url=base_url,
            headers=headers,
            timeout=httpx.Timeout(timeout),
            trust_env=False,
            transport=httpx.AsyncHTTPTransport(
                verify=_no_certificates(), trust_env=False, limits=_LIMITS, socket_options=_PROBES
            ),
        )
    except httpx.InvalidURL as exc:
        raise ConnectionTimeoutError("the daemon's address is not a valid URL", attempts=[describe(exc)]) from exc


async def call(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    kind: type[T],
    *,
    body: msgspec.Struct | None = None,
    params: dict[str, str] | None = None,
    delays: Sequence[float] = ONCE,
) -> T:
    """Make one call and return its decoded answer; `kind` is `bytes` for the answer as it came.

    `delays` gives the attempts, so only calls that are safe to repeat may have more than one. Raises
    ConnectionTimeoutError when no attempt got an answer, the error that the other side sent, or InternalError when the
    other side answers nonsense.
    """
    content = None if body is None else msgspec.json.encode(body)
    attempts: list[str] = []
    for number, delay in enumerate(delays, 1):
        await trio.sleep(delay)
        try:
            status, answer = await _exchange(client, method, path, content, params)
        except _UNREACHED as exc:
            attempts.append(f"attempt {number}: {describe(exc)}")
            continue
        except httpx.DecodingError as exc:
            raise InternalError("the answer cannot be unpacked") from exc
        return _answer(status, answer, kind)
    raise ConnectionTimeoutError(f"{client.base_url.host}:{client.base_url.port} does not answer", attempts=attempts)


async def _exchange(
    client: httpx.AsyncClient, method: str, path: str, content: bytes | None, params: dict[str, str] | None
) -> tuple[int, bytes]:
    """Send one request and return the answer's status and body.

    httpx's own limits hold for each read, so whoever sends a byte now and then could hold us for ever.
    """
    with trio.move_on_after((client.timeout.connect or 0) + (client.timeout.read or 0)):
        async with client.stream(method, path, content=content, params=params, headers=_headers()) as response:
            body = await _read_body(response)
        return response.status_code, body
    raise httpx.ReadTimeout("the answer did not end in time")


async def _read_body(response: httpx.Response) -> bytes:
    """Return the body of an answer; raises InternalError for one that is larger than any daemon of ours sends."""
    parts: list[bytes] = []
    size = 0
    with trio.CancelScope() as scope:
        async for part in response.aiter_bytes():
            size += len(part)
            if size <= MAX_ANSWER_BYTES:
                parts.append(part)
            else:
                # Not a break: what ends the loop must come from inside httpx's generators.
                parts.clear()
                scope.cancel()
    if size > MAX_ANSWER_BYTES:
        raise InternalError("the answer is too large to be one of this version of rbee", status=response.status_code)
    return b"".join(parts)


def _headers() -> dict[str, str]:
    found = correlation.get()
    return {CORRELATION_HEADER: found} if found is not None else {}


def _answer(status: int, content: bytes, kind: type[T]) -> T:
    if status >= 400:
        raise _error(status, content)
    if kind is bytes:
        return content  # type: ignore[return-value]
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InternalError("the answer is not what this version of rbee expects", status=status) from exc


def _error(status: int, content: bytes) -> RbeeError:
    try:
        error = from_body(msgspec.json.decode(content))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        error = None
    return error or InternalError(f"the answer was HTTP status {status} without an error object", status=status)


def describe(exc: Exception) -> str:
    """Say in words why an address was not reached."""
    if isinstance(exc, httpx.InvalidURL):
        return "not a valid URL"
    if isinstance(exc, UnicodeError):
        return "the host's name is not known"  # the resolver refuses a name that can be none
    if isinstance(exc, httpx.TimeoutException):
        return "timeout"
    if isinstance(exc, httpx.ConnectError):
        return _describe_refusal(exc)
    return "the connection was closed"


def _describe_refusal(exc: BaseException) -> str:
    """Name what the system said; it stands at the end of the chain of causes, for each address that was tried."""
    reason: BaseException | None = exc
    while reason is not None:
        if isinstance(reason, BaseExceptionGroup):
            reason = reason.exceptions[0]
            continue
        if isinstance(reason, socket.gaierror):
            return "the host's name is not known"
        if isinstance(reason, OSError) and reason.errno is not None:
            return os.strerror(reason.errno).lower()
        reason = reason.__cause__ or reason.__context__
    return "cannot connect"


def decode_event(data: str, kind: type[T]) -> T:
    """Decode an event's data; raises the error it carries, or InternalError."""
    if data.startswith('{"error"'):
        raise _error(500, data.encode())
    return _answer(200, data.encode(), kind)


@asynccontextmanager
async def events(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    *,
    body: msgspec.Struct | None = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[EventStream]:
    """Open a stream and give its events in order, without the last one (`[DONE]`).

    An answer that is no stream raises before the block is entered, as `call` does. Iterating raises StreamLostError
    when the connection ends early. Leaving the block closes the connection, which tells the other side to stop.

    A task of its own reads the connection and awaits nothing else, because leaving httpx's generators half-way is not
    safe under trio.
    """
    send, receive = trio.open_memory_channel[Event](1024)
    failure: list[StreamLostError] = []
    async with trio.open_nursery() as nursery:

        async def read(task_status: trio.TaskStatus[RbeeError | None]) -> None:
            async with send:
                started = False
                try:
                    async with client.stream(
                        method,
                        path,
                        content=None if body is None else msgspec.json.encode(body),
                        headers={"Accept": EVENT_STREAM, **_headers(), **(headers or {})},
                        timeout=httpx.Timeout(client.timeout.connect, read=STREAM_SILENCE),
                    ) as response:
                        if response.status_code >= 400:
                            try:
                                with trio.fail_after(client.timeout.read or STREAM_SILENCE):
                                    error = _error(response.status_code, await _read_body(response))
                            except InternalError as exc:
                                error = exc
                            except trio.TooSlowError:
                                error = _error(response.status_code, b"")
                            started = True
                            task_status.started(error)
                            return
                        started = True
                        task_status.started(None)
                        await _read_events(response, send)
                except httpx.DecodingError:
                    if not started:
                        task_status.started(InternalError("the answer cannot be unpacked"))
                        return
                    failure.append(StreamLostError("the stream cannot be unpacked"))
                except _UNREACHED as exc:
                    if not started:
                        host = f"{client.base_url.host}:{client.base_url.port}"
                        reason = describe(exc)
                        task_status.started(
                            ConnectionTimeoutError(f"{host} does not answer ({reason})", attempts=[reason])
                        )
                        return
                    failure.append(StreamLostError(describe(exc)))
                except StreamLostError as exc:
                    failure.append(exc)
                except trio.BrokenResourceError:
                    pass  # the block was left

        error: Exception | None = await nursery.start(read)
        if error is None:
            try:
                async with receive:
                    yield EventStream(receive, failure)
            except Exception as exc:  # noqa: BLE001 (raised again below: the nursery would wrap it in a group)
                error = exc
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error


async def _read_events(response: httpx.Response, send: trio.MemorySendChannel[Event]) -> None:
    """Pass the body's events on up to `[DONE]`; raises StreamLostError when that does not come.

    The loop goes on to the body's end and awaits nothing of its own: whatever makes it leave must come from inside
    httpx's generators, or they stay behind half-way, to be finalised by the garbage collector.
    """
    is_over = False
    async for event in httpx_sse.EventSource(response).aiter_sse():
        if is_over:
            continue
        if event.data == DONE:
            is_over = True
            send.close()
            continue
        try:
            send.send_nowait(Event(event.event, event.data))
        except trio.WouldBlock:
            await send.send(Event(event.event, event.data))  # the exception: memory stays bounded
        except trio.BrokenResourceError:
            is_over = True  # the block was left, and cancels us next
    if not is_over:
        raise StreamLostError("the stream closed unexpectedly")
