"""A TCP proxy that makes faults on the way: delay, hold, cut, reset, black hole, at once or after some bytes."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from typing import Self

Fault = Literal["cut", "reset", "black hole"]
What = Literal["requests", "answers"]
CHUNK: Final = 65536
LOOK_SECONDS: Final = 0.02
"""Between two looks whether a fault was ordered for connections on which nothing moves."""


class Proxy:
    """Listens at `address`, and passes on to `target`; each connection has a thread.

    A cut is an orderly end, a reset is none; a black hole takes what comes and passes nothing on, on new connections
    too. `delay` is in seconds, before each piece is passed on, in either direction.
    """

    def __init__(self, target: tuple[str, int], *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.target = target
        self.delay = 0.0
        self.sent = 0
        """Bytes passed on towards the target since the last order."""
        self.received = bytearray()
        """All that was passed on towards the target."""
        self.accepted = 0
        self.happened = threading.Event()
        """Set once the fault that was ordered has come."""
        self._fault: Fault | None = None
        self._after = 0
        self._held: What | None = None
        self._room = 0
        self._ended = threading.Event()
        self._listener = socket.create_server((host, port), backlog=100)
        self.host, self.port = self._listener.getsockname()[:2]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def order(self, fault: Fault | None, *, after: int = 0) -> None:
        """Have a fault happen once `after` more bytes went towards the target; None ends it for new connections."""
        self._fault, self._after, self.sent = fault, after, 0
        self.happened.clear()

    def hold(self, what: What, *, after: int) -> None:
        """Pass on about `after` more bytes of what goes towards the target, or comes from there, until `release`.

        So a test can do something half-way, however slow or fast the machine is.
        """
        self._held, self._room = what, after

    def release(self) -> None:
        """Hold nothing back any more."""
        self._held = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def close(self) -> None:
        """End every connection."""
        self._ended.set()
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._ended.is_set():
            if not select.select([self._listener], [], [], LOOK_SECONDS)[0]:
                continue
            with suppress(OSError):
                client = self._listener.accept()[0]
                self.accepted += 1
                self._threads.append(threading.Thread(target=self._carry, args=(client,)))
                self._threads[-1].start()

    def _carry(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(self.target, timeout=5)
            except OSError:
                _reset(client)
                return
            with server:
                server.settimeout(None)
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with suppress(OSError):
                    self._pump(client, server)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        reading = [client, server]
        while reading and not self._ended.is_set():
            if self._fault is not None and self.sent >= self._after:
                self.happened.set()
                if self._fault == "reset":
                    _reset(client)
                    _reset(server)
                if self._fault == "black hole":
                    self._swallow(reading)
                return
            ready = [end for end in reading if self._most(end is client) > 0]
            for end in select.select(ready, [], [], LOOK_SECONDS)[0]:
                if (most := self._most(end is client)) <= 0:
                    break
                data = end.recv(most)
                if self._is_held(end is client):
                    self._room -= len(data)
                if self.delay:
                    time.sleep(self.delay)
                if data:
                    other[end].sendall(data)
                    if end is client:
                        self.sent += len(data)
                        self.received += data
                else:
                    other[end].shutdown(socket.SHUT_WR)
                    reading.remove(end)

    def _most(self, is_request: bool) -> int:
        """Return how many bytes may go that way now."""
        until_fault = self._after - self.sent if is_request and self._fault is not None else CHUNK
        return min(CHUNK, until_fault, self._room if self._is_held(is_request) else CHUNK)

    def _is_held(self, is_request: bool) -> bool:
        return self._held == ("requests" if is_request else "answers")

    def _swallow(self, reading: list[socket.socket]) -> None:
        """Take what comes, and say nothing, until the proxy is closed."""
        while not self._ended.is_set():
            for end in select.select(reading, [], [], LOOK_SECONDS)[0]:
                if not end.recv(CHUNK):
                    reading.remove(end)


def _reset(end: socket.socket) -> None:
    """Have the close of a socket be a reset (RST) instead of an end."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
