"""Connections that one client leaves to the next."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from rbee.adapters.http import kept_connections, sse_server
from rbee.adapters.http.app import client_connection, new_app, streamed, with_keys
from rbee.adapters.http.direct import event_answer
from rbee.adapters.http.kept_connections import KeptConnections
from rbee.adapters.http.server import Server, base_url, bind
from rbee.concurrency.background import open_background
from rbee.wire.queen import NodeQuery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from quart import Response
    from quart_trio import QuartTrio

    from rbee.adapters.http.connection import ClientConnection
    from rbee.adapters.http.event_parser import Event

    Serve = Callable[[QuartTrio], Awaitable[str]]


class Served:
    """A server that knows over how many connections it was asked."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.connections: set[object] = set()
        self.closed = trio.Event()
        """Set when one of them is."""
        self.app = new_app("test", with_keys(lambda _: [], {"/", "/endless"}))

        async def await_close(connection: ClientConnection) -> None:
            while connection.stream.socket.fileno() != -1:  # noqa: ASYNC110 (it sets no event)
                await trio.sleep(0.05)
            self.closed.set()

        @self.app.post("/")
        async def stream() -> Response:
            self.connections.add(client_connection())
            nursery.start_soon(await_close, client_connection())
            return streamed(nursery, lambda send: send.send(sse_server.event(1)))

        @self.app.post("/endless")
        async def endless() -> Response:
            async def produce(send: sse_server.Send) -> None:
                await send.send(sse_server.event(1))
                await trio.sleep_forever()

            self.connections.add(client_connection())
            nursery.start_soon(await_close, client_connection())
            return streamed(nursery, produce)


@pytest.fixture
async def served(nursery: trio.Nursery) -> Served:
    return Served(nursery)


@pytest.fixture
async def kept(nursery: trio.Nursery) -> KeptConnections:
    found = KeptConnections()
    nursery.start_soon(found.run)
    return found


@pytest.fixture
async def briefly_kept(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> KeptConnections:
    """Connections that are closed soon after the last client has left."""
    monkeypatch.setattr(kept_connections, "KEPT_SECONDS", 0.05)
    found = KeptConnections()
    nursery.start_soon(found.run)
    return found


async def ask(
    url: str, kept: KeptConnections, path: str = "/", on_event: Callable[[Event], object] = lambda _: None
) -> None:
    """Have the events of a stream taken to its end."""

    def take(event: Event) -> bool:
        on_event(event)
        return True

    await event_answer.follow(kept, url, path, {}, NodeQuery(node="n"), take, trio.lowlevel.checkpoint, patience=5)


async def ask_and_leave(url: str, kept: KeptConnections) -> None:
    """Leave a stream that does not end after its first event."""
    with trio.CancelScope() as scope:
        await ask(url, kept, "/endless", lambda _: scope.cancel())
    assert scope.cancelled_caught


@asynccontextmanager
async def held(url: str, kept: KeptConnections) -> AsyncIterator[None]:
    """Have a stream that does not end, within the block."""
    begun = trio.Event()
    async with open_background() as nursery:
        nursery.start_soon(ask, url, kept, "/endless", lambda _: begun.set())
        await begun.wait()
        yield


async def test_the_next_client_of_an_address_needs_no_connection_of_its_own(
    served: Served, serve_app: Serve, kept: KeptConnections
) -> None:
    url = await serve_app(served.app)
    for _ in range(5):
        await ask(url, kept)
    assert len(served.connections) == 1


async def test_clients_at_the_same_time_have_connections_of_their_own(
    served: Served, serve_app: Serve, kept: KeptConnections
) -> None:
    url = await serve_app(served.app)
    async with held(url, kept):
        await ask(url, kept)
    assert len(served.connections) == 2


async def test_any_number_of_streams_runs_at_once(served: Served, serve_app: Serve, kept: KeptConnections) -> None:
    url = await serve_app(served.app)
    is_enough = trio.Event()

    async def hold() -> None:
        async with held(url, kept):
            if len(served.connections) == 120:
                is_enough.set()
            await is_enough.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(120):
            nursery.start_soon(hold)


async def test_one_address_does_not_hold_up_the_end_of_anothers_connections(
    served: Served, serve_app: Serve, nursery: trio.Nursery, briefly_kept: KeptConnections
) -> None:
    busy = Served(nursery)
    busy_url, url = await serve_app(busy.app), await serve_app(served.app)
    async with held(busy_url, briefly_kept):
        await ask(url, briefly_kept)
        with trio.fail_after(5):
            await served.closed.wait()


async def test_a_stream_that_is_left_early_ends_its_connection(
    served: Served, serve_app: Serve, kept: KeptConnections
) -> None:
    """That is how the other side learns of it."""
    url = await serve_app(served.app)
    for _ in range(3):
        await ask_and_leave(url, kept)
        with trio.fail_after(3):  # before those that nobody uses are closed
            await served.closed.wait()
        served.closed = trio.Event()
    assert len(served.connections) == 3


async def test_a_server_that_has_gone_meanwhile_and_another_in_its_place(
    served: Served, nursery: trio.Nursery, kept: KeptConnections
) -> None:
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    for _ in range(2):
        server = Server(served.app, listener)
        await nursery.start(server.run)
        await ask(base_url(listener), kept)
        await server.stop()
        listener = bind("127.0.0.1", port)
    listener.close()
    assert len(served.connections) == 2


async def test_what_nobody_uses_is_closed(served: Served, serve_app: Serve, briefly_kept: KeptConnections) -> None:
    url = await serve_app(served.app)
    await ask(url, briefly_kept)
    with trio.fail_after(5):
        await served.closed.wait()
    await ask(url, briefly_kept)
    assert len(served.connections) == 2


async def test_a_client_that_stays_behind_closes_them_at_last(served: Served, serve_app: Serve) -> None:
    kept = KeptConnections()
    url = await serve_app(served.app)
    found: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.run)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            await ask(url, kept, on_event=lambda event: found.append(event.data))
    assert found == ["1"]
    with trio.fail_after(5):
        await served.closed.wait()
