"""Event streams over real sockets: what is sent, when it ends, and what a client that leaves or stalls does."""

from __future__ import annotations

import json
import logging
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio
import trio.testing

from rbee.adapters.http import sse_server
from rbee.adapters.http.app import new_app, streamed, with_keys
from rbee.adapters.logs import json_log
from rbee.errors import AllSlotsBusyError, InternalError, RbeeError
from rbee.wire.common import Narration
from tests.kit.local_http import LOCAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from quart import Response
    from quart_trio import QuartTrio

    Produce = Callable[[sse_server.Send], Awaitable[None]]
    Serve = Callable[..., Awaitable[str]]

UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"
DONE = "data: [DONE]\n\n"


def narration(human: str) -> Narration:
    return Narration(actor="rbee-hive", action="a", target="t", human=human)


@pytest.fixture
async def serve(serve_app: Callable[[QuartTrio], Awaitable[str]], nursery: trio.Nursery) -> Serve:
    """Give a function that serves one stream and returns its URL."""

    async def start(produce: Produce, *, heartbeat: float = 10.0) -> str:
        app = new_app("test", with_keys(lambda _: [], {"/"}))

        @app.get("/")
        async def stream() -> Response:
            return streamed(nursery, produce, heartbeat=heartbeat, headers={"X-Request-Id": "r"})

        return await serve_app(app)

    return start


async def fetch(url: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=20, **LOCAL) as client:
        return await client.get(url, **options)


async def open_raw(url: str, *, buffer: int | None = None) -> trio.SocketStream:
    """Ask for the stream over a socket of our own."""
    parts = urlsplit(url)
    connection = trio.socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    await connection.connect((parts.hostname, parts.port))
    stream = trio.SocketStream(connection)
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return stream


async def test_events_come_in_order_and_end_with_done(serve: Serve) -> None:
    async def produce(send: sse_server.Send) -> None:
        for number in range(100):
            await send.send(sse_server.event({"number": number}))
        await send.send(sse_server.event(narration("x"), "narration"))
        await send.send(sse_server.event_from_json('{"as":"it is"}', "message"))
        await send.send(sse_server.event_from_json("{}", "worker"))

    response = await fetch(await serve(produce))
    *numbers, told, as_it_is, named, done, rest = response.text.split("\n\n")
    assert numbers == [f'data: {{"number":{number}}}' for number in range(100)]
    assert told.startswith('event: narration\ndata: {"actor":"rbee-hive"')
    assert as_it_is == 'data: {"as":"it is"}'
    assert named == "event: worker\ndata: {}"
    assert (done, rest) == ("data: [DONE]", "")


async def test_the_headers_of_a_stream(serve: Serve) -> None:
    async def produce(send: sse_server.Send) -> None:
        pass

    response = await fetch(await serve(produce), headers={"X-Correlation-Id": UUID})
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Accel-Buffering"] == "no", "a proxy passes events on as they come"
    assert response.headers["X-Request-Id"] == "r"
    assert response.headers["X-Correlation-Id"] == UUID
    assert response.text == DONE


@pytest.mark.parametrize("text", ["a\nb", "\r\n\r\ndata: forged", "\u2028\u2029\x85", "\x00\x1b[2J"])
async def test_no_text_can_break_out_of_its_event(serve: Serve, text: str) -> None:
    async def produce(send: sse_server.Send) -> None:
        await send.send(sse_server.event({"text": text}))

    body = (await fetch(await serve(produce))).content
    assert body.count(b"\n") == 4
    assert body.count(b"\r") == 0


async def test_a_quiet_stream_is_kept_alive_by_comments(serve: Serve) -> None:
    quiet = trio.Event()

    async def produce(send: sse_server.Send) -> None:
        await quiet.wait()
        await send.send(sse_server.event(1))

    stream = await open_raw(await serve(produce, heartbeat=0.02))
    async with stream:
        received = b""
        while received.count(b": heartbeat\n\n") < 3:
            received += await stream.receive_some()
        assert b"data:" not in received
        quiet.set()
        while b"[DONE]" not in received:
            received += await stream.receive_some()
        assert b"data: 1\n\n" in received


