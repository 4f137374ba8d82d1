"""Event streams whose head is held back until it is known how the answer begins.

What is refused soon is refused with a status, as clients expect it; what takes long has its head at once.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.http.sse_server import Send
from rbee.adapters.logs.json_log import correlation
from rbee.concurrency.contained import as_error, contained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rbee.errors import RbeeError

HEARTBEAT: Final = b": heartbeat\n"
"""A comment with one line end: some clients take the empty line after it for an event without data (openai-go #651)."""


class HeldStream:
    """The pieces of one stream, to be iterated over once `begin` has returned; `last` ends one that has not failed.

    An error after the first piece becomes what `event_of` makes of it, and the end. `write` is that of `Send`. `close`
    ends the producer; call it when the answer is over, however it ends.
    """

    def __init__(
        self,
        produce: Callable[[HeldStream], Awaitable[object]],
        event_of: Callable[[RbeeError], bytes],
        *,
        last: bytes,
        heartbeat: float,
        write: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self._produce = produce
        self._event_of = event_of
        self._heartbeat = heartbeat
        self._send = Send(correlation.get(), last, write)
        self._scope = trio.CancelScope()
        self._refusal: RbeeError | None = None
        self._is_released = False
        self._is_first = True
        self.has_begun = False
        """Whether the head is on its way, or has a piece to go with it: no status can say any more what went wrong."""

    async def begin(self, nursery: trio.Nursery, hold: float) -> None:
        """Start the producer in `nursery`; return when the head has to be sent: after `hold` seconds at the latest.

        Raises the error that came before that.
        """
        nursery.start_soon(self._run)
        until = trio.current_time() + hold
        while not (self._is_released or self._send.is_ready) and (left := until - trio.current_time()) > 0:
            await self._send.wait(left)
        if self._refusal is not None:
            raise self._refusal
        self.has_begun = True

    def release(self) -> None:
        """Have the head sent now: the rest takes its time, or nothing can be refused any more."""
        if not self._is_released:
            self._is_released = self.has_begun = True
            self._send.wake()

    async def send(self, data: bytes) -> None:
        """Add a piece, if there is one; waits while the client is behind. Raises BrokenResourceError once it left."""
        if data:
            self.has_begun = True
            await self._send.send(data)

    async def wait_for_room(self) -> None:
        """Wait while the client is behind. Raises BrokenResourceError once it left."""
        await self._send.wait_for_room()

    @property
    def has_room(self) -> bool:
        """Whether a piece can be added without waiting."""
        return self._send.has_room

    def add(self, data: bytes) -> None:
        """Add a piece, if there is one, without waiting."""
        if data:
            self.has_begun = True
            self._send.add(data)

    def close(self) -> None:
        """The answer is over; a producer that still runs is cancelled."""
        self._scope.cancel()
        self._send.lose()

    def __aiter__(self) -> HeldStream:
        return self

    async def __anext__(self) -> bytes:
        if self._send.is_over:
            raise StopAsyncIteration
        if not self._is_first:
            await self._send.wait_for_more(self._heartbeat)
            is_ready = self._send.is_ready
            if not (piece := self._send.take()) and is_ready:
                raise StopAsyncIteration  # the end, behind an error that was written already
            return piece or HEARTBEAT
        self._is_first = False
        return self._send.take()

    async def _run(self) -> None:
        correlation.set(self._send.correlation_id)
        with contained("the end of a request"), contextlib.closing(self._send), self._scope:
            try:
                await self._produce(self)
            except Exception as exc:  # noqa: BLE001 (the client gets it)
                if isinstance(exc, trio.BrokenResourceError) and self._send.is_lost:
                    return
                await self._fail(as_error(exc, "the request"))

    async def _fail(self, error: RbeeError) -> None:
        if not self.has_begun:
            self._refusal = error
            return
        self._send.last = b""
        with contextlib.suppress(trio.BrokenResourceError):
            await self._send.send(self._event_of(error))
