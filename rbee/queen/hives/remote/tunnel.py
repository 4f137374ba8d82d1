"""Reaches ports of a node through its SSH connection, where a firewall lets nothing else in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.http import server as http_server
from rbee.errors import RbeeError, SshFailedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from rbee.adapters.ssh.connection import Connection

log = logging.getLogger(__name__)

CHUNK: Final = 65536
MAX_CONNECTIONS: Final = 400
"""That are carried at once. Each takes two threads, for paramiko blocks; more wait for their turn."""


class _Attempt:
    """One opening of the SSH connection; `done` is set when it has led to a connection or to an error."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.connection: Connection | None = None
        self.error: RbeeError | None = None

    @property
    def is_of_use(self) -> bool:
        """Whether it goes on, or has led to a connection that is open."""
        return not self.done.is_set() or (self.connection is not None and self.connection.is_open)


class Tunnel:
    """Local ports that lead to ports of one node; `run` in a nursery carries the connections.

    `dial` opens an SSH connection; it is opened with the first use, and again after it was lost.
    """

    def __init__(self, dial: Callable[[], AbstractAsyncContextManager[Connection]]) -> None:
        self._dial = dial
        self._urls: dict[tuple[str, int], str] = {}
        self._attempt: _Attempt | None = None
        self._nursery: trio.Nursery | None = None
        self._places = trio.CapacityLimiter(MAX_CONNECTIONS)

    async def run(self) -> None:
        """Carry connections until cancelled."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def url(self, host: str, port: int) -> str:
        """Return a URL on this host that leads to `port` of `host`, as the node knows it."""
        assert self._nursery is not None
        if (found := self._urls.get((host, port))) is None:
            listener = http_server.bind("127.0.0.1", 0)
            found = self._urls[host, port] = http_server.base_url(listener)
            listening = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
            self._nursery.start_soon(self._accept, listening, host, port)
        return found

    async def connect(self) -> Connection:
        """Return the SSH connection, opened if need be. Raises SshFailedError."""
        assert self._nursery is not None
        if (attempt := self._attempt) is None or not attempt.is_of_use:
            attempt = self._attempt = _Attempt()
            self._nursery.start_soon(self._hold, attempt)
        await attempt.done.wait()
        if attempt.connection is None:
            raise attempt.error or SshFailedError("the SSH connection was lost", reason="command")
        return attempt.connection

    async def _hold(self, attempt: _Attempt) -> None:
        """Open the connection for all who wait, and hold it until it is lost."""
        try:
            async with self._dial() as attempt.connection:
                attempt.done.set()
                await attempt.connection.wait_closed()
        except RbeeError as exc:
            attempt.error = exc
        finally:
            attempt.done.set()

    async def _accept(self, listener: trio.SocketListener, host: str, port: int) -> None:
        async with listener:
            while True:
                stream = await listener.accept()
                assert self._nursery is not None
                self._nursery.start_soon(self._carry, stream, host, port)

    async def _carry(self, stream: trio.SocketStream, host: str, port: int) -> None:
        async with self._places, stream:
            try:
                channel = await (await self.connect()).open(host, port)
            except RbeeError as exc:
                log.info("no connection to port %d through SSH: %s", port, exc)
                return  # closed at once: who connected learns that nobody answers there
            try:
                async with trio.open_nursery() as nursery:
                    # Either side's end is the end: none of us closes only its own direction.
                    nursery.start_soon(_pass_on, stream.receive_some, channel.send_all, nursery.cancel_scope)
                    nursery.start_soon(_pass_on, channel.receive, stream.send_all, nursery.cancel_scope)
            finally:
                channel.close()


async def _pass_on(
    receive: Callable[[int], Awaitable[bytes | bytearray]],
    send: Callable[[bytes], Awaitable[None]],
    scope: trio.CancelScope,
) -> None:
    """Pass bytes on until either side has ended, one piece at a time: who does not read holds up who writes."""
    try:
        while data := await receive(CHUNK):
            await send(bytes(data))
    except (trio.BrokenResourceError, OSError):
        pass
    scope.cancel()
