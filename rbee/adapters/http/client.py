"""The HTTP client: short calls, which are retried where that is safe."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx
import msgspec
import trio

from rbee.adapters.http.transport import DaemonTransport
from rbee.adapters.logs.json_log import correlation
from rbee.errors import ConnectionTimeoutError, InternalError, RbeeError
from rbee.narrower_errors import AddressTakenError, NobodyListensError, SilentAddressError
from rbee.wire.common import CORRELATION_HEADER
from rbee.wire.error_body import from_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

T = TypeVar("T")
Client = httpx.AsyncClient
Guard = Callable[[Any], Awaitable[None]]

SHORT_CALL_DELAYS: Final = (0.0, 0.1, 0.2)
"""Seconds before each attempt of a short call that is safe to repeat."""
ONCE: Final = (0.0,)
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""A daemon's answer is a few kilobytes; a stranger at its port may send without end."""
DEAD_PEER_SECONDS: Final = 6
"""Without an acknowledgement after which a connection is lost, so that a partition is noticed within 10 seconds.

It bounds what we send: a stream that we read slowly, or not at all for longer than that, is not lost by it.
"""
DEAD_PEER: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    # Of what we send, and of the probes too: it takes the place of their own count (tcp(7)).
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_SECONDS * 1000),
)
"""The socket's options for that."""
KEPT_SECONDS: Final = 5.0
"""How long connections are kept that nobody uses: less than the 75 s after which our servers close them."""
UNREACHED: Final = (httpx.TransportError, httpx.InvalidURL, UnicodeError)
"""What httpx raises when it cannot reach an address; the last two when the address itself is none."""


@cache
def _no_certificates() -> ssl.SSLContext:
    """Return an empty context: traffic inside the swarm is plain HTTP, and loading CA files takes 20 to 30 ms."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def certificates() -> ssl.SSLContext:
    """Return what checks the certificate of a proxy in front of a queen: with this system's, and SSL_CERT_FILE's."""
    return ssl.create_default_context()


def new_transport(*, is_encrypted: bool = False) -> DaemonTransport:
    """Return a pool of connections, which are lost when the other side is."""
    checks = certificates() if is_encrypted else _no_certificates()
    return DaemonTransport(checks, DEAD_PEER, keep=KEPT_SECONDS)


def connect(
    base_url: str,
    key: str | None,
    *,
    timeout: float = 5.0,
    guard: Guard | None = None,
) -> httpx.AsyncClient:
    """Return a client for one daemon; close it with `async with`. Raises ConnectionTimeoutError for what is no URL.

    `guard` is awaited before each request, and may refuse.
    """
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
            event_hooks={"request": [] if guard is None else [guard]},
            transport=new_transport(is_encrypted=base_url.startswith("https:")),
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
    headers: dict[str, str] | None = None,
    delays: Sequence[float] = ONCE,
) -> T:
    """Make one call and return its decoded answer; `kind` is `bytes` for the answer as it came.

    `delays` gives the attempts, so only calls that are safe to repeat may have more than one. Raises
    ConnectionTimeoutError when no attempt got an answer (a subclass says what is known of the address), the error that
    the other side sent, or InternalError when the other side answers nonsense.
    """
    content = None if body is None else msgspec.json.encode(body)
    attempts: list[str] = []
    kind_of_failure: type[ConnectionTimeoutError] = ConnectionTimeoutError
    for number, delay in enumerate(delays, 1):
        await trio.sleep(delay)
        try:
            status, answer, location = await _exchange(client, method, path, content, params, headers or {})
        except UNREACHED as exc:
            attempts.append(f"attempt {number}: {describe(exc)}")
            if not issubclass(kind_of_failure, AddressTakenError):
                kind_of_failure = _kind_of_failure(exc)
            continue
        except httpx.DecodingError as exc:
            raise InternalError("the answer cannot be unpacked") from exc
        if location is not None:
            raise redirected(status, location)
        return decode_answer(status, answer, kind)
    raise kind_of_failure(f"{where(client)} does not answer", attempts=attempts)


def where(client: httpx.AsyncClient) -> str:
    """Return the host and port of a daemon, for people."""
    return client.base_url.netloc.decode("ascii", "replace")


def redirected(status: int, location: str) -> RbeeError:
    """Return the error for an answer that leads elsewhere; it is not followed, for a key must not travel on."""
    return InternalError(f"the answer was a redirection (HTTP status {status})", status=status, location=location[:512])


async def put(client: httpx.AsyncClient, path: str, content: bytes, kind: type[T], *, seconds: float) -> T:
    """Send bytes once, which may take `seconds` to arrive, and return the decoded answer. Errors as those of `call`."""
    limits = httpx.Timeout(seconds, connect=client.timeout.connect)
    try:
        async with send(client, "PUT", path, content, headers_of_call(), timeout=limits) as response:
            body = await read_body(response)
    except UNREACHED as exc:
        raise ConnectionTimeoutError(f"{where(client)} does not answer", attempts=[describe(exc)]) from exc
    except httpx.DecodingError as exc:
        raise InternalError("the answer cannot be unpacked") from exc
    return decode_answer(response.status_code, body, kind)


async def _exchange(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    content: bytes | None,
    params: dict[str, str] | None,
    headers: dict[str, str],
) -> tuple[int, bytes, str | None]:
    """Send one request and return the answer's status and body, and where it leads if it is a redirection.

    httpx's own limits hold for each read, so a server that sends a byte now and then could hold us for ever.
    """
    with trio.move_on_after((client.timeout.connect or 0) + (client.timeout.read or 0)):
        async with send(client, method, path, content, headers_of_call() | headers, params=params) as response:
            body = await read_body(response)
        return response.status_code, body, response.headers.get("Location") if response.has_redirect_location else None
    raise httpx.ReadTimeout("the answer did not end in time")


class _Body(httpx.AsyncByteStream):
    """A body in one piece. httpx's own is an async generator, and a request that is cut leaves it to the collector."""

    def __init__(self, content: bytes) -> None:
        self._content: bytes | None = content

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        if self._content is None:
            raise StopAsyncIteration
        content, self._content = self._content, None
        return content


