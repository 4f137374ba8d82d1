"""The HTTP client against servers that behave and servers that do not."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from rbee.adapters.http import client as http_client
from rbee.adapters.http import sse_client
from rbee.adapters.http.app import answer, new_app, with_keys
from rbee.adapters.logs import json_log
from rbee.errors import (
    ConnectionTimeoutError,
    InternalError,
    NodeNotFoundError,
    RbeeError,
)
from tests.kit.scripted import NOBODY, Number, Scripted, reply, serve_for_ever

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from quart import Response
    from quart_trio import QuartTrio

UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"


def test_nothing_of_the_machines_proxies_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    client = http_client.connect(NOBODY, "k")
    assert client.trust_env is False
    assert client._mounts == {}


# Calls.


async def test_a_call_is_answered(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(reply(b'{"number":7,"from":"the future"}'))
    json_log.correlate(UUID)
    async with http_client.connect(server.url, "the key") as client:
        got = await http_client.call(client, "POST", "/x", Number, body=Number(3), params={"node": "a b"})
    assert got == Number(7)
    head, content = server.requests[0].split(b"\r\n\r\n")
    assert head.startswith((b"POST /x?node=a+b HTTP/1.1", b"POST /x?node=a%20b HTTP/1.1"))
    assert b"Authorization: Bearer the key" in head
    assert f"X-Correlation-Id: {UUID}".encode() in head
    assert content == b'{"number":3}'


async def test_without_a_key_there_is_no_header(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(reply(b"x"))
    async with http_client.connect(server.url, None) as client:
        assert await http_client.call(client, "GET", "/x", bytes) == b"x"
    assert b"Authorization" not in server.requests[0]


async def test_nobody_there_is_an_error_with_each_attempt() -> None:
    async with http_client.connect(NOBODY, "k") as client:
        with pytest.raises(ConnectionTimeoutError) as caught:
            await http_client.call(client, "GET", "/x", bytes, delays=(0, 0.01, 0.02))
    assert caught.value.message == "127.0.0.1:9 does not answer"
    assert caught.value.details["attempts"] == [f"attempt {number}: connection refused" for number in (1, 2, 3)]


async def test_a_lost_connection_is_tried_again(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", reply(b'{"number":7}'))
    async with http_client.connect(server.url, "k") as client:
        assert await http_client.call(client, "GET", "/x", Number, delays=(0, 0, 0)) == Number(7)
    assert len(server.requests) == 3


async def test_a_call_that_is_not_safe_to_repeat_is_made_once(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(b"", reply(b'{"number":7}'))
    async with http_client.connect(server.url, "k") as client:
        with pytest.raises(ConnectionTimeoutError):
            await http_client.call(client, "POST", "/x", Number)
    assert len(server.requests) == 1


async def test_silence_is_a_timeout(nursery: trio.Nursery) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        async with http_client.connect(f"http://127.0.0.1:{port}", "k", timeout=0.05) as client:
            with pytest.raises(ConnectionTimeoutError) as caught:
                await http_client.call(client, "GET", "/x", bytes, delays=(0, 0))
    assert caught.value.details["attempts"] == ["attempt 1: timeout", "attempt 2: timeout"]


async def test_a_pause_lies_before_each_further_attempt(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    seen: list[float] = []

    async def refuse(incoming: httpx.Request) -> httpx.Response:
        seen.append(trio.current_time())
        raise httpx.ConnectError("refused")

    start = trio.current_time()
    async with httpx.AsyncClient(base_url=NOBODY, transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(ConnectionTimeoutError):
            await http_client.call(client, "GET", "/x", bytes, delays=http_client.SHORT_CALL_DELAYS)
    assert [round(moment - start, 6) for moment in seen] == [0, 0.1, 0.3]


@pytest.mark.parametrize("status", ["400 X", "404 X", "500 X", "503 X"])
async def test_an_error_that_was_answered_is_not_tried_again(
    scripted: Callable[..., Awaitable[Scripted]], status: str
) -> None:
    content = b'{"error":{"code":"NODE_NOT_FOUND","message":"m","details":{"node":"n"},"correlation_id":"c"}}'
    server = await scripted(reply(content, status), reply(b'{"number":7}'))
    async with http_client.connect(server.url, "k") as client:
        with pytest.raises(NodeNotFoundError) as caught:
            await http_client.call(client, "GET", "/x", Number, delays=(0, 0, 0))
    assert (caught.value.message, caught.value.details, caught.value.correlation_id) == ("m", {"node": "n"}, "c")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "content", [b"", b"x", b"null", b"\xff", b"[" * 100_000, b'{"error":1}', b'{"error":{"code":1}}']
)
async def test_an_error_without_an_error_object_is_still_one(
    scripted: Callable[..., Awaitable[Scripted]], content: bytes
) -> None:
    server = await scripted(reply(content, "502 Bad Gateway"))
    async with http_client.connect(server.url, "k") as client:
        with pytest.raises(InternalError, match="HTTP status 502") as caught:
            await http_client.call(client, "GET", "/x", Number)
    assert caught.value.details == {"status": 502}


@pytest.mark.parametrize(
    "content", [b"", b"x", b"null", b"\xff", b'"\xff"', b"[" * 100_000, b"{}", b'{"number":"7"}', b'{"number":NaN}']
)
async def test_a_nonsense_answer_is_an_error_of_ours(
    scripted: Callable[..., Awaitable[Scripted]], content: bytes
) -> None:
    server = await scripted(reply(content))
    async with http_client.connect(server.url, "k") as client:
        with pytest.raises(InternalError):
            await http_client.call(client, "GET", "/x", Number)


@pytest.mark.parametrize(
    "data",
    [
        reply(b"", "301 Moved", "Location: /elsewhere\r\n"),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_an_error_of_ours(scripted: Callable[..., Awaitable[Scripted]], data: bytes) -> None:
    server = await scripted(data)
    async with http_client.connect(server.url, "k") as client:
        with pytest.raises(RbeeError):
            await http_client.call(client, "GET", "/x", Number)


@pytest.mark.parametrize(
    ("beginning", "part", "pause"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536, 0),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", b"x" * 65536, 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" ", 0.05),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000000\r\n\r\n", b" ", 0.05),
        (b"HTTP/1.1 200 OK\r\n", b"X-Y: z\r\n", 0.05),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
    ],
    ids=["gigabytes", "gigabytes of an error", "drops", "drops of an error", "drops of headers", "hints of an answer"],
)
async def test_an_answer_without_end_is_given_up(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, beginning: bytes, part: bytes, pause: float
) -> None:
    monkeypatch.setattr(http_client, "MAX_ANSWER_BYTES", 1_000_000)
    monkeypatch.setattr(sse_client, "STREAM_SILENCE", 1.0)
    url = await serve_for_ever(nursery, beginning, part, pause)
    with trio.fail_after(10):
        async with http_client.connect(url, "k", timeout=0.5) as client:
            with pytest.raises((InternalError, ConnectionTimeoutError)):
                await http_client.call(client, "GET", "/x", Number)
            if b" 404 " in beginning:
                with pytest.raises(InternalError):
                    async with sse_client.events(client, "GET", "/x"):
                        pass


async def test_a_client_is_usable_after_a_call_was_cancelled(serve_app: Callable[[QuartTrio], Awaitable[str]]) -> None:
    app = new_app("t", with_keys(lambda _: [], {"/slow", "/quick"}))
    ended = trio.Event()

    @app.get("/slow")
    async def slow() -> Response:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        return answer({})

    @app.get("/quick")
    async def quick() -> Response:
        return answer(Number(1))

    async with http_client.connect(await serve_app(app), "k") as client:
        with trio.move_on_after(0.05) as scope:
            await http_client.call(client, "GET", "/slow", Number)
        assert scope.cancelled_caught
        with trio.fail_after(10):
            await ended.wait()
        assert await http_client.call(client, "GET", "/quick", Number) == Number(1)


async def test_a_call_that_is_cut_while_its_body_is_sent_leaves_nothing_to_the_collector() -> None:
    """Trio warns of an async generator that nobody closes, and the tests take a warning for an error."""
    host, port = "127.0.0.1", 0
    listener = (await trio.open_tcp_listeners(port, host=host))[0]  # the kernel takes so much, and nobody reads
    url = "http://{}:{}".format(*listener.socket.getsockname()[:2])
    async with listener, http_client.connect(url, "k") as client:
        with trio.move_on_after(0.2) as scope:
            async with http_client.send(client, "POST", "/x", bytes(64 * 1024 * 1024), {}):
                pass
        assert scope.cancelled_caught
    gc.collect()
