"""A connection to a client, and its end when the client has gone, however silently."""

from __future__ import annotations

import logging
import os
import socket
import struct
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ConnectionState

from rbee.adapters.http import peer_user, tcp_info
from rbee.adapters.http.asgi.request_feed import spawn_app
from rbee.wire import addresses
from rbee.wire.common import base_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from hypercorn.events import Event
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import AppWrapper

    from rbee.adapters.http.silent_peers import SilentPeers

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 1.0
"""How often a connection is checked."""
_STATE_KEY: Final = "rbee.connection"
"""Where a request's ASGI scope holds its connection, under `state`."""
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)
"""The linger option that drops what was not sent; the kernel would go on trying for minutes."""


class ConnectionConfig(Config):
    """`stalled` is how many seconds a client may take nothing of what it is sent, or acknowledge nothing at all.

    `silent_peers` watches those that are sent a stream.
    """

    stalled: float
    silent_peers: SilentPeers


HEADER_SECONDS: Final = 10.0
"""For the head of a request, from its first byte; for the first one, from the beginning of the connection."""
_MAX_READ: Final = 65536


class IdleClock:
    """Knows since when a connection is idle; `since` is None while a request runs.

    `head_since`: since when the head of a request is awaited, of which bytes have come. It takes the place of a timer
    that hypercorn runs as a task of its own, started anew after each answer.
    """

    def __init__(self) -> None:
        # A client that connects has something to ask.
        self.since: float | None = trio.current_time()
        self.head_since: float | None = self.since
        self.begun_at = self.since
        """When the last request has begun; it is answered some steps of trio's loop later."""
        self._is_first = True

    async def restart(self, _task_group: object, _action: object) -> None:
        """Begin to be idle: when the connection is open, and after each answer."""
        self.since = trio.current_time()
        if not self._is_first:
            self.head_since = None
        self._is_first = False

    async def stop(self) -> None:
        """The head of a request is there."""
        self.since = self.head_since = None
        self.begun_at = trio.current_time()

    def note_bytes(self) -> None:
        """Bytes have come."""
        if self.since is not None and self.head_since is None:
            self.head_since = trio.current_time()


