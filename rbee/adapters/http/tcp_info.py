"""How long the other end of a connection has not been heard of, as the kernel knows it."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PROBE_SECONDS: Final = 1
"""The least idle time after which the kernel probes a connection; it counts whole seconds."""
MOST_SECONDS: Final = 32767
MOST_PROBES: Final = 127
"""The largest values that the kernel takes (MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL and MAX_TCP_KEEPCNT, net/tcp.h)."""
_ESTABLISHED: Final = 1
_TCP_INFO: Final = struct.Struct("=B55xI60xQ")
"""`tcpi_state`, `tcpi_last_ack_recv` (ms) and `tcpi_bytes_acked` of struct tcp_info (linux/tcp.h)."""


class Progress(NamedTuple):
    """Bytes that the other end has acknowledged, bytes it has not, and the seconds since any acknowledgement."""

    acknowledged: int
    pending: int
    unheard: float


def look(stream: trio.SocketStream) -> Progress | None:
    """Return how far a connection is, or None when either end has closed it."""
    if (descriptor := stream.socket.fileno()) == -1:
        return None
    state, unheard, acknowledged = _TCP_INFO.unpack(
        stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    )
    (pending,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
    return Progress(acknowledged, pending, unheard / 1000) if state == _ESTABLISHED else None


def probe(stream: trio.SocketStream, idle: int, patience: float) -> None:
    """Have the kernel probe a connection after `idle` quiet seconds, and break it after about `patience` of silence."""
    interval = min(max(1, round(patience / 6)), MOST_SECONDS)
    for option, value in (
        (socket.TCP_KEEPIDLE, min(idle, MOST_SECONDS)),
        (socket.TCP_KEEPINTVL, interval),
        (socket.TCP_KEEPCNT, min(max(1, round((patience - idle) / interval)), MOST_PROBES)),
    ):
        stream.setsockopt(socket.IPPROTO_TCP, option, value)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def watch(stream: trio.SocketStream, limit: float, report: Callable[[bool], Awaitable[None]]) -> None:
    """Await `tell(True)` when the other end takes nothing for `limit` seconds, `tell(False)` when it does again.

    Returns when the connection is closed. One that is sent nothing is heard of by the kernel's probes, once in
    PROBE_SECONDS; so its silence is noticed that much later.
    """
    acknowledged, moved_at, was_silent = -1, trio.current_time(), False
    while (now := look(stream)) is not None:
        if now.pending and now.acknowledged == acknowledged:
            silence = trio.current_time() - moved_at
        else:
            acknowledged, moved_at = now.acknowledged, trio.current_time()
            silence = 0 if now.pending else now.unheard - PROBE_SECONDS
        if (is_silent := silence >= limit) != was_silent:
            was_silent = is_silent
            await report(is_silent)
        await trio.sleep(limit / 5)
