"""Peers that never finish a request, or open connections without end, keep nobody else out."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from rbee.adapters.http import acceptor, connection
from rbee.adapters.http import app as http_app
from rbee.adapters.http import server as http_server
from rbee.adapters.http.acceptor import ConnectionLimits, limits_for
from rbee.adapters.http.app import answer, body, new_app, raw_body, with_keys
from rbee.wire.common import Narration
from tests.kit.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from quart import Response

KEY = "rbee_key"
OPEN = b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n"
KEYED = b"GET /keyed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer rbee_key\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer rbee_key\r\n\r\n"
POST = b"POST /post HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer rbee_key\r\nContent-Length: %d\r\n\r\n"
HALF = b"GET /open HTTP/1.1\r\nHost"
NARRATION = b'{"actor":"rbee-hive","action":"b","target":"c","human":"d"}'


class Served:
    """A server with limits, and how many requests of it wait."""

    def __init__(self) -> None:
        self.port = 0
        self.waiting = 0
        self.let_go = trio.Event()

    async def connect(self, data: bytes, *, source: str = "127.0.0.1") -> trio.SocketStream:
        """Open a connection and send something."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port, local_address=source)
        await stream.send_all(data)
        return stream

    async def ask(self, data: bytes = OPEN, *, source: str = "127.0.0.1") -> bytes:
        """Return the beginning of the answer to one request."""
        async with await self.connect(data, source=source) as stream:
            return bytes(await stream.receive_some())


@pytest.fixture
async def serve(nursery: trio.Nursery) -> AsyncIterator[Callable[[ConnectionLimits], Served]]:
    servers: list[http_server.Server] = []

    def start(limits: ConnectionLimits) -> Served:
        served = Served()
        app = new_app("test", with_keys(lambda _: [KEY], {"/open"}))

        @app.get("/open")
        async def _open() -> Response:
            return answer({})

        @app.get("/keyed")
        async def _keyed() -> Response:
            return answer({})

        @app.get("/wait")
        async def _wait() -> Response:
            served.waiting += 1
            await served.let_go.wait()
            return answer({})

        @app.post("/post")
        async def _post() -> Response:
            return answer(await body(Narration))

        @app.post("/raw")
        async def _raw() -> Response:
            return answer({"bytes": len(await raw_body())})

        listener = http_server.bind("127.0.0.1", 0)
        served.port = listener.getsockname()[1]
        server = http_server.Server(app, listener, limits=limits)
        nursery.start_soon(server.run)
        servers.append(server)
        return served

    yield start
    for server in servers:
        await server.stop()


@pytest.fixture
def served(serve: Callable[[ConnectionLimits], Served]) -> Served:
    return serve(ConnectionLimits(100, 100))


async def until_closed(stream: trio.SocketStream) -> bytes:
    """Return all that comes until the other side closes the connection."""
    received = b""
    with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):
        while data := await stream.receive_some():
            received += data
    return received


@pytest.fixture
def _short_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.4)
    monkeypatch.setattr(connection, "CHECK_SECONDS", 0.1)


@pytest.mark.usefixtures("_short_head")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"G",
        HALF,
        b"GET /open HTTP/1.1\r\nHost: x\r\nx: " + b"a" * 9000,
        OPEN + HALF,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"\x16\x03\x01",
    ],
)
async def test_a_head_that_does_not_come_ends_its_connection(served: Served, data: bytes) -> None:
    async with await served.connect(data) as stream:
        received = await until_closed(stream)
    assert received.count(b"HTTP/1.1 200") == data.count(OPEN)


@pytest.mark.usefixtures("_short_head")
async def test_a_head_that_comes_byte_by_byte_has_no_more_time(served: Served) -> None:
    async with await served.connect(b"GET /open HTTP/1.1\r\nHost: x\r\nx: ") as stream:
        with trio.fail_after(PATIENCE), suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"a")
                await trio.sleep(0.02)


async def test_a_connection_between_two_requests_may_be_quiet_for_longer(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 1.0)
    monkeypatch.setattr(connection, "CHECK_SECONDS", 0.1)
    async with await served.connect(OPEN) as stream:
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        await trio.sleep(1.5)
        await stream.send_all(OPEN)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_a_daemon_that_was_stopped_reads_first_what_has_come(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CHECK_SECONDS", 0.1)
    async with await served.connect(HALF) as stream:
        await trio.sleep(0.05)
        os.write(stream.socket.fileno(), b": x\r\n\r\n")
        # From here to the answer nothing runs: the server, which is in this thread too, finds the time over.
        monkeypatch.setattr(connection, "HEADER_SECONDS", 0.25)
        time.sleep(0.3)  # noqa: ASYNC251
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_a_request_on_a_quiet_connection_is_not_cut_before_it_is_answered(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CHECK_SECONDS", 0.0)  # at each step of the loop
    async with await served.connect(OPEN) as stream:
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        await trio.sleep(1.1)
        monkeypatch.setattr(connection, "HEADER_SECONDS", 1.0)
        for _ in range(3):
            await stream.send_all(OPEN)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_a_body_that_does_not_move_is_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_app, "BODY_SECONDS", 0.3)
    raw = POST.replace(b"/post", b"/raw")
    for sent in (POST, POST + NARRATION[:10], raw + b"GGUF"):
        async with await served.connect(sent.replace(b"%d", b"%d" % len(NARRATION))) as stream:
            received = await until_closed(stream)
        assert received.startswith(b"HTTP/1.1 408")
        assert b"body did not come" in received


async def test_a_body_that_moves_has_all_the_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_app, "BODY_SECONDS", 1.5)
    monkeypatch.setattr(http_app, "MIN_BODY_BYTES", 2)
    padded = NARRATION + b" " * 700
    async with await served.connect(POST % len(padded)) as stream:
        for at in range(0, len(padded), 45):
            await stream.send_all(padded[at : at + 45])
            await trio.sleep(0.1)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_without_a_key_a_body_is_not_waited_for(served: Served) -> None:
    async with await served.connect((POST % 1000).replace(KEY.encode(), b"wrong")) as stream:
        assert (await until_closed(stream)).startswith(b"HTTP/1.1 401")


