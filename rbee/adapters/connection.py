"""A connection to a client, and its end when the client has gone, however silently."""

from __future__ import annotations

import fcntl
import logging
import socket
import struct
import termios
from typing import TYPE_CHECKING, Final, NamedTuple

import hypercorn.trio.run
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Updated
from hypercorn.trio.tcp_server import TCPServer

if TYPE_CHECKING:
    from hypercorn.events import Event

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""How often a connection is looked at."""
_ESTABLISHED: Final = 1
_TCP_INFO: Final = struct.Struct("=B119xQ")
"""`tcpi_state` and `tcpi_bytes_acked` of struct tcp_info (linux/tcp.h)."""
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)
"""The linger option that drops what was not sent; the kernel would go on trying for minutes."""


class ConnectionConfig(Config):
    """`stalled` is how many seconds a client may take nothing of what it is sent, or not be heard of at all."""

    stalled: float


class Connection(TCPServer):
    """A connection that is over when its client has closed it, has vanished, or has stopped reading for too long.

    Hypercorn's lets a write take for ever. The kernel's own limit, TCP_USER_TIMEOUT, is none for readers: it gives up
    some that read steadily but slowly, because a window that never takes the next packet whole is no progress to it.
    """

    config: ConnectionConfig
    stream: trio.SocketStream  # type: ignore[assignment]  # there is no TLS here
    _is_over = False

    async def _read_data(self) -> None:
        _probe_when_idle(self.stream, self.config.stalled)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, nursery.cancel_scope)
                await super()._read_data()
                nursery.cancel_scope.cancel()
            # Hypercorn would hold the socket until its idle timer ends, after 75 s: 14 calls a second, each on a
            # connection of its own, would use up the 1024 descriptors that a process usually has.
            self._is_over = True
            await self.idle_task.stop()
        finally:
            # Hypercorn shields writes from being cancelled: one that waits for the client ends with its socket only.
            await trio.aclose_forcefully(self.stream)

    async def protocol_send(self, event: Event) -> None:
        # The end of an answer starts the idle timer, and may come after the client has gone.
        if not (self._is_over and isinstance(event, Updated)):
            await super().protocol_send(event)

    async def _watch(self, reading: trio.CancelScope) -> None:
        """End the reading when the connection has stalled, or when its end goes unread.

        Hypercorn reads no further while an answer runs and bytes of a next request have come, so it would not see the
        client hang up then.
        """
        acknowledged, moved_at = -1, trio.current_time()
        while True:
            await trio.sleep(min(LOOK_SECONDS, self.config.stalled / 4))
            if (now := _look(self.stream)) is None:
                break
            if now.acknowledged != acknowledged or not now.pending:
                acknowledged, moved_at = now.acknowledged, trio.current_time()
            elif trio.current_time() - moved_at >= self.config.stalled:
                log.warning("a client took nothing for %g s, and is given up", self.config.stalled)
                self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                break
        # Before the cancellation, which may come while the reader is at just this, and would cut it half-way.
        await self.protocol.handle(Closed())
        reading.cancel()


class _Progress(NamedTuple):
    """Bytes that the client has acknowledged, and bytes it has not."""

    acknowledged: int
    pending: int


def _look(stream: trio.SocketStream) -> _Progress | None:
    """Return how far a connection is, or None when its client has closed it."""
    if (descriptor := stream.socket.fileno()) == -1:
        return None
    state, acknowledged = _TCP_INFO.unpack(stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    (pending,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
    return _Progress(acknowledged, pending) if state == _ESTABLISHED else None


def _probe_when_idle(stream: trio.SocketStream, patience: float) -> None:
    """Have the kernel break a connection over which nothing is to be sent, but whose other end is lost.

    It counts whole seconds.
    """
    idle = max(1, round(patience / 2))
    interval = max(1, round(patience / 6))
    for option, value in (
        (socket.TCP_KEEPIDLE, idle),
        (socket.TCP_KEEPINTVL, interval),
        (socket.TCP_KEEPCNT, max(1, round((patience - idle) / interval))),
    ):
        stream.setsockopt(socket.IPPROTO_TCP, option, value)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


# `serve` takes the class from its module; there is no other way to give it one.
hypercorn.trio.run.TCPServer = Connection  # type: ignore[attr-defined]
