"""A request whose answer is an event stream, over a connection of its own; its reader is the one who asks.

No task stands between the two: to wake one costs as much as to read an event, and opening a nursery for it as much as
to ask.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING

import msgspec
import trio

from rbee.adapters.http.client import MAX_ANSWER_BYTES, decode_error, headers_of_call, redirected
from rbee.adapters.http.direct.connection import DirectConnectionError
from rbee.adapters.http.event_parser import EventParser
from rbee.adapters.http.sse_client import STREAM_SILENCE, StreamLostError
from rbee.errors import ConnectionTimeoutError, InternalError
from rbee.wire.common import DONE, EVENT_STREAM

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    import h11

    from rbee.adapters.http.direct.connection import DirectConnection
    from rbee.adapters.http.event_parser import Event
    from rbee.adapters.http.kept_connections import KeptConnections


async def follow(
    connections: KeptConnections,
    url: str,
    path: str,
    headers: dict[str, str],
    body: msgspec.Struct,
    take: Callable[[Event], bool],
    wait_for_room: Callable[[], Awaitable[object]],
    *,
    patience: float,
    meanwhile: AbstractContextManager[object] | None = None,
) -> None:
    """Send a message and have the events of its answer taken, without the last one (`[DONE]`); returns at their end.

    `take` returns False where there is no room for an event; it gets it again once `wait_for_room` has returned.
    `meanwhile` is entered once the message is sent, and left at the end. A connection, and an answer that is no stream,
    may take `patience` seconds each. Raises as `sse_client.events` does: ConnectionTimeoutError or the error that the
    other side sent before the first event, StreamLostError after that. Cancelled, it closes the connection, and so
    stops the other side.
    """
    try:
        connection = await connections.take(url, patience)
    except DirectConnectionError as exc:
        raise _unreached(url, exc) from exc
    try:
        fields = {"Accept": EVENT_STREAM, "Accept-Encoding": "identity", **headers_of_call(), **headers}
        content = msgspec.json.encode(body)
        try:
            await connection.ask("POST", path, list(fields.items()), content, STREAM_SILENCE)
        except trio.TooSlowError as exc:
            raise _unreached(connection.host, "timeout") from exc
        with meanwhile or nullcontext():
            await _take_answer(connection, take, wait_for_room, patience)
    finally:
        connections.leave(url, connection)


async def _take_answer(
    connection: DirectConnection,
    take: Callable[[Event], bool],
    wait_for_room: Callable[[], Awaitable[object]],
    patience: float,
) -> None:
    has_begun = False
    with trio.move_on_after(STREAM_SILENCE) as silence:  # one for all that is read, moved on as it comes
        try:
            head = await connection.read_head()
        except DirectConnectionError as exc:
            raise _unreached(connection.host, exc) from exc
        kind = dict(head.headers)
        if head.status_code >= 300:
            await _refuse(connection, head, patience)
        if EVENT_STREAM.encode() not in kind.get(b"content-type", b"") or b"content-encoding" in kind:
            raise StreamLostError("the answer is no event stream")
        has_begun = True
        await _read(connection, take, wait_for_room, silence)
        return
    raise StreamLostError("timeout") if has_begun else _unreached(connection.host, "timeout")


async def _read(
    connection: DirectConnection,
    take: Callable[[Event], bool],
    wait_for_room: Callable[[], Awaitable[object]],
    silence: trio.CancelScope,
) -> None:
    """Have the events taken up to `[DONE]`; raises StreamLostError when that does not come.

    `silence` ends it STREAM_SILENCE after the last piece has come.
    """
    parser, unfinished = EventParser(), 0
    while True:
        try:
            piece = await connection.read_body()
        except DirectConnectionError as exc:
            raise StreamLostError(str(exc)) from exc
        if not piece:
            raise StreamLostError("the stream closed unexpectedly")
        now = trio.current_time()
        if silence.deadline < now + STREAM_SILENCE - 1:
            silence.deadline = now + STREAM_SILENCE
        events = parser.feed(piece)
        unfinished = 0 if events else unfinished + len(piece)
        if unfinished > MAX_ANSWER_BYTES:
            raise StreamLostError("an event is too large to be one of this version of rbee")
        for event in events:
            if event.data == DONE:
                connection.take_body()  # its end has come with it, or the connection is not used again
                # Who was woken by the events before sends them on first: it runs in the next step of trio's loop.
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
                return
            while not take(event):
                silence.deadline = math.inf
                await wait_for_room()
                silence.deadline = trio.current_time() + STREAM_SILENCE


async def _refuse(connection: DirectConnection, head: h11.Response, patience: float) -> None:
    """Raise the error that an answer carries which is no stream."""
    location = dict(head.headers).get(b"location")
    if head.status_code < 400:
        raise redirected(head.status_code, (location or b"").decode("latin-1"))
    parts, size = [], 0
    with trio.move_on_after(patience):
        try:
            while piece := await connection.read_body():
                parts.append(piece)
                if (size := size + len(piece)) > MAX_ANSWER_BYTES:
                    raise InternalError(
                        "the answer is too large to be one of this version of rbee", status=head.status_code
                    )
        except DirectConnectionError as exc:
            raise _unreached(connection.host, exc) from exc
        raise decode_error(head.status_code, b"".join(parts))
    raise decode_error(head.status_code, b"")


def _unreached(host: str, why: object) -> ConnectionTimeoutError:
    return ConnectionTimeoutError(f"{host} does not answer ({why})", attempts=[str(why)])
