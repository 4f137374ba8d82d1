"""Writes event streams: tasks produce encoded events, the response only passes them on."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import trio

from rbee.adapters.logs.json_log import correlation
from rbee.concurrency.contained import as_error, contained
from rbee.wire.common import DONE, Narration
from rbee.wire.error_body import to_body

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from rbee.errors import RbeeError
    from rbee.wire.progress import ProgressEvent, Report

HEARTBEAT: Final = b": heartbeat\n\n"
LAST: Final = f"data: {DONE}\n\n".encode()
MAX_AHEAD: Final = 16
"""Events that a producer may be ahead of its client."""
BURST_SECONDS: Final = 0.0005
"""Events that follow each other faster are written together: to write one costs as much as all else on its way."""

T = TypeVar("T")


class Send:
    """Takes the events of one stream, each encoded, until the response takes them.

    `correlation_id` is that of the request which is answered; a narration that is reported gets it, if it has none.
    `last` ends the stream, and may be changed until then. `write` writes a piece of the body past the response, and
    returns whether it did.
    """

    def __init__(
        self, correlation_id: str | None = None, last: bytes = LAST, write: Callable[[bytes], bool] = lambda _: False
    ) -> None:
        self.correlation_id = correlation_id
        self.last = last
        self._write = write
        self._may_write = False
        """Whether all that the response has taken is written, and it waits for more."""
        self._written_at = -math.inf
        self._events: list[bytes] = []
        self._news = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._is_complete = False
        self.is_lost = False
        """Whether the client has gone."""
        self.is_over = False
        """Whether everything was taken, the last event too."""

    async def send(self, data: bytes) -> None:
        """Add an event; waits while the client is MAX_AHEAD behind. Raises BrokenResourceError once it has gone."""
        await self.wait_for_room()
        self.add(data)

    async def wait_for_room(self) -> None:
        """Wait while the client is MAX_AHEAD behind. Raises BrokenResourceError once it has gone."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while len(self._events) >= MAX_AHEAD and not self.is_lost:
            await self._room.park()
        if self.is_lost:
            raise trio.BrokenResourceError("the client has gone")

    @property
    def has_room(self) -> bool:
        """Whether an event can be added without waiting."""
        return len(self._events) < MAX_AHEAD and not self.is_lost

    def report(self, message: ProgressEvent) -> None:
        """Add what was reported, without waiting; nothing happens where the client has gone."""
        if self.is_lost or self._is_complete:
            return
        if not isinstance(message, Narration):
            self.add(event(message, "progress"))
            return
        if message.correlation_id is None:
            message = msgspec.structs.replace(message, correlation_id=self.correlation_id)
        self.add(event(message, "narration"))

    def add(self, data: bytes) -> None:
        """Add an event without waiting."""
        if self._may_write and not self._events and (now := trio.current_time()) > self._written_at + BURST_SECONDS:
            self._written_at = now
            if self._write(data):
                return
        self._events.append(data)
        self._news.unpark()

    def close(self) -> None:
        """No more events follow but the last one."""
        self._is_complete = True
        self._news.unpark()

    def lose(self) -> None:
        """The client has gone."""
        self.is_lost = True
        self._events.clear()
        self._room.unpark_all()

    @property
    def is_ready(self) -> bool:
        """Whether there is something to take, the end too."""
        return bool(self._events) or self._is_complete

    def take(self) -> bytes:
        """Return what is there, as one piece: each costs a way through the server and a packet."""
        data = b"".join(self._events)
        self._events.clear()
        self._room.unpark_all()
        self.is_over = self._is_complete
        return data + self.last if self.is_over else data

    def wake(self) -> None:
        """Have `wait` return, without anything to take."""
        self._news.unpark()

    async def wait_for_more(self, seconds: float) -> None:
        """Return once there is something to take, or nothing was sent for these seconds.

        For the response, once everything that it has taken is written. What is added meanwhile needs no response.
        """
        began = trio.current_time()
        self._may_write = True
        try:
            while not self.is_ready:
                left = max(began, self._written_at) + seconds - trio.current_time()
                if left <= 0:
                    return
                await self.wait(left)
        finally:
            self._may_write = False

    async def wait(self, seconds: float) -> None:
        """Return once there is something to take, or `wake` was called, or these seconds have passed."""
        if not self.is_ready:
            with trio.move_on_after(seconds):
                await self._news.park()


def event(message: object, name: str | None = None) -> bytes:
    """Encode one event; without a name it is a plain `data:` line."""
    data = b"data: " + msgspec.json.encode(message) + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data


async def stream(
    nursery: trio.Nursery,
    produce: Callable[[Send], Awaitable[object]],
    *,
    heartbeat: float = 10.0,
    write: Callable[[bytes], bool] = lambda _: False,
) -> AsyncGenerator[bytes, None]:
    """Yield the events that `produce` sends, a comment in each quiet `heartbeat` seconds, and the last event.

    What `produce` logs and asks carries the id of the request that is answered. It runs in `nursery` and not here,
    because neither a nursery nor a cancel scope may stay open across a `yield`; it is cancelled when this generator
    ends, which is when the client has gone. An error that it raises becomes an error event.

    The first piece is there at once, so that the head of the answer can leave in one packet with it; it is empty where
    `produce` has to wait for something. `write` is that of `Send`.
    """
    send = Send(correlation.get(), write=write)
    scope = trio.CancelScope()
    nursery.start_soon(_produce, produce, send, scope)
    try:
        # It begins at the next step of trio's loop, before or after us; at the one after that it has begun.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        yield send.take()
        while not send.is_over:
            await send.wait_for_more(heartbeat)
            yield send.take() or HEARTBEAT
    finally:
        scope.cancel()
        send.lose()


async def _produce(produce: Callable[[Send], Awaitable[object]], send: Send, scope: trio.CancelScope) -> None:
    correlation.set(send.correlation_id)
    # Around the scope too: with its cancellation an error of the producer comes as a group.
    with contained("the end of a request"), contextlib.closing(send), scope:
        try:
            await produce(send)
        except Exception as exc:  # noqa: BLE001 (the client gets it)
            if isinstance(exc, trio.BrokenResourceError) and send.is_lost:
                return
            await _send_last(send, as_error(exc, "the request"))


async def _send_last(send: Send, error: RbeeError) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        await send.send(event(to_body(error, correlation.get())))


async def with_progress_and_result(send: Send, work: Callable[[Report], Awaitable[T]], name: str) -> T:
    """Send what `work` reports while it runs, then its result as an event called `name`; returns the result.

    The reports are events called `narration` and `progress`. Those that come after its end are dropped: what it began
    may go on for other callers.
    """
    is_running = True

    def report(message: ProgressEvent) -> None:
        if is_running:
            send.report(message)

    try:
        outcome = await work(report)
    finally:
        is_running = False
    await send.send(event(outcome, name))
    return outcome


def event_from_json(data: str, name: str) -> bytes:
    """Return an event whose data is encoded already."""
    line = f"data: {data}\n\n".encode()
    return line if name == "message" else b"event: " + name.encode() + b"\n" + line