@lru_cache(maxsize=1024)
def _address(base: httpx.URL, path: str) -> httpx.URL:
    """Return the URL of a path below another, as httpx puts it together; that takes half as long as to write it."""
    return base.copy_with(raw_path=base.raw_path + httpx.URL(path).raw_path.lstrip(b"/"))


@asynccontextmanager
async def send(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    content: bytes | None,
    headers: dict[str, str],
    *,
    params: dict[str, str] | None = None,
    timeout: httpx.Timeout | None = None,
) -> AsyncIterator[httpx.Response]:
    """Send one request and give its answer, of which the body is not read yet. `timeout` replaces the client's."""
    request = client.build_request(
        method,
        _address(client.base_url, path),
        content=content,
        params=params,
        headers=headers,
        timeout=timeout or client.timeout,
    )
    if content is not None:
        request.stream = _Body(content)
    response = await client.send(request, stream=True)
    try:
        yield response
    finally:
        await response.aclose()


async def read_body(response: httpx.Response) -> bytes:
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


def headers_of_call() -> dict[str, str]:
    found = correlation.get()
    return {CORRELATION_HEADER: found} if found is not None else {}


def decode_answer(status: int, content: bytes, kind: type[T]) -> T:
    if status >= 400:
        raise decode_error(status, content)
    if kind is bytes:
        return content  # type: ignore[return-value]
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InternalError("the answer is not what this version of rbee expects", status=status) from exc


def decode_error(status: int, content: bytes) -> RbeeError:
    try:
        error = from_body(msgspec.json.decode(content))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        error = None
    return error or InternalError(f"the answer was HTTP status {status} without an error object", status=status)


def _kind_of_failure(exc: Exception) -> type[ConnectionTimeoutError]:
    if isinstance(exc, httpx.ConnectTimeout):
        return SilentAddressError
    if _was_accepted(exc):
        return AddressTakenError
    return NobodyListensError if _is_refused(exc) else ConnectionTimeoutError


def _is_refused(exc: BaseException | None) -> bool:
    """Whether the machine itself has refused the connection, at each of its addresses."""
    while exc is not None:
        if isinstance(exc, BaseExceptionGroup):
            return all(map(_is_refused, exc.exceptions))
        if isinstance(exc, ConnectionRefusedError):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def _was_accepted(exc: Exception) -> bool:
    """Whether some program listens there that did not answer; the address was not refused, and leads somewhere.

    A connection that was not even accepted in time counts: so it is where the listener's queue is full.
    """
    return not isinstance(exc, httpx.InvalidURL | UnicodeError | httpx.ConnectError)


def describe(exc: Exception) -> str:
    """Say in words why an address was not reached."""
    if isinstance(exc, httpx.InvalidURL):
        return "not a valid URL"
    if isinstance(exc, UnicodeError):
        return "the host's name is not known"  # the resolver refuses a name that can be none
    if isinstance(exc, httpx.TimeoutException):
        return "timeout"
    if isinstance(exc, httpx.ConnectError):
        return describe_refusal(exc)
    return "the connection was closed"


def describe_refusal(exc: BaseException) -> str:
    """Name what the system said; it stands at the end of the chain of causes, for each address that was tried."""
    reason: BaseException | None = exc
    while reason is not None:
        if isinstance(reason, BaseExceptionGroup):
            reason = reason.exceptions[0]
            continue
        if isinstance(reason, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {reason.verify_message}"
        if isinstance(reason, ssl.SSLError):
            return "it does not speak https there"
        if isinstance(reason, socket.gaierror):
            return "the host's name is not known"
        if isinstance(reason, OSError) and reason.errno is not None:
            return os.strerror(reason.errno).lower()
        reason = reason.__cause__ or reason.__context__
    return "cannot connect"
