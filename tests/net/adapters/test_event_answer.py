"""Event streams that are read straight from the socket, of servers that behave and servers that do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from rbee.adapters.http.direct import event_answer
from rbee.adapters.http.kept_connections import KeptConnections
from rbee.adapters.http.sse_client import StreamLostError
from rbee.concurrency.background import open_background
from rbee.errors import AllSlotsBusyError, ConnectionTimeoutError, InternalError, RbeeError
from rbee.wire.error_body import to_body
from rbee.wire.queen import NodeQuery
from tests.kit.scripted import NOBODY, STREAM, Scripted, chunk, reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rbee.adapters.http.event_parser import Event

    Serve = Callable[..., Awaitable[Scripted]]

EVENT = chunk(b"data: 1\n\n")
END = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Reader:
    """Takes events, but for those of which it is told to refuse so many first."""

    def __init__(self, refused: int = 0) -> None:
        self.found: list[str] = []
        self.waits = 0
        self._refused = refused

    def take(self, event: Event) -> bool:
        if self.waits < self._refused:
            return False
        self.found.append(event.data)
        return True

    async def wait_for_room(self) -> None:
        self.waits += 1
        await trio.lowlevel.checkpoint()

    async def follow(self, url: str) -> None:
        kept = KeptConnections()
        async with open_background() as nursery:
            nursery.start_soon(kept.run)
            message, took = NodeQuery(node="n"), (self.take, self.wait_for_room)
            await event_answer.follow(kept, url, "/s", {}, message, *took, patience=2)


async def test_an_event_for_which_there_is_no_room_comes_again(scripted: Serve) -> None:
    server, reader = await scripted(STREAM + EVENT + chunk(b"data: 2\n\n") + END), Reader(refused=3)
    await reader.follow(server.url)
    assert (reader.found, reader.waits) == (["1", "2"], 3)


@pytest.mark.parametrize("url", [NOBODY, "http://", "ftp://127.0.0.1:1", "http://127.0.0.1:99999999", "http://a..b"])
async def test_an_address_at_which_nobody_is(url: str) -> None:
    with pytest.raises(ConnectionTimeoutError) as caught:
        await Reader().follow(url)
    assert caught.value.details["attempts"]


@pytest.mark.parametrize("data", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200"])
async def test_what_is_no_answer_is_none(scripted: Serve, data: bytes) -> None:
    server = await scripted(data)
    with pytest.raises(ConnectionTimeoutError):
        await Reader().follow(server.url)


@pytest.mark.parametrize(
    "rest", [b"", b"0\r\n\r\n", b"zzz", chunk(b"data: [DONE]\n")], ids=["cut", "ended", "garbage", "half an event"]
)
async def test_a_stream_without_its_last_event_is_lost_after_what_has_come(scripted: Serve, rest: bytes) -> None:
    server, reader = await scripted(STREAM + EVENT + rest), Reader()
    with pytest.raises(StreamLostError):
        await reader.follow(server.url)
    assert reader.found == ["1"]


async def test_an_answer_without_a_length_ends_with_its_connection(scripted: Serve) -> None:
    head = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
    server, reader = await scripted(head, head + b"data: [DONE]\n\n"), Reader()
    with trio.fail_after(5), pytest.raises(StreamLostError):
        await reader.follow(server.url)
    await reader.follow(server.url)
    assert reader.found == ["1", "1"]


async def test_an_error_is_raised_as_the_other_side_has_sent_it(scripted: Serve) -> None:
    body = msgspec.json.encode(to_body(AllSlotsBusyError("busy", slots_total=1)))
    server = await scripted(reply(body, status="503 X"))
    with pytest.raises(AllSlotsBusyError) as caught:
        await Reader().follow(server.url)
    assert caught.value.details == {"slots_total": 1}


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 503 X\r\nContent-Length: 100\r\n\r\n{", RbeeError),
        (reply(b"", status="307 X", extra="Location: http://127.0.0.1:1/\r\n"), InternalError),
        (reply(b"{}", extra="Content-Type: application/json\r\n"), StreamLostError),
        (reply(b"x", extra="Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"), StreamLostError),
    ],
    ids=["half a refusal", "redirection", "no stream", "packed"],
)
async def test_an_answer_that_is_no_stream_is_refused(scripted: Serve, data: bytes, error: type[Exception]) -> None:
    server = await scripted(data)
    with pytest.raises(error):
        await Reader().follow(server.url)
