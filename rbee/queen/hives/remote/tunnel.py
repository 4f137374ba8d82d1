"""Reaches ports of a node through its SSH connection, where a firewall lets nothing else in."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from rbee.adapters.http import server as http_server
from rbee.adapters.logs.json_log import correlation
from rbee.concurrency.contained import contained, keep_running
from rbee.concurrency.outcome import Outcome
from rbee.errors import RbeeError, SshFailedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from rbee.adapters.ssh.connection import SshConnection

log = logging.getLogger(__name__)

READ_BYTES: Final = 65536
MAX_CONNECTIONS: Final = 400
"""Carried at once; further ones wait. Each takes two threads, because paramiko blocks."""


class Tunnel:
    """Local ports that lead to ports of one node; `run` in a nursery carries the connections.

    `dial` opens an SSH connection, at the first use and again after it was lost.
    """

    def __init__(
        self, dial: Callable[[], AbstractAsyncContextManager[SshConnection]], *, max_connections: int = MAX_CONNECTIONS
    ) -> None:
        self._dial = dial
        self._urls: dict[tuple[str, int], str] = {}
        self._opening: Outcome[SshConnection] | None = None
        self._connection: SshConnection | None = None
        self._nursery: trio.Nursery | None = None
        self._limiter = trio.CapacityLimiter(max_connections)
        self._silent: dict[tuple[str, int], str] = {}
        """The addresses at which nothing answers, and why."""

    async def run(self) -> None:
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

    async def connect(self) -> SshConnection:
        """Return the SSH connection, opened if need be. Raises SshFailedError."""
        assert self._nursery is not None
        is_open = self._connection is not None and self._connection.is_open
        if self._opening is None or (self._opening.is_settled and not is_open):
            self._opening = Outcome()
            self._nursery.start_soon(self._hold, self._opening)
        return await self._opening.wait()

    async def _hold(self, opening: Outcome[SshConnection]) -> None:
        """Open the connection for every caller that waits, and hold it until it is lost."""
        try:
            with contained("the SSH connection of a tunnel", opening.settle):
                async with self._dial() as connection:
                    self._connection = connection
                    opening.settle(connection)
                    await connection.wait_closed()
        finally:
            opening.settle(SshFailedError("the SSH connection was lost", reason="command"))

    async def _accept(self, listener: trio.SocketListener, host: str, port: int) -> None:
        correlation.set(None)  # of the request that was the first to need this port
        async with listener:
            await keep_running("accepting connections for a tunnel", partial(self._accept_all, listener, host, port))

    async def _accept_all(self, listener: trio.SocketListener, host: str, port: int) -> None:
        while True:
            stream = await listener.accept()
            assert self._nursery is not None
            self._nursery.start_soon(self._carry, stream, host, port)

    async def _carry(self, stream: trio.SocketStream, host: str, port: int) -> None:
        with contained("a connection through SSH"):
            await self._connect_ends(stream, host, port)

    async def _connect_ends(self, stream: trio.SocketStream, host: str, port: int) -> None:
        async with self._limiter, stream:
            try:
                channel = await (await self.connect()).open(host, port)
            except RbeeError as exc:
                self._note_silence((host, port), exc.message)
                return  # closed at once: the client learns that nothing answers there
            if self._silent.pop((host, port), None) is not None:
                log.info("port %d of %s answers through SSH", port, host)
            try:
                async with trio.open_nursery() as nursery:
                    # Either side's end is the end: none of us closes only its own direction.
                    nursery.start_soon(_pass_on, stream.receive_some, channel.send_all, nursery.cancel_scope)
                    nursery.start_soon(_pass_on, channel.receive, stream.send_all, nursery.cancel_scope)
            finally:
                channel.close()

    def _note_silence(self, address: tuple[str, int], reason: str) -> None:
        """Log why nothing answers there, once: whoever looks for a hive that was not started asks again and again."""
        if self._silent.get(address) != reason:
            self._silent[address] = reason
            host, port = address
            log.warning("no connection to port %d of %s through SSH: %s", port, host, reason)


async def _pass_on(
    receive: Callable[[int], Awaitable[bytes | bytearray]],
    send: Callable[[bytes], Awaitable[None]],
    scope: trio.CancelScope,
) -> None:
    """Pass bytes on until either side has ended, one piece at a time: a slow reader holds up the writer."""
    try:
        while data := await receive(READ_BYTES):
            await send(bytes(data))
    except (trio.BrokenResourceError, OSError):
        pass
    scope.cancel()
