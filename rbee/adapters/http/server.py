"""Binds a port and serves an application on it until stopped."""

from __future__ import annotations

import errno
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import wrap_app

from rbee.adapters.daemon import descriptors, port_owner
from rbee.adapters.http.acceptor import Acceptor, ConnectionLimits, limits_for
from rbee.adapters.http.connection import ClientConnection, ConnectionConfig, connection_of
from rbee.adapters.http.silent_peers import SilentPeers
from rbee.adapters.http.sse_server import LAST
from rbee.concurrency.background import open_background
from rbee.errors import InvalidConfigurationError, PortInUseError
from rbee.wire import addresses, common
from rbee.wire.common import EVENT_STREAM

if TYPE_CHECKING:
    from hypercorn.typing import AppWrapper
    from quart_trio import QuartTrio

BACKLOG: Final = 256


def bind(host: str, port: int, *, setting: str = "--port") -> socket.socket:
    """Return a listening socket; port 0 takes any free one. Raises PortInUseError, advising to change `setting`."""
    if (listener := _bind(host, port)) is None:
        raise PortInUseError(
            f"port {port} on {host} is taken{holder(host, port)}",
            hint=f"stop what holds it, or choose another port: {setting}",
            port=port,
        )
    return listener


def _bind(host: str, port: int) -> socket.socket | None:
    """Return a listening socket, or None when the port is taken."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, socket.gaierror) else "not a host's name"
        raise InvalidConfigurationError(f"cannot listen on {host}: {reason}", key="host") from exc
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            return None
        raise InvalidConfigurationError(f"cannot listen on {host}:{port}: {exc.strerror}", key="host") from exc
    listener.setblocking(False)
    return listener


def bind_first(host: str, first: int) -> socket.socket:
    """Return a listening socket on the first free port from `first` upwards.

    Binding is the test: finding a free port first and binding it later would be a race.
    """
    for port in range(first, min(first + 1000, 65536)):
        if (listener := _bind(host, port)) is not None:
            return listener
    raise PortInUseError(
        f"no port from {first} on is free on {host}", hint="set [worker] port_from to another range", port=first
    )


def holder(host: str, port: int) -> str:
    """Say who listens there, as in ` by nginx (pid 7)`; nothing where the system does not let us see that."""
    if (owner := port_owner.find(host, port)) is None:
        return ""
    whose = "" if owner.is_ours else f" of user {owner.user}"
    if owner.name is None:
        return f" by a program{whose}" if whose else ""
    return f" by {owner.name} (pid {owner.pid}){whose}"


def base_url(listener: socket.socket, host: str | None = None) -> str:
    """Return the URL at which this machine reaches `listener`; `host` replaces the address it is bound to."""
    address, port = listener.getsockname()[:2]
    return common.base_url(addresses.reachable(host or address), port)


class _Config(ConnectionConfig):
    """What we want otherwise than hypercorn does."""

    def __init__(self, stalled: float) -> None:
        super().__init__()
        self.stalled = stalled
        self.silent_peers = SilentPeers()
        # By the time the server stops, requests were drained: what is left is cut.
        self.graceful_timeout = 0.5
        self.include_server_header = False
        # Hypercorn would print to stderr beside our log.
        self.errorlog = None


class _AnswerSender:
    """The application, except in how its answers are sent: the head in one packet with the first piece of the body, and
    the last event of a stream with the end. So the connection is ready for the next request when the client has that.

    And sending the end of an answer cannot be cancelled. Hypercorn ends the request for the application when it has
    sent that, and only then makes the connection ready for the next one, all in the task that sends; quart-trio cancels
    this task as soon as the request ends. Unshielded, an idle connection would never time out, and would hold up the
    end of the server.
    """

    def __init__(self, app: QuartTrio) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = connection_of(scope)
        is_stream = False

        async def send_piece(message: Any) -> None:
            nonlocal is_stream
            if message["type"] == "http.response.start":
                is_stream = (b"content-type", EVENT_STREAM.encode()) in message["headers"]
                connection.is_held = True
                await send(message)
                return
            # The end of an answer follows at once on the last event.
            connection.is_held = is_stream and message.get("body", b"").endswith(LAST)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                with trio.CancelScope(shield=True):
                    await send(message)
            else:
                await send(message)
            if not connection.is_held:
                await connection.flush()

        with connection.answering():
            await self._app(scope, receive, send_piece)


class Server:
    """Serves one application on one listener; `run` in a nursery, then `stop`.

    `stalled` is how many seconds a client may take nothing of what it is sent before its connection is closed. `limits`
    are those of connections, by default what the limit of descriptors allows.
    """

    def __init__(
        self,
        app: QuartTrio,
        listener: socket.socket,
        *,
        stalled: float = 30.0,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self._app = app
        self._listener = listener
        self._config = _Config(stalled)
        self._limits = limits or limits_for(descriptors.limit())
        self._stop = trio.Event()
        self._ended = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop`; started once requests are answered. Closes the listener.

        Hypercorn's own `serve` would make connections of its own class, which a client that vanishes holds for ever.
        """
        app = wrap_app(_AnswerSender(self._app), self._config.wsgi_max_body_size, "asgi")
        lifespan = Lifespan(app, self._config, {})
        try:
            async with open_background() as nursery:
                await nursery.start(lifespan.handle_lifespan)
                await lifespan.wait_for_startup()
                await self._accept(app, task_status)
                await lifespan.wait_for_shutdown()
        finally:
            self._ended.set()

    async def _accept(self, app: AppWrapper, task_status: trio.TaskStatus[Any]) -> None:
        """Accept connections until `stop`, then give those that are open a moment to end."""
        context = WorkerContext(None)
        connect = partial(ClientConnection, app, self._config, context)
        async with trio.open_nursery() as connections:
            with trio.socket.from_stdlib_socket(self._listener) as listener:
                acceptor = Acceptor(trio.SocketListener(listener), connect, connections, self._limits)
                async with open_background() as accepting:
                    accepting.start_soon(acceptor.run)
                    accepting.start_soon(self._config.silent_peers.run)
                    task_status.started()
                    await self._stop.wait()
            await context.terminated.set()
            connections.cancel_scope.deadline = trio.current_time() + self._config.graceful_timeout

    async def stop(self) -> None:
        """Take no more requests and cut those that still run; returns when the server has ended."""
        self._stop.set()
        await self._ended.wait()