async def test_a_busy_stream_has_no_comments(serve: Serve) -> None:
    async def produce(send: sse_server.Send) -> None:
        await send.send(sse_server.event(1))

    assert "heartbeat" not in (await fetch(await serve(produce))).text


async def test_an_error_is_an_event_and_the_end_comes_after_it(serve: Serve) -> None:
    async def produce(send: sse_server.Send) -> None:
        await send.send(sse_server.event(1))
        raise AllSlotsBusyError("busy", slots_total=1, slots_busy=1)

    one, error, done, _ = (await fetch(await serve(produce), headers={"X-Correlation-Id": UUID})).text.split("\n\n")
    assert (one, done) == ("data: 1", "data: [DONE]")
    assert json.loads(error.removeprefix("data: ")) == {
        "error": {
            "code": "ALL_SLOTS_BUSY",
            "message": "busy",
            "details": {"slots_total": 1, "slots_busy": 1},
            "slots_total": 1,
            "slots_busy": 1,
            "hint": AllSlotsBusyError.advice,
            "correlation_id": UUID,
        }
    }


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyError, trio.ClosedResourceError, trio.BrokenResourceError])
async def test_a_bug_is_an_internal_error_and_stands_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    async def produce(send: sse_server.Send) -> None:
        await send.send(sse_server.event(1))
        raise kind("hunter2")

    text = (await fetch(await serve(produce))).text
    first, error, done, _ = text.split("\n\n")
    assert (first, done) == ("data: 1", "data: [DONE]")
    assert '"code":"INTERNAL_ERROR"' in error
    assert "hunter2" not in text
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "hunter2" in (record.exc_text or "")