async def test_one_address_keeps_no_other_out(serve: Callable[[ConnectionLimits], Served]) -> None:
    served = serve(ConnectionLimits(8, 4))
    held = [await served.connect(HALF) for _ in range(12)]
    assert (await served.ask(source="127.0.0.2")).startswith(b"HTTP/1.1 200")
    assert (await served.ask()).startswith(b"HTTP/1.1 200"), "nor itself: the oldest gives way"
    for stream in held[:8]:
        await until_closed(stream)
        await stream.aclose()
    for stream in held[8:]:
        await stream.aclose()


async def test_many_addresses_keep_no_other_out(serve: Callable[[ConnectionLimits], Served]) -> None:
    served = serve(ConnectionLimits(8, 4))
    held = [await served.connect(HALF, source=f"127.0.1.{number}") for number in range(1, 30)]
    assert (await served.ask(source="127.0.0.2")).startswith(b"HTTP/1.1 200")
    for stream in held:
        await stream.aclose()


async def test_one_that_has_shown_a_key_gives_way_last(serve: Callable[[ConnectionLimits], Served]) -> None:
    served = serve(ConnectionLimits(8, 4))
    async with await served.connect(KEYED) as known:
        assert (await known.receive_some()).startswith(b"HTTP/1.1 200")
        held = [await served.connect(HALF) for _ in range(20)]
        await known.send_all(KEYED)
        assert (await known.receive_some()).startswith(b"HTTP/1.1 200")
        for stream in held:
            await stream.aclose()


async def test_running_requests_give_way_to_nobody(serve: Callable[[ConnectionLimits], Served]) -> None:
    served = serve(ConnectionLimits(8, 4))
    running = [await served.connect(WAIT) for _ in range(4)]
    while served.waiting < 4:  # noqa: ASYNC110 (a number, which comes to 4)
        await trio.sleep(0.01)
    refused = await served.ask()
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"TOO_MANY_CONNECTIONS" in refused
    assert (await served.ask(source="127.0.0.2")).startswith(b"HTTP/1.1 200")
    served.let_go.set()
    for stream in running:
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        await stream.aclose()
    with trio.fail_after(PATIENCE):
        while not (await served.ask()).startswith(b"HTTP/1.1 200"):  # noqa: ASYNC110 (another's state)
            await trio.sleep(0.01)


class Refusing:
    """A listener whose first attempts fail as accept(2) may."""

    def __init__(self, listener: trio.SocketListener, *numbers: int) -> None:
        self.listener = listener
        self.numbers = list(numbers)

    async def accept(self) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        if self.numbers:
            raise OSError(self.numbers[0], os.strerror(self.numbers.pop(0)))
        return await self.listener.accept()


@pytest.mark.parametrize(
    "number",
    [
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.ENETDOWN,
        errno.EHOSTUNREACH,
        errno.EPERM,
    ],
)
async def test_what_accept_fails_with_ends_no_server(
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[[ConnectionLimits], Served],
    number: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = trio.SocketListener
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(trio, "SocketListener", lambda sock: Refusing(real(sock), *[number] * 20))
    with caplog.at_level(logging.INFO):
        served = serve(ConnectionLimits(8, 4))
        assert (await served.ask()).startswith(b"HTTP/1.1 200")
    is_lack = number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
    assert len([record for record in caplog.records if "no connection can be accepted" in record.message]) == is_lack
    assert not [record for record in caplog.records if record.exc_info]


async def test_the_log_gets_one_line_a_minute(
    serve: Callable[[ConnectionLimits], Served], caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(ConnectionLimits(8, 4))
    for _ in range(40):
        await (await served.connect(HALF)).aclose()
    held = [await served.connect(HALF) for _ in range(40)]
    assert (await served.ask(source="127.0.0.2")).startswith(b"HTTP/1.1 200")
    assert len([record for record in caplog.records if "given up" in record.message]) == 1
    for stream in held:
        await stream.aclose()


def test_a_half_of_the_descriptors_is_for_what_the_daemon_does_itself() -> None:
    assert limits_for(1024) == (512, 256)
    assert limits_for(64) == (32, 16)
    assert limits_for(1) == (16, 8)
    assert limits_for(1 << 20) == (1 << 19, 1024)


def test_a_peer_that_has_gone_before_it_is_accepted_is_passed_over() -> None:
    """The kernel gives out a connection that was reset already; who it was cannot be asked then."""
    with http_server.bind("127.0.0.1", 0) as listener, socket.socket() as client:
        client.connect(listener.getsockname())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        listener.setblocking(True)
        stream, _ = listener.accept()
        with stream, pytest.raises(OSError, match="not connected"):
            stream.getpeername()
