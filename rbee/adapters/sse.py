"""Writes event streams: tasks produce encoded events, the response only passes them on."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from rbee.errors import InternalError, RbeeError, to_body
from rbee.wire.common import DONE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

HEARTBEAT: Final = b": heartbeat\n\n"
LAST: Final = f"data: {DONE}\n\n".encode()

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
        except trio.BrokenResourceError:
            pass  # the client has gone
        except Exception:
            log.exception("a stream failed")
            await _send_last(send, InternalError("the daemon failed; its log says more"))


async def _send_last(send: Send, error: RbeeError) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        await send.send(event(to_body(error)))
