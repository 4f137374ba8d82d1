"""Writes event streams: tasks produce encoded events, the response only passes them on."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from rbee.adapters.logs.json_log import correlation
from rbee.concurrency.reporting import with_reports
from rbee.errors import InternalError, RbeeError, to_body
from rbee.wire.common import DONE, Narration

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from rbee.wire.progress import ProgressEvent, Report

HEARTBEAT: Final = b": heartbeat\n\n"
LAST: Final = f"data: {DONE}\n\n".encode()

T = TypeVar("T")
Send = trio.MemorySendChannel[bytes]
log = logging.getLogger(__name__)


def event(message: object, name: str | None = None) -> bytes:
    """Encode one event; without a name it is a plain `data:` line."""
    data = b"data: " + msgspec.json.encode(message) + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data


async def stream(
    nursery: trio.Nursery, produce: Callable[[Send], Awaitable[None]], *, heartbeat: float = 10.0
) -> AsyncGenerator[bytes, None]:
    """Yield the events that `produce` sends, a comment in each quiet `heartbeat` seconds, and the last event.

    `produce` runs in `nursery` and not here, because neither a nursery nor a cancel scope may stay open across a
    `yield`; it is cancelled when this generator ends, which is when the client has gone. An error that it raises
    becomes an error event.

    What is there at once goes out as one piece: each costs a way through the server and a packet.
    """
    send, receive = trio.open_memory_channel[bytes](16)
    scope = trio.CancelScope()
    nursery.start_soon(_produce, produce, send, scope)
    try:
        while True:
            data: bytes | None = None
            with trio.move_on_after(heartbeat):
                try:
                    data = await receive.receive()
                except trio.EndOfChannel:
                    break
            if data is not None:
                with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
                    while True:
                        data += receive.receive_nowait()
            yield HEARTBEAT if data is None else data
        yield LAST
    finally:
        scope.cancel()
        receive.close()


async def _produce(produce: Callable[[Send], Awaitable[None]], send: Send, scope: trio.CancelScope) -> None:
    with scope, send:
        try:
            await produce(send)
        except RbeeError as exc:
            await _send_last(send, exc)
        except Exception as exc:
            if isinstance(exc, trio.BrokenResourceError) and not send.statistics().open_receive_channels:
                return  # the client has gone
            log.exception("a stream failed")
            await _send_last(send, InternalError("the daemon failed; its log says more"))


async def _send_last(send: Send, error: RbeeError) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        await send.send(event(to_body(error, correlation.get())))


async def with_progress_and_result(send: Send, work: Callable[[Report], Awaitable[T]], name: str) -> T:
    """Send what `work` reports while it runs, then its result as an event called `name`; returns the result.

    The reports are events called `narration` and `progress`.
    """
    outcome = await with_reports(lambda message: send.send(progress_event(message)), work)
    await send.send(event(outcome, name))
    return outcome


def progress_event(message: ProgressEvent) -> bytes:
    """Encode what was reported; a narration gets the id of the request that is answered, if it has none."""
    if not isinstance(message, Narration):
        return event(message, "progress")
    if message.correlation_id is None:
        message = msgspec.structs.replace(message, correlation_id=correlation.get())
    return event(message, "narration")


def event_from_json(data: str, name: str) -> bytes:
    """Return an event whose data is encoded already."""
    line = f"data: {data}\n\n".encode()
    return line if name == "message" else b"event: " + name.encode() + b"\n" + line
