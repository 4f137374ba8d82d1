"""The proxy of the tests makes the faults that it is told to."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.kit.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.proxy import What


class Pair:
    """Both ends of a connection that goes through a proxy."""

    def __init__(self, proxy: Proxy, server: socket.socket) -> None:
        self.near = socket.create_connection((proxy.host, proxy.port), timeout=5)
        self.far = server.accept()[0]
        self.far.settimeout(5)

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        yield server


@pytest.fixture
def proxy(server: socket.socket) -> Iterator[Proxy]:
    with Proxy(server.getsockname()) as proxy:
        yield proxy


@pytest.fixture
def pair(proxy: Proxy, server: socket.socket) -> Iterator[Pair]:
    pair = Pair(proxy, server)
    yield pair
    pair.close()


def test_it_passes_on_both_ways_and_half_closes(pair: Pair) -> None:
    pair.near.sendall(b"ask")
    pair.near.shutdown(socket.SHUT_WR)
    assert pair.far.makefile("rb").read() == b"ask"
    pair.far.sendall(b"answer")
    pair.far.close()
    assert pair.near.makefile("rb").read() == b"answer"


def test_a_cut_ends_after_the_bytes_that_were_said(proxy: Proxy, pair: Pair) -> None:
    proxy.order("cut", after=4)
    pair.near.sendall(b"123456")
    assert pair.far.recv(10) == b"1234"
    assert pair.far.recv(10) == b""
    assert proxy.happened.is_set()


def test_a_reset_is_no_orderly_end(proxy: Proxy, pair: Pair) -> None:
    proxy.order("reset")
    with pytest.raises(ConnectionResetError):
        pair.near.recv(10)
    with pytest.raises(ConnectionResetError):
        pair.far.recv(10)


def test_a_black_hole_takes_everything_and_answers_nothing(proxy: Proxy, pair: Pair, server: socket.socket) -> None:
    proxy.order("black hole")
    pair.near.sendall(b"x" * 1_000_000)
    later = Pair(proxy, server)
    later.near.sendall(b"hello")
    pair.near.settimeout(0.2)
    later.near.settimeout(0.2)
    for end in (pair.near, later.near):
        with pytest.raises(TimeoutError):
            end.recv(10)
    later.close()


def test_a_fault_that_is_taken_back_is_none_for_the_next(proxy: Proxy, pair: Pair, server: socket.socket) -> None:
    proxy.order("cut")
    assert pair.near.recv(10) == b""
    proxy.order(None)
    later = Pair(proxy, server)
    later.near.sendall(b"hello")
    assert later.far.recv(10) == b"hello"
    later.close()


@pytest.mark.parametrize("what", ["requests", "answers"])
def test_what_is_held_comes_once_it_is_released(proxy: Proxy, pair: Pair, what: What) -> None:
    giver, taker = (pair.near, pair.far) if what == "requests" else (pair.far, pair.near)
    proxy.hold(what, after=5)
    giver.sendall(b"12345")
    assert taker.recv(10) == b"12345"
    giver.sendall(b"678")
    taker.sendall(b"the other way")
    assert giver.recv(20) == b"the other way"
    taker.settimeout(0.2)
    with pytest.raises(TimeoutError):
        taker.recv(10)
    taker.settimeout(5)
    proxy.release()
    assert taker.recv(10) == b"678"


def test_what_is_held_does_not_come_after_a_cut(proxy: Proxy, pair: Pair) -> None:
    proxy.hold("answers", after=0)
    pair.far.sendall(b"123")
    proxy.order("cut")
    assert pair.near.recv(10) == b""


def test_a_delay_delays(proxy: Proxy, pair: Pair) -> None:
    proxy.delay = 0.1
    started = time.monotonic()
    pair.near.sendall(b"hello")
    assert pair.far.recv(10) == b"hello"
    assert time.monotonic() - started >= 0.1
