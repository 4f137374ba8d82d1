"""The client's side of event streams (server-sent events, HTML standard, section 9.2)."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from rbee.adapters.http.client import (
    MAX_ANSWER_BYTES,
    UNREACHED,
    decode_answer,
    decode_error,
    describe,
    headers_of_call,
    read_body,
    redirected,
    send,
    where,
)
from rbee.adapters.http.event_parser import Event, EventParser
from rbee.concurrency.background import open_background
from rbee.errors import ConnectionTimeoutError, InternalError, RbeeError
from rbee.narrower_errors import KeyRefusedError
from rbee.wire.common import DONE, EVENT_STREAM

# isort: split
# After adapters.http, which has httpx leave its own command line alone.
import httpx
import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")

STREAM_SILENCE: Final = 30.0
"""Seconds without a byte after which a stream is lost: the other side sends a comment every 10."""


class StreamLostError(Exception):
    """A stream ended before its last event."""


class EventStream:
    """The events of an open stream, in order, without the last one; its end may be a StreamLostError."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        await trio.lowlevel.checkpoint_if_cancelled()
        reader = self._reader
        try:
            try:
                return reader.channel.receive_nowait()  # no step of trio's loop for each of those that are there
            except trio.WouldBlock:
                return await reader.channel.receive()
        except trio.EndOfChannel:
            if reader.failure:
                raise reader.failure[0] from None
            raise StopAsyncIteration from None


def decode_event(data: str, kind: type[T]) -> T:
    """Decode an event's data; raises the error it carries, or InternalError."""
    if data.startswith('{"error"'):
        raise decode_error(500, data.encode())
    return decode_answer(200, data.encode(), kind)


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
    when the connection ends early. Leaving the block closes the connection, and so stops the other side.

    A task of its own reads the connection and awaits nothing else, because leaving httpx's generators half-way is not
    safe under trio.
    """
    opened = send(
        client,
        method,
        path,
        None if body is None else msgspec.json.encode(body),
        {"Accept": EVENT_STREAM, **headers_of_call(), **(headers or {})},
        timeout=httpx.Timeout(client.timeout.connect, read=STREAM_SILENCE),
    )
    reader = _Reader(opened, where(client), client.timeout.read or STREAM_SILENCE)
    async with open_background() as nursery:
        refusal: RbeeError | None = await nursery.start(reader.run)
        if refusal is not None:
            raise refusal
        async with reader.channel:
            yield EventStream(reader)


class _Reader:
    """Reads one answer, in a task of its own: events go to `channel`, why there are no more of them to `failure`."""

    def __init__(self, opened: AbstractAsyncContextManager[httpx.Response], host: str, patience: float) -> None:
        self._opened = opened
        self._host = host
        self._patience = patience
        self._send, self.channel = trio.open_memory_channel[Event](1024)
        self.failure: list[StreamLostError] = []

    async def run(self, task_status: trio.TaskStatus[RbeeError | None]) -> None:
        """Read to the end; `started` is given why the answer is no stream, or None when it is one."""
        is_open = False
        error: RbeeError
        async with self._send:
            try:
                async with self._opened as response:
                    if response.has_redirect_location:
                        error = redirected(response.status_code, response.headers["Location"])
                    elif response.status_code >= 400:
                        error = await self._refusal(response)
                    else:
                        is_open = True
                        task_status.started(None)
                        await self._read(response)
                        return
            except trio.BrokenResourceError:
                return  # the block was left
            except httpx.DecodingError:
                error, lost = InternalError("the answer cannot be unpacked"), "the stream cannot be unpacked"
            except UNREACHED as exc:
                lost = describe(exc)
                error = ConnectionTimeoutError(f"{self._host} does not answer ({lost})", attempts=[lost])
            except StreamLostError as exc:
                self.failure.append(exc)
                return
            except KeyRefusedError as exc:  # of the client's guard: nothing was sent
                error, lost = exc, exc.message
            if is_open:
                self.failure.append(StreamLostError(lost))
            else:
                task_status.started(error)

    async def _refusal(self, response: httpx.Response) -> RbeeError:
        """Return the error that an answer carries which is no stream."""
        try:
            with trio.fail_after(self._patience):
                return decode_error(response.status_code, await read_body(response))
        except InternalError as exc:
            return exc
        except trio.TooSlowError:
            return decode_error(response.status_code, b"")

    async def _read(self, response: httpx.Response) -> None:
        """Pass the body's events on up to `[DONE]`; raises StreamLostError when that does not come.

        The loop goes on to the body's end and awaits nothing of its own: whatever makes it leave must come from inside
        httpx's generators, or they stay behind half-way, to be finalised by the garbage collector.
        """
        assert isinstance(response.stream, httpx.AsyncByteStream)
        if EVENT_STREAM not in response.headers.get("Content-Type", ""):
            raise StreamLostError("the answer is no event stream")
        parser, is_over = EventParser(), False
        # One limit for all reads, moved on as they come; httpx's own for each of them costs as much as the read.
        response.request.extensions["timeout"]["read"] = None
        with trio.move_on_after(STREAM_SILENCE) as scope:
            response.stream = body = _BoundedBody(response.stream, scope)
            # What is not packed comes as it is: through httpx each piece would take as long as all the rest of its way.
            async for piece in response.aiter_bytes() if "Content-Encoding" in response.headers else body:
                now = trio.current_time()
                if scope.deadline < now + STREAM_SILENCE - 1:
                    scope.deadline = now + STREAM_SILENCE
                events = parser.feed(piece)
                if events:
                    body.unfinished = 0
                for event in [] if is_over else events:
                    if event.data == DONE:
                        is_over = True
                        self._send.close()
                        break
                    try:
                        self._send.send_nowait(event)
                    except trio.WouldBlock:
                        scope.deadline = math.inf
                        await self._send.send(event)  # the exception: memory stays bounded
                        scope.deadline = trio.current_time() + STREAM_SILENCE
                    except trio.BrokenResourceError:
                        is_over = True  # the block was left, and cancels us next
                        break
        if scope.cancelled_caught and body.unfinished <= MAX_ANSWER_BYTES:
            raise StreamLostError("timeout")
        if scope.cancelled_caught:
            raise StreamLostError("an event is too large to be one of this version of rbee")
        if not is_over:
            raise StreamLostError("the stream closed unexpectedly")


class _BoundedBody(httpx.AsyncByteStream):
    """A body that is read no further, by way of `scope`, where over MAX_ANSWER_BYTES come and no event among them.

    The caller that takes an event sets `unfinished`, in bytes, back to 0.
    """

    def __init__(self, body: httpx.AsyncByteStream, scope: trio.CancelScope) -> None:
        self._body = body
        self._parts = body.__aiter__()
        self._scope = scope
        self.unfinished = 0

    def __aiter__(self) -> _BoundedBody:
        return self

    async def __anext__(self) -> bytes:
        part = await self._parts.__anext__()
        self.unfinished += len(part)
        if self.unfinished > MAX_ANSWER_BYTES:
            self._scope.cancel()  # what ends the loop comes from inside httpx's generators, at their next read
            return b""
        return part

    async def aclose(self) -> None:
        await self._body.aclose()
