"""Reads from TCP_INFO how long a peer has acknowledged nothing."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import trio

PROBE_SECONDS: Final = 1
"""The least idle time after which the kernel probes a connection; it counts whole seconds."""
MOST_SECONDS: Final = 32767
MOST_PROBES: Final = 127
"""The largest values that the kernel takes (MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL and MAX_TCP_KEEPCNT, net/tcp.h)."""
_ESTABLISHED: Final = 1
_TCP_INFO: Final = struct.Struct("=B55xI60xQ")
"""`tcpi_state`, `tcpi_last_ack_recv` (ms) and `tcpi_bytes_acked` of struct tcp_info (linux/tcp.h)."""


class Delivery(NamedTuple):
    """Bytes that the peer has acknowledged, bytes it has not, and the seconds since its last acknowledgement."""

    acknowledged: int
    pending: int
    idle_seconds: float


def read(stream: trio.SocketStream) -> Delivery | None:
    """Return what a connection has delivered, or None when either end has closed it."""
    if (descriptor := stream.socket.fileno()) == -1:
        return None
    state, idle_ms, acknowledged = _TCP_INFO.unpack(
        stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    )
    (pending,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
    return Delivery(acknowledged, pending, idle_ms / 1000) if state == _ESTABLISHED else None


def unread(stream: trio.SocketStream) -> int:
    """Return how many bytes have come that nobody has read yet; 0 for a connection that is closed."""
    if (descriptor := stream.socket.fileno()) == -1:
        return 0
    (waiting,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return int(waiting)


def probe(stream: trio.SocketStream, idle: int, patience: float) -> None:
    """Have the kernel probe a connection after `idle` quiet seconds, and break it after about `patience` of silence.

    After each probe, answered or not, the kernel waits for the interval, and not for `idle`: so that is no longer. With
    `idle` of 1 s a patience above 128 s is cut to that, as there are no more probes.
    """
    interval = min(max(1, round(patience / 6)), idle, MOST_SECONDS)
    for option, value in (
        (socket.TCP_KEEPINTVL, interval),
        (socket.TCP_KEEPCNT, min(max(1, round((patience - idle) / interval)), MOST_PROBES)),
        (socket.TCP_KEEPIDLE, min(idle, MOST_SECONDS)),  # last: it may send a probe at once, and begin an interval
    ):
        stream.setsockopt(socket.IPPROTO_TCP, option, value)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
