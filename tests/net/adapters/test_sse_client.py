"""The client of event streams against servers that behave and servers that do not."""

from __future__ import annotations

import gc
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from quart import Response, request

from rbee.adapters.http import client as http_client
from rbee.adapters.http import sse_client, sse_server
from rbee.adapters.http.app import answer, body, new_app, streamed, with_keys
from rbee.adapters.logs import json_log
from rbee.concurrency.background import cancel_when
from rbee.errors import (
    AllSlotsBusyError,
    ConnectionTimeoutError,
    InternalError,
    RbeeError,
)
from rbee.wire.queen import TaskRequest
from tests.kit.scripted import NOBODY, STREAM, Number, Scripted, chunk, reply, serve_for_ever

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from quart_trio import QuartTrio

UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"


@pytest.fixture
def app() -> QuartTrio:
    return new_app("t", with_keys(lambda _: ["k"], set()))


async def collect(url: str, path: str = "/s", **how: Any) -> list[sse_client.Event]:
    async with http_client.connect(url, "k") as client, sse_client.events(client, "GET", path, **how) as events:
        return [event async for event in events]


async def test_a_stream_gives_its_events_without_the_last(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio, nursery: trio.Nursery
) -> None:
    seen: dict[str, str] = {}

    @app.post("/s")
    async def stream() -> Response:
        task = await body(TaskRequest)
        seen.update(request.headers)

        async def produce(send: sse_server.Send) -> None:
            await send.send(sse_server.event({"n": 1}))
            await send.send(sse_server.event(task.prompt, "worker"))

        return streamed(nursery, produce)

    url = await serve_app(app)
    json_log.correlate(UUID)
    async with (
        http_client.connect(url, "k") as client,
        sse_client.events(
            client, "POST", "/s", body=TaskRequest(prompt="a\u2028b\x85c"), headers={"X-A": "b"}
        ) as events,
    ):
        found = [event async for event in events]
    assert found == [sse_client.Event("message", '{"n":1}'), sse_client.Event("worker", '"a\u2028b\x85c"')]
    assert (seen["Accept"], seen["X-Correlation-Id"], seen["X-A"]) == ("text/event-stream", UUID, "b")


async def test_an_error_status_is_raised_before_the_block(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio
) -> None:
    @app.get("/s")
    async def stream() -> Response:
        raise AllSlotsBusyError("busy", slots_total=1, slots_busy=1)

    async with http_client.connect(await serve_app(app), "k") as client:
        with pytest.raises(AllSlotsBusyError) as caught:
            async with sse_client.events(client, "GET", "/s"):
                pytest.fail("entered")
    assert caught.value.details == {"slots_total": 1, "slots_busy": 1}


async def test_nobody_to_stream_from_is_raised_before_the_block() -> None:
    with pytest.raises(ConnectionTimeoutError) as caught:
        await collect(NOBODY)
    assert caught.value.details["attempts"] == ["connection refused"]


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 503 X\r\nContent-Length: 100\r\n\r\n{",
        b"",
        b"garbage\r\n\r\n",
    ],
)
async def test_an_answer_that_breaks_off_before_the_stream_is_an_error_of_ours(
    scripted: Callable[..., Awaitable[Scripted]], data: bytes
) -> None:
    server = await scripted(data)
    with pytest.raises(RbeeError):
        await collect(server.url)


@pytest.mark.parametrize(
    "data",
    [
        STREAM + chunk(b"data: 1\n\n"),
        STREAM + chunk(b"data: 1\n\n") + b"0\r\n\r\n",
        STREAM + chunk(b"data: 1\n\n") + b"zzz",
        STREAM + chunk(b"data: 1\n\ndata: [DONE]\n"),
    ],
)
async def test_a_stream_that_ends_early_is_lost(scripted: Callable[..., Awaitable[Scripted]], data: bytes) -> None:
    server = await scripted(data)
    found: list[sse_client.Event] = []

    async def read() -> None:
        async with http_client.connect(server.url, "k") as client, sse_client.events(client, "GET", "/s") as events:
            async for event in events:
                found.append(event)  # noqa: PERF401 (what came before the loss counts)

    with pytest.raises(sse_client.StreamLostError):
        await read()
    assert found == [sse_client.Event("message", "1")]


