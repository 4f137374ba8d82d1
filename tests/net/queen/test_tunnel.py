"""Connections that go through a node's SSH connection, with real OpenSSH and servers that misbehave."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
import pytest
import trio
import trio.testing

from rbee.adapters.logs.json_log import correlation
from rbee.adapters.ssh import handshake
from rbee.adapters.ssh.target import Target
from rbee.errors import SshFailedError
from rbee.queen.hives.remote.tunnel import Tunnel
from tests.kit.ports import hold_port
from tests.kit.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from rbee.adapters.ssh.connection import SshConnection

    Dial = Callable[[], AbstractAsyncContextManager[SshConnection]]
    Serve = Callable[[Callable[[trio.SocketStream], Awaitable[None]]], Awaitable[int]]

PIECE = bytes(65536)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    found = Sshd(tmp_path / "sshd")
    yield found
    found.stop()


@pytest.fixture
def dial(server: Sshd, tmp_path: Path) -> Dial:
    target = Target(server.address, server.port, server.user, str(server.key))
    return partial(handshake.connect, target, own_known_hosts=tmp_path / "known_hosts", accept=server.fingerprint)


@pytest.fixture
async def made(dial: Dial, nursery: trio.Nursery) -> Tunnel:
    found = Tunnel(dial)
    nursery.start_soon(found.run)
    await trio.testing.wait_all_tasks_blocked()
    return found


@pytest.fixture
async def serve(nursery: trio.Nursery) -> Serve:
    """Give a function that serves connections on the far side, and returns the port."""

    async def start(handle: Callable[[trio.SocketStream], Awaitable[None]]) -> int:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        port: int = listeners[0].socket.getsockname()[1]
        return port

    return start


@asynccontextmanager
async def through(made: Tunnel, port: int) -> AsyncIterator[trio.SocketStream]:
    """Connect to a port of the far side."""
    near = urlsplit(made.url("127.0.0.1", port)).port
    assert near is not None
    async with await trio.open_tcp_stream("127.0.0.1", near) as stream:
        yield stream


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def ends(stream: trio.SocketStream) -> None:
    """Return once the other side has ended the connection, in whichever way."""
    try:
        async for _ in stream:
            pass
    except trio.BrokenResourceError:
        pass


async def test_many_connections_at_once(made: Tunnel, serve: Serve) -> None:
    port = await serve(echo)

    async def talk(number: int) -> None:
        message = b"%d " % number * 20_000
        async with through(made, port) as stream:
            got = b""
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, message)
                while len(got) < len(message):
                    got += await stream.receive_some()
            assert got == message

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(talk, number)


async def test_a_client_that_does_not_read_holds_up_its_own_writer_alone(made: Tunnel, serve: Serve) -> None:
    sent = 0
    stalled = trio.Event()

    async def pour(stream: trio.SocketStream) -> None:
        nonlocal sent
        while True:
            with trio.move_on_after(1) as patience:
                await stream.send_all(PIECE)
                sent += len(PIECE)
            if patience.cancelled_caught:
                stalled.set()
                await trio.sleep_forever()

    pours, echoes = await serve(pour), await serve(echo)
    with trio.fail_after(30):
        async with through(made, pours):
            await stalled.wait()
            assert sent < 32 * 1024 * 1024  # the kernel's buffers on two connections, and the SSH channel's window
            async with through(made, echoes) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"


async def test_the_end_of_either_side_is_the_end_of_the_other(made: Tunnel, serve: Serve) -> None:
    ended = trio.Event()

    async def wait_for_end(stream: trio.SocketStream) -> None:
        await ends(stream)
        ended.set()

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    waits, hangs_up = await serve(wait_for_end), await serve(hang_up)
    with trio.fail_after(10):
        async with through(made, waits) as stream:
            await stream.send_all(b"hello")
        await ended.wait()
        async with through(made, hangs_up) as stream:
            await stream.send_all(b"hello")
            await ends(stream)


async def test_a_connection_to_a_closed_port_ends_at_once(made: Tunnel) -> None:
    with trio.fail_after(10):
        async with through(made, 1) as stream:
            await ends(stream)


async def test_a_lost_ssh_connection_ends_its_connections_and_the_next_one_works(
    made: Tunnel, serve: Serve, server: Sshd
) -> None:
    port = await serve(echo)
    with trio.fail_after(20):
        async with through(made, port) as stream:
            await stream.send_all(b"hello")
            await stream.receive_some()
            for session in psutil.Process(server.pid).children():
                session.kill()
            await ends(stream)
        async with through(made, port) as stream:
            await stream.send_all(b"again")
            assert await stream.receive_some() == b"again"


async def test_every_caller_learns_why_there_is_no_ssh_connection(made: Tunnel, server: Sshd) -> None:
    server.stop()
    told = []

    async def connect() -> None:
        with pytest.raises(SshFailedError) as caught:
            await made.connect()
        told.append(caught.value.details["reason"])

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(connect)
        assert told == ["refused"] * 3
        server.start()
        assert (await made.connect()).is_open


async def test_more_connections_than_are_carried_at_once_wait_for_their_turn(
    dial: Dial, serve: Serve, nursery: trio.Nursery
) -> None:
    made = Tunnel(dial, max_connections=2)
    nursery.start_soon(made.run)
    await trio.testing.wait_all_tasks_blocked()
    port = await serve(echo)

    async def talk() -> None:
        async with through(made, port) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(talk)


async def test_connections_do_not_go_on_under_the_id_of_the_request_that_opened_the_port(
    nursery: trio.Nursery,
) -> None:
    seen: list[str | None] = []

    @asynccontextmanager
    async def refuse() -> AsyncIterator[SshConnection]:
        seen.append(correlation.get())
        raise SshFailedError("no", reason="refused")
        yield

    made = Tunnel(refuse)
    nursery.start_soon(made.run)
    await trio.testing.wait_all_tasks_blocked()
    token = correlation.set("the first request")
    async with through(made, 1) as stream:
        correlation.reset(token)
        with trio.fail_after(5):
            assert await stream.receive_some() == b""
    assert seen == [None]


async def test_where_nothing_answers_the_log_says_so_once_until_something_does(
    made: Tunnel, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    port = hold_port()

    async def ask() -> None:
        with trio.fail_after(30):
            async with through(made, port) as stream:
                await ends(stream)

    def said() -> list[str]:
        return [record.message for record in caplog.records if f"port {port} " in record.message]

    for _ in range(5):
        await ask()
    (refused,) = said()
    assert refused.startswith(f"no connection to port {port} of 127.0.0.1 through SSH: ")
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, echo, port, host="127.0.0.1"))
        with trio.fail_after(30):
            async with through(made, port) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
        nursery.cancel_scope.cancel()
    await ask()
    assert said() == [refused, f"port {port} of 127.0.0.1 answers through SSH", refused]
