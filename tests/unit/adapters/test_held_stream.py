"""Streams whose head waits until it is known how the answer begins, on a clock that the test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from rbee.adapters.http.held_stream import HEARTBEAT, HeldStream
from rbee.errors import WorkerFailedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rbee.errors import RbeeError

LAST = b"last"


def event_of(error: RbeeError) -> bytes:
    return f"error {error.code}".encode()


def held(produce: Callable[[HeldStream], Awaitable[object]]) -> HeldStream:
    return HeldStream(produce, event_of, last=LAST, heartbeat=10)


async def begun(nursery: trio.Nursery, produce: Callable[[HeldStream], Awaitable[object]]) -> tuple[HeldStream, float]:
    """Return a stream that has begun, and after how many seconds it had."""
    stream, before = held(produce), trio.current_time()
    await stream.begin(nursery, hold=2)
    return stream, trio.current_time() - before


async def test_the_head_leaves_with_the_first_piece(nursery: trio.Nursery, autojump_clock: object) -> None:
    async def produce(stream: HeldStream) -> None:
        await trio.sleep(1)
        await stream.send(b"")
        await stream.send(b"one")
        await trio.sleep(25)
        await stream.send(b"two")

    stream, seconds = await begun(nursery, produce)
    assert seconds == 1
    assert [piece async for piece in stream] == [b"one", HEARTBEAT, HEARTBEAT, b"two" + LAST]


async def test_the_head_is_not_held_for_long(nursery: trio.Nursery, autojump_clock: object) -> None:
    async def produce(stream: HeldStream) -> None:
        await trio.sleep(15)

    stream, seconds = await begun(nursery, produce)
    assert seconds == 2
    assert [piece async for piece in stream] == [b"", HEARTBEAT, LAST]


async def test_what_takes_its_time_has_its_head_at_once(nursery: trio.Nursery, autojump_clock: object) -> None:
    async def produce(stream: HeldStream) -> None:
        stream.release()
        stream.release()
        await trio.sleep(1)

    stream, seconds = await begun(nursery, produce)
    assert seconds == 0
    assert [piece async for piece in stream] == [b"", LAST]


async def test_an_error_before_the_head_is_raised_and_one_after_it_is_the_end(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    def failing(seconds: float) -> Callable[[HeldStream], Awaitable[None]]:
        async def produce(stream: HeldStream) -> None:
            await trio.sleep(seconds)
            raise WorkerFailedError("x")

        return produce

    with pytest.raises(WorkerFailedError):
        await begun(nursery, failing(1.9))
    stream, _ = await begun(nursery, failing(2.1))
    assert [piece async for piece in stream] == [b"", b"error WORKER_FAILED"]


async def test_no_heartbeat_follows_an_error_that_was_written_at_once(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    written: list[bytes] = []

    def write(data: bytes) -> bool:
        written.append(data)
        return True

    async def produce(_: HeldStream) -> None:
        await trio.sleep(15)
        raise WorkerFailedError("x")

    stream = HeldStream(produce, event_of, last=LAST, heartbeat=10, write=write)
    await stream.begin(nursery, hold=2)
    assert [piece async for piece in stream] == [b"", HEARTBEAT]
    assert written == [b"error WORKER_FAILED"]


async def test_a_fault_of_ours_is_an_error_too(
    nursery: trio.Nursery, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def produce(stream: HeldStream) -> None:
        await stream.send(b"one")
        await trio.sleep(1)
        raise KeyError

    stream, _ = await begun(nursery, produce)
    assert [piece async for piece in stream] == [b"one", b"error INTERNAL_ERROR"]
    assert "KeyError" in caplog.text


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_client_that_leaves_ends_the_producer(
    nursery: trio.Nursery, autojump_clock: object, is_held: bool
) -> None:
    ended = trio.Event()

    async def produce(stream: HeldStream) -> None:
        try:
            if not is_held:
                stream.release()
            await trio.sleep_forever()
        finally:
            ended.set()

    stream = held(produce)
    with trio.move_on_after(1):
        await stream.begin(nursery, hold=2)
    stream.close()
    with trio.fail_after(1):
        await ended.wait()


async def test_a_producer_is_not_far_ahead_of_its_client(nursery: trio.Nursery, autojump_clock: object) -> None:
    sent: list[int] = []

    async def produce(stream: HeldStream) -> None:
        for number in range(100):
            await stream.send(b"x")
            sent.append(number)

    stream, _ = await begun(nursery, produce)
    await trio.sleep(1)
    assert len(sent) < 20
    assert b"".join([piece async for piece in stream]) == b"x" * 100 + LAST


async def test_pieces_that_follow_the_first_are_written_past_the_response(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    """Those alone for which the response waits, and that do not come in a burst; a heartbeat comes in quiet ones."""
    written: list[bytes] = []

    def write(data: bytes) -> bool:
        if data == b"refused":
            return False
        written.append(data)
        return True

    async def produce(stream: HeldStream) -> None:
        for piece in (b"first", b"one", b"refused", b"two", b"three"):
            await stream.send(piece)
            await trio.sleep(6)
        for piece in (b"four", b"five", b"six"):
            await stream.send(piece)

    stream = HeldStream(produce, event_of, last=LAST, heartbeat=10, write=write)
    await stream.begin(nursery, hold=2)
    assert [piece async for piece in stream] == [b"first", b"refused", b"fivesix" + LAST]
    assert written == [b"one", b"two", b"three", b"four"]


async def test_a_stream_that_is_written_past_the_response_has_heartbeats(
    nursery: trio.Nursery, autojump_clock: object
) -> None:
    async def produce(stream: HeldStream) -> None:
        await stream.send(b"first")
        await trio.sleep(9)
        await stream.send(b"one")
        began.append(trio.current_time())
        await trio.sleep(15)

    began: list[float] = []
    stream = HeldStream(produce, event_of, last=LAST, heartbeat=10, write=lambda _: True)
    await stream.begin(nursery, hold=2)
    pieces = [(piece, trio.current_time()) async for piece in stream]
    assert [piece for piece, _ in pieces] == [b"first", HEARTBEAT, LAST]
    assert pieces[1][1] - began[0] == pytest.approx(10)