@pytest.mark.parametrize(
    "data",
    [
        reply(b'{"number":7}', extra="Content-Type: application/json\r\n"),
        reply(b"", extra="Content-Type: text/event-stream\r\n"),
        STREAM + chunk(b"\xff\xfe\xfd\n\n"),
    ],
)
async def test_an_answer_that_is_no_stream_is_lost(scripted: Callable[..., Awaitable[Scripted]], data: bytes) -> None:
    server = await scripted(data)
    with pytest.raises((sse_client.StreamLostError, RbeeError)):
        await collect(server.url)


# httpx leaves its generators half-way when it cannot unpack; without these lines that is a warning, and so an error.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_an_answer_that_cannot_be_unpacked_is_an_error_of_ours(
    scripted: Callable[..., Awaitable[Scripted]],
) -> None:
    packed = "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
    server = await scripted(*(reply(b"not gzip", status, packed) for status in ("200 X", "200 X", "503 X")))
    async with http_client.connect(server.url, "k") as client:
        with pytest.raises(InternalError):
            await http_client.call(client, "GET", "/x", Number, delays=(0, 0))
    with pytest.raises(sse_client.StreamLostError):
        await collect(server.url)
    with pytest.raises(InternalError):
        await collect(server.url)
    assert b"Accept-Encoding: identity" in server.requests[0]
    gc.collect()


async def test_a_host_that_does_not_exist_is_said_so() -> None:
    async with http_client.connect("http://nowhere.invalid:1", "k") as client:
        with pytest.raises(ConnectionTimeoutError) as caught:
            await http_client.call(client, "GET", "/x", bytes)
    assert caught.value.details["attempts"] == ["attempt 1: the host's name is not known"]


@pytest.mark.parametrize(
    "url",
    ["http://::1:9200", "http://" + "x" * 300, "http://a..b:80", "http://\u2028x:1", "http://a:99999", "http://["],
)
async def test_an_address_that_is_none_is_nobody_there(url: str) -> None:
    with pytest.raises(ConnectionTimeoutError):
        async with http_client.connect(url, None) as client:
            await http_client.call(client, "GET", "/", bytes)
    with pytest.raises(ConnectionTimeoutError):
        async with http_client.connect(url, None) as client, sse_client.events(client, "GET", "/"):
            pass


