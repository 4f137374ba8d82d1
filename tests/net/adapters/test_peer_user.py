"""Which user holds the other end of a connection, over real sockets of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from rbee.adapters.http import peer_user
from rbee.adapters.http.app import answer, client_connection, new_app, with_keys
from tests.kit.local_http import LOCAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from quart import Response
    from quart_trio import QuartTrio

STRANGER = 54321
"""A user that nobody is."""
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a connection as another user")
WAYS = ["127.0.0.1", "::1", "::ffff:127.0.0.1"]


@contextmanager
def connected(ours: str, theirs: str | None = None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give the client's end of a connection and ours, which listens on `ours`; the client goes to `theirs`."""
    family = socket.AF_INET6 if ":" in ours else socket.AF_INET
    with closing(socket.socket(family)) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((ours, 0))
        listener.listen()
        host = theirs or ours
        with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as client:
            client.connect((host, listener.getsockname()[1]))
            accepted, _ = listener.accept()
            with accepted:
                yield client, accepted


@contextmanager
def as_stranger() -> Iterator[None]:
    """Make sockets as another user: the kernel notes the effective one (socket(2), credentials(7))."""
    os.seteuid(STRANGER)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("host", WAYS)
def test_our_own_user_is_found(host: str) -> None:
    with connected(host) as (_, accepted):
        assert peer_user.of_peer(accepted) == os.geteuid()
        assert peer_user.search_tables(peer_user._endpoints(accepted)) == os.geteuid()


def test_a_client_of_the_older_protocol_at_a_socket_of_both_is_found() -> None:
    with connected("::", "127.0.0.1") as (_, accepted):
        assert peer_user.of_peer(accepted) == os.geteuid()
        assert peer_user.search_tables(peer_user._endpoints(accepted)) == os.geteuid()


@AS_ROOT
@pytest.mark.parametrize("host", WAYS)
def test_another_user_is_found(host: str) -> None:
    with as_stranger(), connected(host) as (_, accepted):
        assert peer_user.of_peer(accepted) == STRANGER
        assert peer_user.search_tables(peer_user._endpoints(accepted)) == STRANGER


@AS_ROOT
def test_whose_end_is_ours_does_not_matter() -> None:
    with as_stranger():
        client = socket.socket()
    with closing(client), closing(socket.create_server(("127.0.0.1", 0))) as listener:
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            assert peer_user.of_peer(accepted) == STRANGER
            assert peer_user.of_peer(client) == 0


@AS_ROOT
def test_a_client_that_has_closed_its_end_is_nobody_and_not_root() -> None:
    """The kernel names root for a socket that belongs to no process any more; the queen may run as root."""
    with as_stranger(), connected("127.0.0.1") as (client, accepted):
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client.close()
        assert peer_user.of_peer(accepted) is None
        assert peer_user.search_tables(peer_user._endpoints(accepted)) is None


def test_a_client_that_has_closed_one_half_is_found_still() -> None:
    with connected("127.0.0.1") as (client, accepted):
        client.shutdown(socket.SHUT_WR)
        assert peer_user.of_peer(accepted) == os.geteuid()


def test_another_machines_end_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    class Far:
        def getpeername(self) -> tuple[str, int]:
            return "192.0.2.7", 40000

        def getsockname(self) -> tuple[str, int]:
            return "192.0.2.1", 8080

    monkeypatch.setattr(peer_user, "find", lambda _: pytest.fail("the kernel need not be asked"))
    assert peer_user.of_peer(Far()) is None


def test_the_tables_are_read_where_the_kernel_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise PermissionError

    with connected("127.0.0.1") as (_, accepted):
        ends = peer_user._endpoints(accepted)
        with monkeypatch.context() as patch:
            patch.setattr(peer_user.socket, "socket", refuse)
            assert peer_user.find(ends) == os.geteuid()
            assert peer_user.find(ends._replace(own=("127.0.0.1", 1))) is None


def test_it_costs_far_less_than_a_request() -> None:
    """0.06 ms on the machine on which it was written; a request costs 2 ms."""
    with connected("127.0.0.1") as (_, accepted):
        took = []
        for _ in range(50):
            began = time.perf_counter()
            peer_user.of_peer(accepted)
            took.append(time.perf_counter() - began)
    assert sorted(took)[len(took) // 2] < 1e-3


async def test_a_connection_is_looked_up_once(
    serve_app: Callable[[QuartTrio], Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = new_app("test", with_keys(lambda _: [], {"/who"}))
    asked = []
    find = peer_user.find
    monkeypatch.setattr(peer_user, "find", lambda ends: asked.append(ends) or find(ends))

    @app.get("/who")
    async def who() -> Response:
        return answer({"user": client_connection().peer_user})

    url = await serve_app(app)
    async with httpx.AsyncClient(base_url=url, **LOCAL) as client:
        for _ in range(3):
            assert (await client.get("/who")).json() == {"user": os.geteuid()}
    assert len(asked) == 1


@AS_ROOT
def test_a_port_that_another_users_program_forwards_is_that_users() -> None:
    """Its end of the connection is the program's own; who stands behind that, nobody can see."""
    relay = (
        "import os, socket, sys, time\n"
        f"os.setuid({STRANGER})\n"
        "there = socket.socket()\n"
        "there.connect(('127.0.0.1', int(sys.argv[1])))\n"
        "time.sleep(60)\n"
    )
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        child = subprocess.Popen([sys.executable, "-c", relay, str(port)])
        try:
            listener.settimeout(20)
            accepted, _ = listener.accept()
            with accepted:
                assert peer_user.of_peer(accepted) == STRANGER
        finally:
            child.kill()
            child.wait()