class ClientConnection(TCPServer):
    """A connection that is over when its client has closed it, has vanished, or has stopped reading for too long.

    Hypercorn's lets a write take for ever. The kernel's own limit, TCP_USER_TIMEOUT, is none for readers: it gives up
    some that read steadily but slowly, because a window that never takes the next packet whole is no progress to it.
    """

    IDLE_SECONDS: Final = 75.0
    """How long a connection may be idle; httpx closes its own after 5 s, which must not race with ours."""

    config: ConnectionConfig
    stream: trio.SocketStream  # type: ignore[assignment]  # there is no TLS here

    def __init__(
        self, app: AppWrapper, config: ConnectionConfig, context: WorkerContext, stream: trio.SocketStream
    ) -> None:
        state = ConnectionState({_STATE_KEY: self})
        super().__init__(app, config, context, state, stream)  # type: ignore[arg-type]  # there is no TLS here
        self.idle_task: IdleClock = IdleClock()  # type: ignore[assignment]  # it has the same methods
        self._unsent = b""
        self._running = 0
        self._quiet_since = trio.current_time()
        self.received = 0
        """Bytes that have come."""
        self.has_shown_key = False
        """Whether a request over it has shown a key that is good."""
        self.is_held = False
        """Whether what is sent is held back, to be written together with what follows: a write costs 50 us."""

    @cached_property
    def peer_host(self) -> str:
        """The address from which the client comes; empty where it had gone before anybody asked."""
        return self._host(self.stream.socket.getpeername)

    @cached_property
    def own_host(self) -> str:
        """The address of this machine at which the client has reached us; empty where it had gone before that."""
        return self._host(self.stream.socket.getsockname)

    @property
    def own_address(self) -> str:
        """The address and port of this machine at which the client has reached us; empty where it has gone."""
        try:
            host, port = self.stream.socket.getsockname()[:2]
        except OSError:
            return ""
        return urlsplit(base_url(addresses.plain(str(host)), port)).netloc

    @cached_property
    def peer_user(self) -> int | None:
        """The user of this machine whose program is the client; None for others. Asked once, when it is wanted."""
        return peer_user.of_peer(self.stream.socket)

    @staticmethod
    def _host(name: Callable[[], Any]) -> str:
        try:
            return addresses.plain(str(name()[0]))
        except OSError:
            return ""

    async def run(self) -> None:
        """Serve the connection until it is over.

        Whatever goes wrong ends it alone, and not the daemon: hypercorn decodes the heads of upgrades (h2c, websocket),
        which anybody may send, and raises what the decoders raise.
        """
        try:
            await super().run()
        except* Exception as group:  # noqa: BLE001 (see above)
            log.warning("a connection was ended: %r", group.exceptions[0])

    async def _read_data(self) -> None:
        self._task_group.spawn_app = partial(spawn_app, self._task_group)  # type: ignore[method-assign]
        self._probe_when_idle()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, nursery.cancel_scope)
                await self._receive()
                nursery.cancel_scope.cancel()
        finally:
            # Hypercorn shields writes from being cancelled: one that waits for the client ends with its socket only.
            await trio.aclose_forcefully(self.stream)

    async def _receive(self) -> None:
        """Do what hypercorn's `_read_data` does, and note what comes."""
        while True:
            try:
                data = bytes(await self.stream.receive_some(_MAX_READ))
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                break
            self.received += len(data)
            self.idle_task.note_bytes()
            await self.protocol.handle(RawData(data))
            if not data:
                break
        await self.protocol.handle(Closed())

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request that is answered within the block."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._quiet_since = trio.current_time()

    @property
    def idle_since(self) -> float | None:
        """Since when no request is answered, nor has begun; None while one is."""
        return None if self._running else max(self._quiet_since, self.idle_task.begun_at)

    def give_up(self) -> None:
        """Close the connection at once; whatever waits for it finds it closed."""
        self.stream.socket.close()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            self._unsent += event.data
            if not self.is_held:
                await self.flush()
            return
        if isinstance(event, Closed):
            await self.flush()
        await super().protocol_send(event)
        if isinstance(event, Updated) and event.idle and self._has_begun_next():
            self.idle_task.note_bytes()

    def _has_begun_next(self) -> bool:
        """Whether bytes of a next request came together with the one before."""
        parser = getattr(self.protocol.protocol, "connection", None)
        data, _ = getattr(parser, "trailing_data", (b"", False))
        return bool(data)

    def write_through(self, data: bytes) -> bool:
        """Write a piece of the answer's body at once, without hypercorn; returns whether it is on its way.

        What the piece before is made of has to have been written. That of a stream costs a tenth of the way through
        quart and hypercorn, and no task has to run for it.
        """
        protocol = self.protocol.protocol
        if not isinstance(protocol, H11Protocol) or self._unsent or self.is_held or self.send_lock.locked():
            return False
        parser = protocol.connection
        if parser.our_state is not h11.SEND_BODY:
            return False
        piece = parser.send(h11.Data(data=data))
        assert piece is not None  # it is for what ends a connection only
        written = 0
        with suppress(OSError):  # hypercorn's own way of writing finds out what is wrong
            written = os.write(self.stream.socket.fileno(), piece)
        if written < len(piece):
            self._unsent = piece[written:]
            self._task_group.spawn(self.flush)
        return True

    async def flush(self) -> None:
        """Write what is not written yet; waits only where the kernel does not take it at once."""
        data, self._unsent = self._unsent, b""
        if data and not self.send_lock.locked():
            with suppress(OSError):  # hypercorn's own way of writing finds out what is wrong
                data = data[os.write(self.stream.socket.fileno(), data) :]
        if data:
            await super().protocol_send(RawData(data))

    @contextmanager
    def watched(self, limit: float, on_change: Callable[[bool], Awaitable[None]]) -> Iterator[None]:
        """Await `on_change(True)` when the client takes nothing for `limit` seconds, `on_change(False)` when it does.

        The answer to one of its requests has to run meanwhile.
        """
        is_told = False
        telling: list[trio.CancelScope] = []  # one at most: what is told second comes second

        async def tell(scope: trio.CancelScope) -> None:
            nonlocal is_told
            with scope:
                while is_told != peer.is_silent:
                    is_told = peer.is_silent
                    await on_change(is_told)
            telling.remove(scope)

        def begin_to_tell() -> None:
            if not telling:
                telling.append(trio.CancelScope())
                self._task_group.spawn(tell, *telling)

        self._probe_when_idle(tcp_info.PROBE_SECONDS)
        try:
            with self.config.silent_peers.watched(self.stream, limit, begin_to_tell) as peer:
                yield
        finally:
            for scope in telling:
                scope.cancel()
            self._probe_when_idle()

    def _probe_when_idle(self, idle: int | None = None) -> None:
        """Have the kernel break the connection where nothing is to be sent, but the client is lost."""
        if self.stream.socket.fileno() != -1:
            patience = self.config.stalled
            tcp_info.probe(self.stream, idle or max(1, round(patience / 2)), patience)

    async def _watch(self, reading: trio.CancelScope) -> None:
        """End the reading when the connection has stalled, or when its end goes unread.

        Hypercorn reads no further while an answer runs and bytes of a next request have come, so it would not see the
        client hang up then.
        """
        acknowledged, moved_at = -1, trio.current_time()
        while True:
            await self._pause(min(CHECK_SECONDS, self.config.stalled / 4))
            if self._is_idle_for_too_long():
                # The reader finds it closed. To cancel that could cut in two a request which comes at this moment.
                await trio.aclose_forcefully(self.stream)
                return
            if (delivery := tcp_info.read(self.stream)) is None:
                break
            if delivery.acknowledged != acknowledged or not delivery.pending:
                acknowledged, moved_at = delivery.acknowledged, trio.current_time()
            elif trio.current_time() - moved_at >= self.config.stalled:
                log.warning("a client took nothing for %g s: its connection is closed", self.config.stalled)
                self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                break
        # Before the cancellation, which may come while the reader is at just this, and would cut it half-way.
        await self.protocol.handle(Closed())
        reading.cancel()

    async def _pause(self, seconds: float) -> None:
        """Wait these seconds, or until the server begins to end."""
        if self.context.terminated.is_set():
            await trio.sleep(seconds)
        else:
            with trio.move_on_after(seconds):
                await self.context.terminated.wait()

    def _is_idle_for_too_long(self) -> bool:
        clock, now = self.idle_task, trio.current_time()
        if clock.since is not None and (self.context.terminated.is_set() or now >= clock.since + self.IDLE_SECONDS):
            return True
        # Hypercorn takes the preface of HTTP/2 for a request, and it may be all that comes.
        head_since = clock.head_since if clock.since is not None else self.idle_since
        # Of a daemon that was stopped for a while (SIGSTOP) the head may be there, and is not read yet.
        return head_since is not None and now >= head_since + HEADER_SECONDS and not tcp_info.unread(self.stream)


def connection_of(scope: Any) -> ClientConnection:
    """Return the connection over which the request with this ASGI scope came."""
    return cast("ClientConnection", scope["state"][_STATE_KEY])
