"""Ports are bound without a race, and a server ends when it is told to."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
import trio.testing

from rbee.adapters.http import server as http_server
from rbee.adapters.http import sse_server
from rbee.adapters.http.app import answer, new_app, streamed, with_keys
from rbee.errors import InvalidConfigurationError, PortInUseError
from tests.kit.local_http import LOCAL
from tests.kit.ports import hold_port, worker_ports
from tests.kit.stopwatch import Stopwatch

if TYPE_CHECKING:
    from quart import Response
    from quart_trio import QuartTrio


def port_of(listener: socket.socket) -> int:
    port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


# Binding.


def test_a_bound_port_takes_connections() -> None:
    with http_server.bind("127.0.0.1", 0) as listener, socket.create_connection(("127.0.0.1", port_of(listener))):
        assert http_server.base_url(listener) == f"http://127.0.0.1:{port_of(listener)}"
        assert http_server.base_url(listener, "10.0.0.7") == f"http://10.0.0.7:{port_of(listener)}"
        assert listener.getblocking() is False


def test_an_ipv6_address_stands_in_brackets() -> None:
    try:
        listener = http_server.bind("::1", 0)
    except InvalidConfigurationError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert http_server.base_url(listener) == f"http://[::1]:{port_of(listener)}"


def test_a_taken_port_names_its_holder_and_the_flag() -> None:
    with http_server.bind("127.0.0.1", 0) as holder:
        with pytest.raises(PortInUseError) as caught:
            http_server.bind("127.0.0.1", port_of(holder), setting="--queen-port")
        port = port_of(holder)
    error = caught.value
    assert error.message.startswith(f"port {port} on 127.0.0.1 is taken by ")
    assert error.message.endswith(f"(pid {os.getpid()})")
    assert error.details == {"port": port}
    assert error.hint is not None
    assert "--queen-port" in error.hint


def test_a_port_can_be_bound_again_at_once() -> None:
    port = hold_port()
    for _ in range(3):
        listener = http_server.bind("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            accepted.close()
        listener.close()


@pytest.mark.parametrize("host", ["", "nowhere.invalid", "300.1.1.1", "x" * 100, "a..b", "a\0b", "8.8.8.8"])
def test_an_impossible_host_is_a_wrong_setting(host: str) -> None:
    with pytest.raises(InvalidConfigurationError, match="cannot listen on"):
        http_server.bind(host, 0)


def test_the_first_free_port_is_taken() -> None:
    first = worker_ports()
    with http_server.bind_first("127.0.0.1", first) as one, http_server.bind_first("127.0.0.1", first) as other:
        assert first <= port_of(one) < port_of(other)


async def test_many_that_bind_at_once_get_a_port_each() -> None:
    first = worker_ports()
    listeners: list[socket.socket] = []

    async def bind() -> None:
        listeners.append(await trio.to_thread.run_sync(http_server.bind_first, "127.0.0.1", first))

    async with trio.open_nursery() as nursery:
        for _ in range(16):
            nursery.start_soon(bind)
    try:
        assert len({port_of(listener) for listener in listeners}) == 16
        assert min(map(port_of, listeners)) >= first
    finally:
        for listener in listeners:
            listener.close()


def test_without_a_free_port_that_is_said() -> None:
    with http_server.bind_first("127.0.0.1", 65535) as last:
        assert port_of(last) == 65535
        with pytest.raises(PortInUseError, match="no port from 65535 on is free"):
            http_server.bind_first("127.0.0.1", 65535)


# Stopping.


def build(nursery: trio.Nursery) -> QuartTrio:
    app = new_app("t", with_keys(lambda _: [], {"/quick", "/stuck", "/stream", "/flood"}))

    @app.get("/quick")
    async def quick() -> Response:
        return answer({})

    @app.get("/stuck")
    async def stuck() -> Response:
        await trio.sleep_forever()
        return answer({})

    @app.get("/stream")
    async def stream() -> Response:
        async def produce(send: sse_server.Send) -> None:
            await send.send(sse_server.event(1))
            await trio.sleep_forever()

        return streamed(nursery, produce)

    @app.get("/flood")
    async def flood() -> Response:
        async def produce(send: sse_server.Send) -> None:
            while True:
                await send.send(sse_server.event("x" * 65536))

        return streamed(nursery, produce)

    return app


async def request(port: int, path: str) -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return stream


@pytest.mark.parametrize(
    ("path", "seconds"), [(None, 1.0), ("/quick", 1.5), ("/stuck", 2.5), ("/stream", 2.5), ("/flood", 2.5)]
)
async def test_a_server_ends_soon_whatever_its_clients_do(path: str | None, seconds: float) -> None:
    """A client that is idle, waits, listens, or does not read what it is sent."""
    async with trio.open_nursery() as nursery:
        listener = http_server.bind("127.0.0.1", 0)
        port = port_of(listener)
        server = http_server.Server(build(nursery), listener)
        await nursery.start(server.run)
        client = None
        if path is not None:
            client = await request(port, path)
            if path != "/stuck":
                await client.receive_some(100)
            if path == "/flood":
                await trio.testing.wait_all_tasks_blocked(0.1)
        watch = Stopwatch()
        await server.stop()
        assert watch.seconds() < seconds + 1
        nursery.cancel_scope.cancel()
        if client is not None:
            await client.aclose()


async def test_after_its_end_the_port_is_free() -> None:
    async with trio.open_nursery() as nursery:
        listener = http_server.bind("127.0.0.1", 0)
        port = port_of(listener)
        server = http_server.Server(build(nursery), listener)
        await nursery.start(server.run)
        await server.stop()
        await server.stop()  # again is no error
        with http_server.bind("127.0.0.1", port):
            pass
        nursery.cancel_scope.cancel()


async def test_a_server_that_is_cancelled_frees_its_port() -> None:
    listener = http_server.bind("127.0.0.1", 0)
    port = port_of(listener)
    async with trio.open_nursery() as nursery:
        server = http_server.Server(build(nursery), listener)
        await nursery.start(server.run)
        nursery.cancel_scope.cancel()
    with http_server.bind("127.0.0.1", port):
        pass


async def test_it_answers_from_the_moment_it_has_started() -> None:
    async with trio.open_nursery() as nursery:
        listener = http_server.bind("127.0.0.1", 0)
        server = http_server.Server(build(nursery), listener)
        await nursery.start(server.run)
        async with httpx.AsyncClient(**LOCAL) as client:
            assert (await client.get(http_server.base_url(listener) + "/quick")).status_code == 200
        await server.stop()
        nursery.cancel_scope.cancel()


STALLED = """
import socket, sys, trio
sys.path.insert(0, {root!r})
from rbee.adapters.http import server as http_server, sse_server
from rbee.adapters.http.app import new_app, streamed, with_keys

async def main():
    app = new_app("t", with_keys(lambda _: [], {{"/flood"}}))
    async with trio.open_nursery() as nursery:
        async def produce(send):
            while True:
                await send.send(sse_server.event("x" * 65536))

        @app.get("/flood")
        async def flood():
            return streamed(nursery, produce)

        listener = http_server.bind("127.0.0.1", 0)
        server = http_server.Server(app, listener)
        await nursery.start(server.run)
        print(listener.getsockname()[1], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        await server.stop()
        nursery.cancel_scope.cancel()

trio.run(main)
"""


def test_a_client_that_does_not_read_does_not_keep_a_daemon_alive() -> None:
    """Its answer is being written when the daemon ends, and hypercorn lets nothing cancel a write."""
    script = STALLED.format(root=str(Path(__file__).resolve().parents[3]))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
            # Once the socket buffers are full, nothing more arrives and the server is inside a write.
            client.recv(1)
            sizes = [-1, 0]
            while sizes[-1] != sizes[-2]:
                time.sleep(0.2)
                sizes.append(array.array("i", fcntl.ioctl(client, termios.FIONREAD, b"\0" * 4))[0])
            process.stdin.close()
            assert process.wait(20) == 0