async def test_comments_and_odd_line_ends_are_understood(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    data = b": heartbeat\n\ndata: a\r\n\r\n: x\n\nevent: n\ndata: b\ndata: c\n\ndata: [DONE]\n\n"
    server = await scripted(STREAM + b"".join(chunk(data[at : at + 3]) for at in range(0, len(data), 3)) + b"0\r\n\r\n")
    assert await collect(server.url) == [sse_client.Event("message", "a"), sse_client.Event("n", "b\nc")]


async def test_a_stream_is_closed_when_the_block_is_left(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio, nursery: trio.Nursery
) -> None:
    ended = [trio.Event() for _ in range(3)]

    @app.get("/s/<int:number>")
    async def stream(number: int) -> Response:
        async def produce(send: sse_server.Send) -> None:
            try:
                while True:
                    await send.send(sse_server.event("x" * 100))
            finally:
                ended[number].set()

        return streamed(nursery, produce)

    url = await serve_app(app)
    async with http_client.connect(url, "k") as client:
        async with sse_client.events(client, "GET", "/s/0") as events:
            await anext(events)
        with suppress(KeyError):
            async with sse_client.events(client, "GET", "/s/1") as events:
                await anext(events)
                raise KeyError
        with trio.CancelScope() as scope:
            async with sse_client.events(client, "GET", "/s/2") as events:
                await anext(events)
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        with trio.fail_after(10):
            for event in ended:
                await event.wait()
    gc.collect()  # an abandoned generator would warn, and a warning is an error


async def test_a_stream_that_is_left_after_its_end_leaves_nothing(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio, nursery: trio.Nursery
) -> None:
    @app.get("/s")
    async def stream() -> Response:
        async def produce(send: sse_server.Send) -> None:
            await send.send(sse_server.event(1))

        return streamed(nursery, produce)

    url = await serve_app(app)
    async with http_client.connect(url, "k") as client:
        for _ in range(3):
            async with sse_client.events(client, "GET", "/s") as events:
                assert [event.data async for event in events] == ["1"]
            gc.collect()


async def test_an_error_in_the_block_comes_out_as_it_is(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio, nursery: trio.Nursery
) -> None:
    @app.get("/s")
    async def stream() -> Response:
        return streamed(nursery, lambda send: send.send(sse_server.event(1)))

    async with http_client.connect(await serve_app(app), "k") as client:
        for kind in (InternalError, ZeroDivisionError, sse_client.StreamLostError):
            with pytest.raises(kind) as caught:
                async with sse_client.events(client, "GET", "/s"):
                    raise kind("x")
            assert type(caught.value) is kind


async def test_a_reader_that_waits_does_not_lose_events(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio, nursery: trio.Nursery
) -> None:
    @app.get("/s")
    async def stream() -> Response:
        async def produce(send: sse_server.Send) -> None:
            for number in range(5000):
                await send.send(sse_server.event(number))

        return streamed(nursery, produce)

    async with (
        http_client.connect(await serve_app(app), "k") as client,
        sse_client.events(client, "GET", "/s") as events,
    ):
        await trio.sleep(0.05)
        assert [int(event.data) async for event in events] == list(range(5000))


async def test_a_reader_that_takes_nothing_for_long_does_not_lose_its_stream(
    serve_app: Callable[[QuartTrio], Awaitable[str]],
    app: QuartTrio,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With every buffer on the way full, for longer than after which a peer that is silent is given up."""
    sent = 0

    @app.get("/s")
    async def stream() -> Response:
        async def produce(send: sse_server.Send) -> None:
            nonlocal sent
            for number in range(4000):
                await send.send(sse_server.event(f"{number} {'x' * 10_000}"))
                sent += 1

        return streamed(nursery, produce)

    monkeypatch.setattr(
        http_client, "DEAD_PEER", (*http_client.DEAD_PEER[:-1], (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500))
    )
    async with (
        http_client.connect(await serve_app(app), "k") as client,
        sse_client.events(client, "GET", "/s") as events,
    ):
        await trio.sleep(2)
        assert sent < 4000
        assert len([event async for event in events]) == 4000


async def test_opening_a_stream_can_be_cancelled(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio
) -> None:
    begun, ended = trio.Event(), trio.Event()

    @app.get("/s")
    async def stream() -> Response:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        return answer({})

    async with http_client.connect(await serve_app(app), "k") as client:
        async with cancel_when(begun), sse_client.events(client, "GET", "/s"):
            pytest.fail("entered")
        with trio.fail_after(10):
            await ended.wait()


@pytest.mark.parametrize("part", [b"x" * 65536, b"data: " + b"x" * 65000 + b"\n"], ids=["one line", "lines"])
async def test_an_event_without_end_is_given_up(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    monkeypatch.setattr(sse_client, "MAX_ANSWER_BYTES", 1_000_000)
    beginning = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\ndata: "
    url = await serve_for_ever(nursery, beginning, part, 0)
    with trio.fail_after(10):
        async with http_client.connect(url, "k") as client, sse_client.events(client, "GET", "/x") as events:
            assert await anext(events) == sse_client.Event("message", "1")
            with pytest.raises(sse_client.StreamLostError, match="too large"):
                await anext(events)


async def test_a_stream_may_be_longer_than_one_event(
    scripted: Callable[..., Awaitable[Scripted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse_client, "MAX_ANSWER_BYTES", 200_000)
    parts = b"".join(chunk(b"data: " + b"x" * 1000 + b"\n\n") for _ in range(1000))
    server = await scripted(STREAM + parts + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    assert len(await collect(server.url)) == 1000


def test_an_event_that_carries_an_error_raises_it() -> None:
    with pytest.raises(AllSlotsBusyError, match="m"):
        sse_client.decode_event('{"error":{"code":"ALL_SLOTS_BUSY","message":"m"}}', Number)
    with pytest.raises(InternalError):
        sse_client.decode_event('{"error":1}', Number)
    with pytest.raises(InternalError):
        sse_client.decode_event("x", Number)
    assert sse_client.decode_event('{"number":1}', Number) == Number(1)
