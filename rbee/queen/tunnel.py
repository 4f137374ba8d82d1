"""Reaches ports of a node through its SSH connection, where a firewall lets nothing else in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters import serve, ssh
from rbee.errors import RbeeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

log = logging.getLogger(__name__)

CHUNK: Final = 65536


class Tunnel:
    """Local ports that lead to ports of one node; `run` in a nursery carries the connections.

    `dial` opens an SSH connection; it is opened with the first use, and again after it was lost.
    """

    def __init__(self, dial: Callable[[], AbstractAsyncContextManager[ssh.Connection]]) -> None:
        self._dial = dial
        self._urls: dict[tuple[str, int], str] = {}
        self._connection: ssh.Connection | None = None
        self._wanted = trio.Event()
        self._ready = trio.Event()
        self._failure: RbeeError | None = None
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Carry connections until cancelled."""
        async with trio.open_nursery() as self._nursery:
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                try:
                    async with self._dial() as self._connection:
                        self._failure = None
                        self._ready.set()
                        await self._connection.wait_closed()
                except RbeeError as exc:
                    self._failure = exc
                    self._ready.set()
                finally:
                    self._connection = None
                self._ready = trio.Event()

    def url(self, host: str, port: int) -> str:
        """Return a URL on this host that leads to `port` of `host`, as the node knows it."""
        assert self._nursery is not None
        if (found := self._urls.get((host, port))) is None:
            listener = serve.bind("127.0.0.1", 0)
            found = self._urls[host, port] = serve.base_url(listener)
            listening = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
            self._nursery.start_soon(self._accept, listening, host, port)
        return found

    async def _accept(self, listener: trio.SocketListener, host: str, port: int) -> None:
        async with listener:
            while True:
                self._start(await listener.accept(), host, port)

    def _start(self, stream: trio.SocketStream, host: str, port: int) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._carry, stream, host, port)

    async def _carry(self, stream: trio.SocketStream, host: str, port: int) -> None:
        async with stream:
            try:
                connection = await self._connected()
                channel = await connection.open(host, port)
            except RbeeError as exc:
                log.info("no connection to port %d through SSH: %s", port, exc)
                return  # closed at once: who connected learns that nobody answers there
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_send_on, stream, channel)
                    await _receive(stream, channel)
                    nursery.cancel_scope.cancel()
            finally:
                channel.close()

    async def _connected(self) -> ssh.Connection:
        if self._connection is not None and self._connection.is_open:
            return self._connection
        self._wanted.set()
        await self._ready.wait()
        if self._connection is None:
            raise self._failure or RbeeError("the SSH connection was lost")
        return self._connection


async def _send_on(stream: trio.SocketStream, channel: ssh.Channel) -> None:
    try:
        async for data in stream:
            await channel.send_all(bytes(data))
        await channel.send_eof()
    except (trio.BrokenResourceError, OSError):
        channel.close()


async def _receive(stream: trio.SocketStream, channel: ssh.Channel) -> None:
    try:
        while data := await channel.receive(CHUNK):
            await stream.send_all(data)
    except (trio.BrokenResourceError, OSError):
        pass