async def test_errors_in_a_group_do_not_end_the_daemon(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async def produce(send: sse_server.Send) -> None:
        async with trio.open_nursery():
            raise ZeroDivisionError

    assert '"code":"INTERNAL_ERROR"' in (await fetch(await serve(produce))).text


async def test_what_is_logged_in_a_stream_has_the_requests_id(
    serve: Serve,
) -> None:
    found: list[str | None] = []

    async def produce(send: sse_server.Send) -> None:
        found.append(json_log.correlation.get())

    await fetch(await serve(produce), headers={"X-Correlation-Id": UUID})
    assert found == [UUID]


# Clients that leave or stall.


async def test_a_client_that_leaves_ends_the_producer(serve: Serve) -> None:
    ended = trio.Event()

    async def produce(send: sse_server.Send) -> None:
        try:
            await send.send(sse_server.event(1))
            await trio.sleep_forever()
        finally:
            ended.set()

    stream = await open_raw(await serve(produce))
    async with stream:
        while b"data: 1" not in await stream.receive_some():
            pass
    with trio.fail_after(10):
        await ended.wait()


async def test_a_client_that_resets_the_connection_ends_the_producer(serve: Serve) -> None:
    ended = trio.Event()

    async def produce(send: sse_server.Send) -> None:
        try:
            while True:
                await send.send(sse_server.event("x" * 1000))
        finally:
            ended.set()

    stream = await open_raw(await serve(produce))
    await stream.receive_some()
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await stream.aclose()
    with trio.fail_after(10):
        await ended.wait()


async def test_a_client_that_leaves_does_not_disturb_another(serve: Serve) -> None:
    async def produce(send: sse_server.Send) -> None:
        await send.send(sse_server.event(1))
        await trio.sleep(0.1)
        await send.send(sse_server.event(2))

    url = await serve(produce)
    async with await open_raw(url) as leaver, trio.open_nursery() as nursery:
        texts: list[str] = []

        async def stay() -> None:
            texts.append((await fetch(url)).text)

        nursery.start_soon(stay)
        await leaver.receive_some()
        await leaver.aclose()
    assert texts == ["data: 1\n\ndata: 2\n\n" + DONE]


async def test_a_client_that_does_not_read_holds_the_producer_back(serve: Serve) -> None:
    sent = 0
    block = sse_server.event("x" * 65536)

    async def produce(send: sse_server.Send) -> None:
        nonlocal sent
        while sent < 10_000:
            await send.send(block)
            sent += 1

    async with await open_raw(await serve(produce), buffer=4096):
        # What the kernel's buffers take first is not ours; then nothing may move any more.
        before = -1
        with trio.fail_after(20):
            while sent != before:
                before = sent
                await trio.sleep(0.3)
        assert 0 < sent < 500


# Narration.


async def test_what_is_told_comes_before_the_result(serve: Serve) -> None:
    async def work(report: Callable[[Narration], None]) -> dict[str, int]:
        report(narration("one"))
        await trio.lowlevel.checkpoint()
        report(narration("two"))
        return {"x": 1}

    async def produce(send: sse_server.Send) -> None:
        assert await sse_server.with_progress_and_result(send, work, "worker") == {"x": 1}
        await send.send(sse_server.event("after"))

    response = await fetch(await serve(produce), headers={"X-Correlation-Id": UUID})
    one, two, worker, after, done, _ = response.text.split("\n\n")
    assert '"human":"one"' in one
    assert f'"correlation_id":"{UUID}"' in one
    assert '"human":"two"' in two
    assert worker == 'event: worker\ndata: {"x":1}'
    assert (after, done) == ('data: "after"', "data: [DONE]")


async def test_what_another_task_tells_has_the_requests_id(serve: Serve, nursery: trio.Nursery) -> None:
    """An owner of state works for many requests, and its own task has the id of none of them."""
    told = trio.Event()

    async def owner(report: Callable[[Narration], None]) -> None:
        json_log.correlation.set(None)
        report(narration("one"))
        told.set()

    async def work(report: Callable[[Narration], None]) -> int:
        nursery.start_soon(owner, report)
        await told.wait()
        return 0

    async def produce(send: sse_server.Send) -> None:
        await sse_server.with_progress_and_result(send, work, "worker")

    text = (await fetch(await serve(produce), headers={"X-Correlation-Id": UUID})).text
    assert f'"correlation_id":"{UUID}"' in text


async def test_what_was_told_before_an_error_comes_before_it(serve: Serve) -> None:
    async def work(report: Callable[[Narration], None]) -> int:
        report(narration("one"))
        raise InternalError("no")

    async def produce(send: sse_server.Send) -> None:
        await sse_server.with_progress_and_result(send, work, "worker")

    one, error, done, _ = (await fetch(await serve(produce))).text.split("\n\n")
    assert '"human":"one"' in one
    assert '"message":"no"' in error
    assert done == "data: [DONE]"


async def test_the_error_of_the_work_is_raised_as_it_is() -> None:
    async def work(report: Callable[[Narration], None]) -> int:
        raise InternalError("no")

    with pytest.raises(RbeeError, match="no"):
        await sse_server.with_progress_and_result(sse_server.Send(), work, "worker")


async def test_a_report_is_out_while_the_work_goes_on() -> None:
    send = sse_server.Send(UUID)

    async def work(report: Callable[[Narration], None]) -> bytes:
        report(narration("begun"))
        return send.take()

    assert b'"human":"begun"' in await sse_server.with_progress_and_result(send, work, "worker")


async def test_a_report_never_waits() -> None:
    send = sse_server.Send()
    for number in range(1000):
        send.report(narration(str(number)))
    assert send.take().count(b"event: narration") == 1000


async def test_what_is_told_after_the_end_of_the_work_is_dropped() -> None:
    """What it has begun may go on for other callers."""
    send = sse_server.Send()
    kept: list[Callable[[Narration], None]] = []

    async def work(report: Callable[[Narration], None]) -> int:
        kept.append(report)
        return 0

    await sse_server.with_progress_and_result(send, work, "worker")
    kept[0](narration("late"))
    assert send.take() == b"event: worker\ndata: 0\n\n"


async def test_telling_after_the_client_has_gone_does_nothing_and_keeps_nothing() -> None:
    send = sse_server.Send()

    async def work(report: Callable[[Narration], None]) -> int:
        report(narration("one"))
        send.lose()
        report(narration("to nobody"))
        return 0

    with pytest.raises(trio.BrokenResourceError):
        await sse_server.with_progress_and_result(send, work, "worker")
    assert send.take() == b""


async def test_what_is_there_at_once_leaves_in_one_packet_with_the_head(serve: Serve) -> None:
    async def produce(send: sse_server.Send) -> None:
        await send.send(sse_server.event(1))
        await send.send(sse_server.event(2))

    async with await open_raw(await serve(produce)) as stream:
        first = bytes(await stream.receive_some())
    assert first.startswith(b"HTTP/1.1 200")
    assert b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n" in first


async def test_the_head_does_not_wait_for_the_first_event(serve: Serve) -> None:
    async def produce(send: sse_server.Send) -> None:
        await trio.sleep_forever()

    async with await open_raw(await serve(produce)) as stream:
        with trio.fail_after(5):
            assert (await stream.receive_some()).endswith(b"\r\n\r\n")


async def test_a_client_that_leaves_lets_the_work_that_it_asked_for_be_cancelled(serve: Serve) -> None:
    ended = trio.Event()

    async def work(report: Callable[[Narration], None]) -> int:
        report(narration("one"))
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        return 0

    async def produce(send: sse_server.Send) -> None:
        await sse_server.with_progress_and_result(send, work, "worker")

    async with await open_raw(await serve(produce)) as stream:
        while b"one" not in await stream.receive_some():
            pass
    with trio.fail_after(10):
        await ended.wait()


async def test_a_stream_that_is_never_read_starts_nothing(nursery: trio.Nursery) -> None:
    started = False

    async def produce(send: sse_server.Send) -> None:
        nonlocal started
        started = True

    await sse_server.stream(nursery, produce).aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert not started


async def test_the_end_of_the_daemon_ends_a_stream() -> None:
    async def produce(send: sse_server.Send) -> None:
        await send.send(sse_server.event(1))
        await trio.sleep_forever()

    received: list[bytes] = []
    async with trio.open_nursery() as inner:

        async def read() -> None:
            async for data in sse_server.stream(inner, produce):
                received.append(data)  # noqa: PERF401 (what came before the end is what counts)

        inner.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    assert received == [b"data: 1\n\n"]


async def test_a_client_that_reads_late_gets_all_in_order(serve: Serve) -> None:
    """Pieces are written past the response one by one, until the kernel takes but a part of one."""
    count, text = 60, "x" * 100_000
    sent = 0

    async def produce(send: sse_server.Send) -> None:
        nonlocal sent
        for number in range(count):
            await send.send(sse_server.event([number, text]))
            sent = number + 1
            await trio.sleep(0.002)

    async with await open_raw(await serve(produce), buffer=65536) as stream:
        while True:
            before = sent
            await trio.sleep(0.1)
            if before == sent:
                break
        assert 0 < sent < count
        data = b""
        async for piece in stream:
            data += piece
            if data.endswith(b"0\r\n\r\n"):
                break
    _, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in whole(body).decode().split("\n\n") if line]
    assert lines == [*(f'data: [{number},"{text}"]' for number in range(count)), "data: [DONE]"]


def whole(body: bytes) -> bytes:
    """Return the content of a body that came in chunks."""
    found = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        found.append(rest[: int(size, 16)])
        body = rest[int(size, 16) + 2 :]
    return b"".join(found)
