"""The HTTP client against servers that behave and servers that do not."""

from __future__ import annotations

import gc
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing
from quart import Response, request

from rbee.adapters import http, logs, sse
from rbee.adapters.app import answer, body, new_app, streamed
from rbee.clients import worker_control
from rbee.clients.hive import HiveClient
from rbee.errors import (
    AllSlotsBusyError,
    ConnectionTimeoutError,
    InternalError,
    NodeNotFoundError,
    RbeeError,
    SpawnFailedError,
)
from rbee.wire.common import Health, Narration
from rbee.wire.hive import SpawnReply, SpawnRequest
from rbee.wire.queen import TaskRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from quart_trio import QuartTrio

UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NOBODY = "http://127.0.0.1:9"
Script = list[bytes]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Scripted:
    """A server that answers each connection with the next of its scripts, and hangs up."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.url = ""

    async def handle(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            self.requests.append(await self.receive(stream))
            await stream.send_all(self.answers.pop(0) if self.answers else b"")
            await stream.aclose()

    async def receive(self, stream: trio.SocketStream) -> bytes:
        """Return one request, with its body."""
        received = b""
        while chunk := await stream.receive_some():
            received += chunk
            head, end, content = received.partition(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            if end and len(content) >= (int(length[1]) if length else 0):
                break
        return received

    async def run(self, nursery: trio.Nursery) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, self.handle, [listener])
        self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"


@pytest.fixture
async def scripted(nursery: trio.Nursery) -> Callable[..., Awaitable[Scripted]]:
    """Give a function that starts a server with scripts."""

    async def start(*answers: bytes) -> Scripted:
        server = Scripted(*answers)
        await server.run(nursery)
        return server

    return start


def reply(content: bytes, status: str = "200 OK", extra: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{extra}Connection: close\r\n\r\n".encode() + content


class Number(msgspec.Struct):
    number: int


def test_nothing_of_the_machines_proxies_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    client = http.connect(NOBODY, "k")
    assert client.trust_env is False
    assert client._mounts == {}


# Calls.


async def test_a_call_is_answered(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(reply(b'{"number":7,"from":"the future"}'))
    logs.correlate(UUID)
    async with http.connect(server.url, "the key") as client:
        got = await http.call(client, "POST", "/x", Number, body=Number(3), params={"node": "a b"})
    assert got == Number(7)
    head, content = server.requests[0].split(b"\r\n\r\n")
    assert head.startswith((b"POST /x?node=a+b HTTP/1.1", b"POST /x?node=a%20b HTTP/1.1"))
    assert b"Authorization: Bearer the key" in head
    assert f"X-Correlation-Id: {UUID}".encode() in head
    assert content == b'{"number":3}'


async def test_without_a_key_there_is_no_header(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(reply(b"x"))
    async with http.connect(server.url, None) as client:
        assert await http.call(client, "GET", "/x", bytes) == b"x"
    assert b"Authorization" not in server.requests[0]


async def test_nobody_there_is_an_error_with_each_attempt() -> None:
    async with http.connect(NOBODY, "k") as client:
        with pytest.raises(ConnectionTimeoutError) as caught:
            await http.call(client, "GET", "/x", bytes, delays=(0, 0.01, 0.02))
    assert caught.value.message == "127.0.0.1:9 does not answer"
    assert caught.value.details["attempts"] == [f"attempt {number}: connection refused" for number in (1, 2, 3)]


async def test_a_lost_connection_is_tried_again(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", reply(b'{"number":7}'))
    async with http.connect(server.url, "k") as client:
        assert await http.call(client, "GET", "/x", Number, delays=(0, 0, 0)) == Number(7)
    assert len(server.requests) == 3


async def test_a_call_that_is_not_safe_to_repeat_is_made_once(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(b"", reply(b'{"number":7}'))
    async with http.connect(server.url, "k") as client:
        with pytest.raises(ConnectionTimeoutError):
            await http.call(client, "POST", "/x", Number)
    assert len(server.requests) == 1


async def test_silence_is_a_timeout(nursery: trio.Nursery) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        async with http.connect(f"http://127.0.0.1:{port}", "k", timeout=0.05) as client:
            with pytest.raises(ConnectionTimeoutError) as caught:
                await http.call(client, "GET", "/x", bytes, delays=(0, 0))
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
            await http.call(client, "GET", "/x", bytes, delays=http.SHORT_CALL_DELAYS)
    assert [round(moment - start, 6) for moment in seen] == [0, 0.1, 0.3]


@pytest.mark.parametrize("status", ["400 X", "404 X", "500 X", "503 X"])
async def test_an_error_that_was_answered_is_not_tried_again(
    scripted: Callable[..., Awaitable[Scripted]], status: str
) -> None:
    content = b'{"error":{"code":"NODE_NOT_FOUND","message":"m","details":{"node":"n"},"correlation_id":"c"}}'
    server = await scripted(reply(content, status), reply(b'{"number":7}'))
    async with http.connect(server.url, "k") as client:
        with pytest.raises(NodeNotFoundError) as caught:
            await http.call(client, "GET", "/x", Number, delays=(0, 0, 0))
    assert (caught.value.message, caught.value.details, caught.value.correlation_id) == ("m", {"node": "n"}, "c")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "content", [b"", b"x", b"null", b"\xff", b"[" * 100_000, b'{"error":1}', b'{"error":{"code":1}}']
)
async def test_an_error_without_an_error_object_is_still_one(
    scripted: Callable[..., Awaitable[Scripted]], content: bytes
) -> None:
    server = await scripted(reply(content, "502 Bad Gateway"))
    async with http.connect(server.url, "k") as client:
        with pytest.raises(InternalError, match="HTTP status 502") as caught:
            await http.call(client, "GET", "/x", Number)
    assert caught.value.details == {"status": 502}


@pytest.mark.parametrize(
    "content", [b"", b"x", b"null", b"\xff", b'"\xff"', b"[" * 100_000, b"{}", b'{"number":"7"}', b'{"number":NaN}']
)
async def test_a_nonsense_answer_is_an_error_of_ours(
    scripted: Callable[..., Awaitable[Scripted]], content: bytes
) -> None:
    server = await scripted(reply(content))
    async with http.connect(server.url, "k") as client:
        with pytest.raises(InternalError):
            await http.call(client, "GET", "/x", Number)


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
    async with http.connect(server.url, "k") as client:
        with pytest.raises(RbeeError):
            await http.call(client, "GET", "/x", Number)


async def answer_for_ever(stream: trio.SocketStream, beginning: bytes, part: bytes, pause: float) -> None:
    """Send the beginning of an answer, and then parts of it until nobody listens."""
    with suppress(trio.BrokenResourceError):
        await stream.receive_some()
        await stream.send_all(beginning)
        while True:
            await stream.send_all(part)
            await trio.sleep(pause)


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
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1_000_000)
    monkeypatch.setattr(http, "STREAM_SILENCE", 1.0)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, lambda stream: answer_for_ever(stream, beginning, part, pause), [listener])
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    with trio.fail_after(10):
        async with http.connect(url, "k", timeout=0.5) as client:
            with pytest.raises((InternalError, ConnectionTimeoutError)):
                await http.call(client, "GET", "/x", Number)
            if b" 404 " in beginning:
                with pytest.raises(InternalError):
                    async with http.events(client, "GET", "/x"):
                        pass


async def test_a_client_is_usable_after_a_call_was_cancelled(serve_app: Callable[[QuartTrio], Awaitable[str]]) -> None:
    app = new_app("t", lambda _: [], {"/slow", "/quick"})
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

    async with http.connect(await serve_app(app), "k") as client:
        with trio.move_on_after(0.05) as scope:
            await http.call(client, "GET", "/slow", Number)
        assert scope.cancelled_caught
        with trio.fail_after(10):
            await ended.wait()
        assert await http.call(client, "GET", "/quick", Number) == Number(1)


# Streams.


@pytest.fixture
def app() -> QuartTrio:
    return new_app("t", lambda _: ["k"], set())


async def collect(url: str, path: str = "/s", **how: Any) -> list[http.Event]:
    async with http.connect(url, "k") as client, http.events(client, "GET", path, **how) as events:
        return [event async for event in events]


async def test_a_stream_gives_its_events_without_the_last(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio, nursery: trio.Nursery
) -> None:
    seen: dict[str, str] = {}

    @app.post("/s")
    async def stream() -> Response:
        task = await body(TaskRequest)
        seen.update(request.headers)

        async def produce(send: sse.Send) -> None:
            await send.send(sse.event({"n": 1}))
            await send.send(sse.event(task.prompt, "worker"))

        return streamed(nursery, produce)

    url = await serve_app(app)
    logs.correlate(UUID)
    async with (
        http.connect(url, "k") as client,
        http.events(client, "POST", "/s", body=TaskRequest(prompt="a\u2028b\x85c"), headers={"X-A": "b"}) as events,
    ):
        found = [event async for event in events]
    assert found == [http.Event("message", '{"n":1}'), http.Event("worker", '"a\u2028b\x85c"')]
    assert (seen["Accept"], seen["X-Correlation-Id"], seen["X-A"]) == ("text/event-stream", UUID, "b")


async def test_an_error_status_is_raised_before_the_block(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio
) -> None:
    @app.get("/s")
    async def stream() -> Response:
        raise AllSlotsBusyError("busy", slots_total=1, slots_busy=1)

    async with http.connect(await serve_app(app), "k") as client:
        with pytest.raises(AllSlotsBusyError) as caught:
            async with http.events(client, "GET", "/s"):
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
    found: list[http.Event] = []

    async def read() -> None:
        async with http.connect(server.url, "k") as client, http.events(client, "GET", "/s") as events:
            async for event in events:
                found.append(event)  # noqa: PERF401 (what came before the loss counts)

    with pytest.raises(http.StreamLostError):
        await read()
    assert found == [http.Event("message", "1")]


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
    with pytest.raises((http.StreamLostError, RbeeError)):
        await collect(server.url)


# httpx leaves its generators half-way when it cannot unpack; without these lines that is a warning, and so an error.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_an_answer_that_cannot_be_unpacked_is_an_error_of_ours(
    scripted: Callable[..., Awaitable[Scripted]],
) -> None:
    packed = "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
    server = await scripted(*(reply(b"not gzip", status, packed) for status in ("200 X", "200 X", "503 X")))
    async with http.connect(server.url, "k") as client:
        with pytest.raises(InternalError):
            await http.call(client, "GET", "/x", Number, delays=(0, 0))
    with pytest.raises(http.StreamLostError):
        await collect(server.url)
    with pytest.raises(InternalError):
        await collect(server.url)
    assert b"Accept-Encoding: identity" in server.requests[0]
    gc.collect()


async def test_a_host_that_does_not_exist_is_said_so() -> None:
    async with http.connect("http://nowhere.invalid:1", "k") as client:
        with pytest.raises(ConnectionTimeoutError) as caught:
            await http.call(client, "GET", "/x", bytes)
    assert caught.value.details["attempts"] == ["attempt 1: the host's name is not known"]


@pytest.mark.parametrize(
    "url",
    ["http://::1:9200", "http://" + "x" * 300, "http://a..b:80", "http://\u2028x:1", "http://a:99999", "http://["],
)
async def test_an_address_that_is_none_is_nobody_there(url: str) -> None:
    with pytest.raises(ConnectionTimeoutError):
        async with http.connect(url, None) as client:
            await http.call(client, "GET", "/", bytes)
    with pytest.raises(ConnectionTimeoutError):
        async with http.connect(url, None) as client, http.events(client, "GET", "/"):
            pass


async def test_comments_and_odd_line_ends_are_understood(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    data = b": heartbeat\n\ndata: a\r\n\r\n: x\n\nevent: n\ndata: b\ndata: c\n\ndata: [DONE]\n\n"
    server = await scripted(STREAM + b"".join(chunk(data[at : at + 3]) for at in range(0, len(data), 3)) + b"0\r\n\r\n")
    assert await collect(server.url) == [http.Event("message", "a"), http.Event("n", "b\nc")]


async def test_a_stream_is_closed_when_the_block_is_left(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio, nursery: trio.Nursery
) -> None:
    ended = [trio.Event() for _ in range(3)]

    @app.get("/s/<int:number>")
    async def stream(number: int) -> Response:
        async def produce(send: sse.Send) -> None:
            try:
                while True:
                    await send.send(sse.event("x" * 100))
            finally:
                ended[number].set()

        return streamed(nursery, produce)

    url = await serve_app(app)
    async with http.connect(url, "k") as client:
        async with http.events(client, "GET", "/s/0") as events:
            await anext(events)
        with suppress(KeyError):
            async with http.events(client, "GET", "/s/1") as events:
                await anext(events)
                raise KeyError
        with trio.CancelScope() as scope:
            async with http.events(client, "GET", "/s/2") as events:
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
        async def produce(send: sse.Send) -> None:
            await send.send(sse.event(1))

        return streamed(nursery, produce)

    url = await serve_app(app)
    async with http.connect(url, "k") as client:
        for _ in range(3):
            async with http.events(client, "GET", "/s") as events:
                assert [event.data async for event in events] == ["1"]
            gc.collect()


async def test_an_error_in_the_block_comes_out_as_it_is(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio, nursery: trio.Nursery
) -> None:
    @app.get("/s")
    async def stream() -> Response:
        return streamed(nursery, lambda send: send.send(sse.event(1)))

    async with http.connect(await serve_app(app), "k") as client:
        for kind in (InternalError, ZeroDivisionError, http.StreamLostError):
            with pytest.raises(kind) as caught:
                async with http.events(client, "GET", "/s"):
                    raise kind("x")
            assert type(caught.value) is kind


async def test_a_reader_that_waits_does_not_lose_events(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio, nursery: trio.Nursery
) -> None:
    @app.get("/s")
    async def stream() -> Response:
        async def produce(send: sse.Send) -> None:
            for number in range(5000):
                await send.send(sse.event(number))

        return streamed(nursery, produce)

    async with http.connect(await serve_app(app), "k") as client, http.events(client, "GET", "/s") as events:
        await trio.sleep(0.05)
        assert [int(event.data) async for event in events] == list(range(5000))


async def test_opening_a_stream_can_be_cancelled(
    serve_app: Callable[[QuartTrio], Awaitable[str]], app: QuartTrio
) -> None:
    ended = trio.Event()

    @app.get("/s")
    async def stream() -> Response:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        return answer({})

    async with http.connect(await serve_app(app), "k") as client:
        with trio.move_on_after(0.05):
            async with http.events(client, "GET", "/s"):
                pytest.fail("entered")
        with trio.fail_after(10):
            await ended.wait()


def test_an_event_that_carries_an_error_raises_it() -> None:
    with pytest.raises(AllSlotsBusyError, match="m"):
        http.decode_event('{"error":{"code":"ALL_SLOTS_BUSY","message":"m"}}', Number)
    with pytest.raises(InternalError):
        http.decode_event('{"error":1}', Number)
    with pytest.raises(InternalError):
        http.decode_event("x", Number)
    assert http.decode_event('{"number":1}', Number) == Number(1)


# The clients of hive and worker.

NARRATION = b'event: narration\ndata: {"actor":"rbee-hive","action":"a","target":"t","human":"h"}\n\n'
WORKER = b'event: worker\ndata: {"worker_id":"w","url":"http://x","state":"loading","api_key":"k"}\n\n'


async def spawn(url: str) -> tuple[SpawnReply, list[Narration]]:
    told: list[Narration] = []
    async with HiveClient(url, "k") as client:
        return await client.spawn(SpawnRequest(model_ref="m"), told.append), told


async def test_a_hive_tells_while_it_starts_a_worker(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(STREAM + chunk(NARRATION + WORKER + b"data: [DONE]\n\n") + b"0\r\n\r\n")
    reply_, told = await spawn(server.url)
    assert reply_ == SpawnReply(worker_id="w", url="http://x", state="loading", api_key="k")
    assert [narration.human for narration in told] == ["h"]


async def test_a_hives_error_is_raised(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    error = b'data: {"error":{"code":"SPAWN_FAILED","message":"m"}}\n\ndata: [DONE]\n\n'
    server = await scripted(STREAM + chunk(NARRATION + error) + b"0\r\n\r\n")
    with pytest.raises(SpawnFailedError, match="m"):
        await spawn(server.url)


@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n", chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n", chunk(b"data: x\n\n")])
async def test_a_hive_that_dies_while_it_starts_a_worker_is_an_error_of_ours(
    scripted: Callable[..., Awaitable[Scripted]], end: bytes
) -> None:
    server = await scripted(STREAM + chunk(NARRATION) + end)
    with pytest.raises(RbeeError):
        await spawn(server.url)


async def test_a_hives_health_is_asked_again_only_where_that_is_wanted(
    scripted: Callable[..., Awaitable[Scripted]],
) -> None:
    good = reply(b'{"status":"alive","version":"1","api_version":"v1"}')
    server = await scripted(b"", b"", good, b"", good)
    async with HiveClient(server.url, "k") as client:
        assert await client.health() == Health(status="alive", version="1", api_version="v1")
        with pytest.raises(ConnectionTimeoutError):
            await client.health(patient=False)


async def test_a_workers_states_are_passed_on_until_its_stream_ends(
    scripted: Callable[..., Awaitable[Scripted]],
) -> None:
    data = b"".join(
        b'data: {"state":"%s","slots_total":2,"slots_available":1}\n\n' % state for state in (b"idle", b"busy")
    )
    server = await scripted(STREAM + chunk(data + b"data: [DONE]\n\n") + b"0\r\n\r\n", STREAM + chunk(data))
    states: list[str] = []
    await worker_control.follow(server.url, "k", lambda status: states.append(status.state))
    assert states == ["idle", "busy"]
    with pytest.raises(http.StreamLostError):
        await worker_control.follow(server.url, "k", lambda status: states.append(status.state))


async def test_a_worker_is_told_to_end_once(scripted: Callable[..., Awaitable[Scripted]]) -> None:
    server = await scripted(b"HTTP/1.1 202 X\r\nContent-Length: 0\r\n\r\n")
    await worker_control.shut_down(server.url, "k")
    assert server.requests[0].startswith(b"POST /v1/admin/shutdown ")
    with pytest.raises(ConnectionTimeoutError):
        await worker_control.shut_down(server.url, "k")
    assert len(server.requests) == 2
