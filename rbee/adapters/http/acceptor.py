"""Accepts connections, and gives up idle ones where there are too many: nobody keeps others out by holding them."""

from __future__ import annotations

import errno
import logging
import math
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import trio

from rbee.concurrency.contained import contained, keep_running
from rbee.errors import TooManyConnectionsError
from rbee.wire.error_body import to_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.adapters.http.connection import ClientConnection

log = logging.getLogger(__name__)

MAX_PER_ADDRESS: Final = 1024
"""More than any program of one user has open at once."""
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE_SECONDS: Final = 0.1
"""Before the next try where the system has no room for a connection."""
WARN_SECONDS: Final = 60.0
"""The least time between two lines in the log about too many connections."""
REFUSAL_SECONDS: Final = 1.0


class ConnectionLimits(NamedTuple):
    """How many connections may be open: in all, and from one address."""

    total: int
    per_address: int


def limits_for(descriptors: int) -> ConnectionLimits:
    """Return the limits of a process that may have so many descriptors (PURE).

    A half of them is for what it does for its clients: each relayed request has a connection to a worker as well. One
    address has at most a half of the connections, so that another one always gets some.
    """
    total = max(16, descriptors // 2)
    return ConnectionLimits(total, min(total // 2, MAX_PER_ADDRESS))


class Acceptor:
    """The connections of one listener; `connect` makes one of a stream. They run in `nursery`.

    A new one that is above a limit takes the place of an idle one: of those that have shown no key first, the one that
    has been idle for the longest. Where none is idle it is refused with 503.
    """

    def __init__(
        self,
        listener: trio.SocketListener,
        connect: Callable[[trio.SocketStream], ClientConnection],
        nursery: trio.Nursery,
        limits: ConnectionLimits,
    ) -> None:
        self._listener = listener
        self._connect = connect
        self._nursery = nursery
        self._limits = limits
        self._open: dict[ClientConnection, str] = {}
        self._by_address: Counter[str] = Counter()
        self._warned_at = -math.inf
        self._unsaid = 0

    async def run(self) -> None:
        """Accept until cancelled."""
        await keep_running("accepting connections", self._accept)

    async def _accept(self) -> None:
        while True:
            try:
                stream = await self._listener.accept()
            except OSError as exc:
                # Else it is one of a connection that was lost before it was accepted (accept(2)).
                if exc.errno in _EXHAUSTED:
                    self._warn(f"no connection can be accepted: {exc.strerror}")
                    self._give_up(None)
                    await trio.sleep(PAUSE_SECONDS)
                continue
            try:
                address = str(stream.socket.getpeername()[0])
            except OSError:
                stream.socket.close()  # it has gone already
                continue
            self._admit(stream, address)

    def _admit(self, stream: trio.SocketStream, address: str) -> None:
        is_full = False
        if self._by_address[address] >= self._limits.per_address:
            self._warn(f"{address} has {self._by_address[address]} connections: the oldest idle one is given up")
            is_full = not self._give_up(address)
        elif len(self._open) >= self._limits.total:
            self._warn(f"{len(self._open)} connections are open: the oldest idle one is given up")
            is_full = not self._give_up(None)
        if is_full:
            self._nursery.start_soon(_refuse, stream)
            return
        connection = self._connect(stream)
        self._open[connection] = address
        self._by_address[address] += 1
        self._nursery.start_soon(self._serve, connection)

    async def _serve(self, connection: ClientConnection) -> None:
        try:
            with contained("a connection"):
                await connection.run()
        finally:
            connection.give_up()  # where it could not even begin
            self._forget(connection)

    def _forget(self, connection: ClientConnection) -> None:
        if (address := self._open.pop(connection, None)) is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _give_up(self, address: str | None) -> bool:
        """Close the idle connection, of one address or of all, that is missed least; returns whether there is one."""
        idle = [
            (connection.has_shown_key, since, connection)
            for connection, other in self._open.items()
            if address in (None, other) and (since := connection.idle_since) is not None
        ]
        if not idle:
            return False
        *_, connection = min(idle, key=lambda one: one[:2])
        self._forget(connection)
        connection.give_up()
        return True

    def _warn(self, text: str) -> None:
        now = trio.current_time()
        if now < self._warned_at + WARN_SECONDS:
            self._unsaid += 1
            return
        log.warning("%s%s", text, f" ({self._unsaid} more since the last line)" if self._unsaid else "")
        self._warned_at, self._unsaid = now, 0


def _refusal() -> bytes:
    """Return a whole answer: no application is asked for it."""
    error = TooManyConnectionsError("too many connections are open, from this address or in all")
    body = msgspec.json.encode(to_body(error))
    head = f"HTTP/1.1 {error.status} \r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Retry-After: 5\r\nConnection: close\r\n\r\n" + body


async def _refuse(stream: trio.SocketStream) -> None:
    with contained("refusing a connection"), trio.move_on_after(REFUSAL_SECONDS):
        async with stream:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await stream.send_all(_refusal())
                await stream.send_eof()
                # What it sends is read, or its end would reach it before our answer has (RFC 9112, section 9.6).
                while await stream.receive_some():
                    pass
