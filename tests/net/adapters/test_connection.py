"""A connection is over when its client has gone, whether or not the client says so."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from quart import request

from rbee.adapters.http import connection, sse_server, tcp_info
from rbee.adapters.http import server as http_server
from rbee.adapters.http.app import answer, new_app, streamed, with_keys
from rbee.adapters.http.connection import ClientConnection
from rbee.adapters.http.silent_peers import SilentPeers
from tests.kit.leaving import WAYS, connect, leave
from tests.kit.stopwatch import Stopwatch
from tests.kit.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from quart import Response
    from quart_trio import QuartTrio

    from tests.kit.leaving import Way

STALLED = 1.0
ASK = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"


class Answering:
    """A server whose answers say whether they are still wanted."""

    def __init__(self) -> None:
        self.port = 0
        self.begun = trio.Event()
        self.over = trio.Event()
        self.running = 0
        self.changed = trio.Event()
        self.sent = 0

    def count(self, change: int) -> None:
        self.running += change
        self.changed.set()
        self.changed = trio.Event()

    async def until_running(self, number: int) -> None:
        while self.running != number:
            await self.changed.wait()

    def app(self, nursery: trio.Nursery) -> QuartTrio:
        app = new_app("test", with_keys(lambda _: [], {"/quiet", "/flood", "/whole"}))

        async def produce(send: sse_server.Send, *, is_flood: bool) -> None:
            self.begun.set()
            self.count(1)
            try:
                while is_flood:
                    await send.send(sse_server.event("x" * 1000))
                    self.sent += 1
                await trio.sleep_forever()
            finally:
                self.count(-1)
                self.over.set()

        @app.get("/<kind>")
        async def stream(kind: str) -> Response:
            return streamed(nursery, partial(produce, is_flood=kind == "flood"))

        @app.get("/whole")
        async def whole() -> Response:
            self.begun.set()
            try:
                await trio.sleep_forever()
            finally:
                self.over.set()
            return answer({})

        return app


@pytest.fixture
async def server(nursery: trio.Nursery) -> AsyncIterator[Answering]:
    found = Answering()
    listener = http_server.bind("127.0.0.1", 0)
    found.port = listener.getsockname()[1]
    serving = http_server.Server(found.app(nursery), listener, stalled=STALLED)
    await nursery.start(serving.run)
    yield found
    await serving.stop()


async def seconds_until(event: trio.Event, limit: float) -> float:
    started, watch = trio.current_time(), Stopwatch()
    with trio.fail_after(PATIENCE):
        await event.wait()
    assert watch.seconds() < limit
    return trio.current_time() - started


async def filled(server: Answering) -> None:
    """Wait until the flood has filled every buffer on its way."""
    sent = -1
    while sent != server.sent:
        sent = server.sent
        await trio.sleep(0.1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["quiet", "flood", "whole"])
async def test_an_answer_ends_when_its_client_has_gone(server: Answering, kind: str, way: Way) -> None:
    with connect(server.port) as client:
        client.sendall(ASK % kind.encode())
        await server.begun.wait()
        if kind == "flood":
            await filled(server)
        leave(client, way)
        if way == "stops reading" and kind != "flood":
            # Nothing is to be read: it has not stopped. The connection outlives the limit.
            with trio.move_on_after(2 * STALLED):
                await server.over.wait()
            assert not server.over.is_set()
        elif way == "stops reading":
            assert await seconds_until(server.over, 2 * STALLED + 1) > STALLED / 2
        elif way == "vanishes":
            # The kernel's probes count whole seconds: one of silence, one without an answer.
            await seconds_until(server.over, 4)
        else:
            await seconds_until(server.over, 1)


async def test_a_reader_that_is_given_up_is_told_by_a_reset(server: Answering) -> None:
    with connect(server.port) as client:
        client.sendall(ASK % b"flood")
        await server.over.wait()
        client.setblocking(False)
        with pytest.raises(ConnectionResetError):
            list(iter(partial(client.recv, 4096), b""))


async def test_a_slow_reader_is_not_given_up(server: Answering) -> None:
    """Its window is smaller than a packet all the time: TCP_USER_TIMEOUT would take it for one that has gone."""
    with connect(server.port) as client:
        client.sendall(ASK % b"flood")
        await filled(server)
        client.setblocking(False)
        end = trio.current_time() + 4 * STALLED
        while trio.current_time() < end:
            assert client.recv(500)
            await trio.sleep(0.3)
        assert not server.over.is_set()


async def test_a_hang_up_behind_unread_bytes_is_seen(server: Answering) -> None:
    """The server reads no further than to the next request while it answers this one."""
    with connect(server.port) as client:
        client.sendall(ASK % b"quiet" + b"GET /")
        await server.begun.wait()
    assert await seconds_until(server.over, 5) < 2


async def test_a_hang_up_counts_when_it_is_seen_in_two_ways_at_once(server: Answering) -> None:
    clients = [connect(server.port) for _ in range(20)]
    for client in clients:
        client.sendall(ASK % b"quiet")
    await server.until_running(len(clients))
    for client in clients:
        client.close()
    time.sleep(STALLED / 2)  # noqa: ASYNC251 (so that reading and looking are both due when trio goes on)
    watch = Stopwatch()
    with trio.fail_after(PATIENCE):
        await server.until_running(0)
    assert watch.seconds() < 2


def open_sockets() -> int:
    names = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            names.append(str(descriptor.readlink()))
    return sum(name.startswith("socket:") for name in names)


@pytest.mark.parametrize("request_line", [b"", b"GET /here HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["silent", "asked"])
async def test_a_connection_that_its_client_closed_holds_no_socket(
    serve_app: Callable[[QuartTrio], Awaitable[str]], request_line: bytes
) -> None:
    app = new_app("test", with_keys(lambda _: [], {"/here"}))

    @app.get("/here")
    async def here() -> Response:
        return answer({})

    port = int((await serve_app(app)).rpartition(":")[2])
    before = open_sockets()
    for _ in range(20):
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            if request_line:
                await client.send_all(request_line)
                answered = b""
                while not answered.endswith(b"{}"):
                    answered += await client.receive_some()
                await trio.sleep(0.01)  # the server starts the idle timer only after its last byte
    end = trio.current_time() + 5
    while open_sockets() > before and trio.current_time() < end:  # noqa: ASYNC110 (the system has no event for it)
        await trio.sleep(0.02)
    assert open_sockets() <= before


async def test_a_connection_that_is_idle_for_too_long_is_closed_and_one_with_a_request_is_not(
    server: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClientConnection, "IDLE_SECONDS", 0.3)
    async with (
        await trio.open_tcp_stream("127.0.0.1", server.port) as silent,
        await trio.open_tcp_stream("127.0.0.1", server.port) as busy,
        await trio.open_tcp_stream("127.0.0.1", server.port) as answered,
    ):
        await busy.send_all(ASK % b"whole")
        await answered.send_all(ASK % b"nowhere")
        with trio.fail_after(PATIENCE):
            assert b"401" in await answered.receive_some()
            assert await answered.receive_some() == b""
            assert await silent.receive_some() == b""
        assert not server.over.is_set()


async def test_a_request_that_comes_just_as_its_connection_is_closed_is_not_cut_in_two(
    serve_app: Callable[[QuartTrio], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClientConnection, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(connection, "CHECK_SECONDS", 0.1)
    app = new_app("test", with_keys(lambda _: [], {"/"}))
    begun = whole = 0

    @app.post("/")
    async def take() -> Response:
        nonlocal begun, whole
        begun += 1
        await request.get_data()
        whole += 1
        return answer({})

    port = int((await serve_app(app)).rpartition(":")[2])
    for number in range(100):
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            await trio.sleep(0.0985 + 0.0045 * number / 100)
            with suppress(trio.BrokenResourceError):
                await client.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
                await client.receive_some()
    assert begun == whole


async def test_who_is_refused_before_its_body_has_come_may_ask_on_the_same_connection(
    serve_app: Callable[[QuartTrio], Awaitable[str]],
) -> None:
    app = new_app("test", with_keys(lambda _: [], {"/open"}))

    @app.get("/open")
    async def open_to_all() -> Response:
        return answer({})

    port = int((await serve_app(app)).rpartition(":")[2])
    head = b"POST /closed HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", port) as client:
        await client.send_all(head)
        await trio.sleep(0.02)
        await client.send_all(b"abc")
        assert b"401" in (refusal := await client.receive_some())
        assert b"connection: close" not in refusal.lower()
        await client.send_all(b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await client.receive_some()
    # One that keeps its body is told that there is no next time.
    async with await trio.open_tcp_stream("127.0.0.1", port) as client:
        await client.send_all(head)
        told = b""
        with trio.fail_after(PATIENCE):
            while more := await client.receive_some():
                told += more
        assert b"401" in told
        assert b"connection: close" in told.lower()


UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        UPGRADE + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: \xff\r\n\r\n",
        UPGRADE + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: \xff\r\n\r\n",
    ],
)
async def test_a_head_that_the_server_cannot_decode_ends_its_connection_alone(server: Answering, head: bytes) -> None:
    async with (
        await trio.open_tcp_stream("127.0.0.1", server.port) as stranger,
        await trio.open_tcp_stream("127.0.0.1", server.port) as client,
    ):
        await stranger.send_all(head)
        with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):
            while await stranger.receive_some():
                pass
        await client.send_all(ASK % b"nowhere")
        assert (await client.receive_some()).startswith(b"HTTP/1.1 401")


async def test_the_head_of_a_stream_alone_is_a_whole_answer(server: Answering) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as client:
        await client.send_all(b"HEAD /quiet HTTP/1.1\r\nHost: x\r\n\r\n" + ASK % b"nowhere")
        received = b""
        with trio.fail_after(PATIENCE):
            while b"401" not in received:
                received += await client.receive_some()
    assert received.startswith(b"HTTP/1.1 200")
    assert not server.begun.is_set()


async def test_a_whole_answer_is_one_packet(server: Answering) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as client:
        await client.send_all(ASK % b"nowhere")
        first = bytes(await client.receive_some())
    head, _, body = first.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401")
    assert b"content-length: %d" % len(body) in head.lower()


async def test_the_longest_patience_that_can_be_set_is_one_that_the_kernel_takes() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    async with listener, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        assert isinstance(stream, trio.SocketStream)
        tcp_info.probe(stream, 500_000, 1_000_000)
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


async def test_a_client_that_waits_for_a_whole_answer_is_not_taken_for_silent() -> None:
    """It is sent nothing; only the kernel's probes, once a second, say that it is there."""
    patience, changes, peers = 30.0, list[str](), SilentPeers()
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    async with listener, await trio.open_tcp_stream("127.0.0.1", port), await listener.accept() as stream:
        tcp_info.probe(stream, round(patience / 2), patience)
        await trio.sleep(tcp_info.PROBE_SECONDS + 0.5)  # in line for a slot
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peers.run)
            tcp_info.probe(stream, tcp_info.PROBE_SECONDS, patience)
            with peers.watched(stream, 0.4, lambda: changes.append("changed")):
                await trio.sleep(2 * tcp_info.PROBE_SECONDS + 0.4)
            nursery.cancel_scope.cancel()
    assert not changes
