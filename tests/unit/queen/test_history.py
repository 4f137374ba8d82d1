"""The stories of requests: what is told of one, which ones are kept, and what the next queen knows of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from rbee.adapters.http.sse_server import Send
from rbee.errors import InvalidRequestError, NotFoundError, OutOfMemoryError
from rbee.queen.access.identity import CallerIdentity
from rbee.queen.requests import record as records
from rbee.queen.requests.events import Generated
from rbee.queen.requests.history import KEPT, MAX_REFUSALS, RequestHistory
from rbee.queen.requests.record import RequestRecord
from rbee.wire.administration.requests import RequestInfo, RequestQuery
from rbee.wire.common import Narration
from rbee.wire.queen import TaskHandle
from rbee.wire.worker import EndedRequest

if TYPE_CHECKING:
    from trio.testing import MockClock

UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"
ALICE = CallerIdentity("key", "alice", "192.0.2.9")
ROUTE = "POST /v1/chat/completions"
HANDLE = TaskHandle(
    request_id=UUID,
    node="attic",
    worker_id="w",
    worker_url="http://x:8001",
    api_key="secret",
    state="idle",
    relayed=True,
)


def record(request_id: str = UUID) -> RequestRecord:
    return RequestRecord("192.0.2.9", ROUTE, None, request_id=request_id, identity=ALICE, is_for_text=True)


def narration(human: str) -> Narration:
    return Narration(actor="queen-rbee", action="x", target="y", human=human)


async def test_the_story_is_told_while_it_happens(autojump_clock: MockClock) -> None:
    history, one, told = RequestHistory(), record(), []
    history.begin(one)
    report = one.reporting(told.append)
    report(narration("Waiting for a free slot: 2 before it"))
    await trio.sleep(0.5)
    one.on_event(HANDLE)
    running = await history.find(UUID)
    assert (running.state, running.request.end, running.request.queue_ms) == ("running", None, 500)
    await trio.sleep(0.25)
    one.on_event(Generated("message", '{"type":"prompt","tokens":12}'))
    one.on_event(Generated("message", '{"type":"text","text":"the text"}'))
    one.on_event(Generated("message", '{"type":"text","text":"itself"}'))
    one.on_ended(
        EndedRequest(request_id=UUID, prompt_tokens=12, cached_tokens=8, total_tokens=2, duration_ms=9, end="eos")
    )
    one.close()
    history.end(one)
    story = await history.find(UUID[:8])
    assert (story.state, story.request.end, story.request.caller) == ("ended", "eos", "alice")
    assert [(step.ms, step.human) for step in story.steps] == [
        (0, "Waiting for a free slot: 2 before it"),
        (500, "Placed on attic: worker w, which the queen relays"),
        (750, "The first token is there"),
        (750, "Ended: eos, after 2 tokens"),
    ]
    assert [event.human for event in told] == ["Waiting for a free slot: 2 before it"]
    said = msgspec.json.encode(story).decode()
    assert not any(word in said for word in ("the text", "itself", "secret"))


async def test_a_story_ends_with_what_its_error_said(autojump_clock: MockClock) -> None:
    one = record()
    one.on_failed(OutOfMemoryError("the model needs 496 MB of RAM, and 104 MB are available"))
    one.close()
    assert one.steps[-1].human == "Ended: VRAM_EXHAUSTED: the model needs 496 MB of RAM, and 104 MB are available"
    assert (one.info().end, "needs" in one.line()) == ("VRAM_EXHAUSTED", False)


async def test_a_long_story_keeps_its_beginning_and_its_end(autojump_clock: MockClock) -> None:
    one = record()
    for number in range(1000):
        one.step(f"{number} " + "x" * 1000)
    one.close()
    assert len(one.steps) == records.MAX_STEPS
    assert one.steps[0].human.startswith("0 ")
    assert one.steps[-1].human == "Ended: ok"
    assert max(len(step.human) for step in one.steps) == records.MAX_STEP


async def test_the_last_ones_are_kept(autojump_clock: MockClock) -> None:
    history = RequestHistory()
    for number in range(KEPT + 10):
        one = record(f"{number:08}-0")
        history.begin(one)
        history.end(one)
    runs = record("ffffffff-1")
    history.begin(runs)
    found = await history.last(10_000)
    assert (len(found), found[0].id, found[-1].id) == (KEPT + 1, "00000010-0", "ffffffff-1")
    assert [request.id for request in await history.last(2)] == [f"{KEPT + 9:08}-0", "ffffffff-1"]
    assert await history.last(0) == []
    with pytest.raises(NotFoundError):
        await history.find("00000000-0")


async def test_who_is_not_let_in_does_not_push_the_others_out(autojump_clock: MockClock) -> None:
    history = RequestHistory()
    history.end(record("alice-00"))
    for number in range(KEPT):
        refused = record(f"{number:08}")
        refused.identity = CallerIdentity("public", "")
        history.end(refused)
    found = await history.last(10_000)
    assert (len(found), found[0].id, found[1].id) == (MAX_REFUSALS + 1, "alice-00", f"{KEPT - MAX_REFUSALS:08}")


async def test_what_is_no_request_for_text_is_no_story(autojump_clock: MockClock) -> None:
    history, one = RequestHistory(), record()
    one.is_for_text = False
    history.begin(one)
    assert await history.last(10) == []
    history.end(one)
    assert await history.last(10) == []


NAMES = [UUID, UUID[:8], UUID.upper(), UUID.replace("-", ""), f"chatcmpl-{UUID}", f"req_{UUID[:13]}"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_request_is_found_by_each_of_its_names(autojump_clock: MockClock, name: str) -> None:
    history, one = RequestHistory(), record()
    history.begin(one)
    history.end(one)
    again = record()
    history.begin(again)
    assert (await history.find(name)).state == "running", "the last one of an id is meant"


@pytest.mark.parametrize("name", ["", "1", "0d6b5c0", "0d6b-5c0", "chatcmpl-0d6b"])
async def test_too_short_a_name_is_refused(autojump_clock: MockClock, name: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        await RequestHistory().find(name)
    assert refused.value.hint == "`rbee requests` shows the last ones"


async def followed(history: RequestHistory, query: RequestQuery, found: list[str]) -> None:
    class Taken(Send):
        async def send(self, data: bytes) -> None:
            found.append(msgspec.json.decode(data.removeprefix(b"data: ").strip(), type=RequestInfo).id)

    await history.follow(query, Taken())


async def test_who_follows_gets_the_last_ones_and_each_that_ends(autojump_clock: MockClock) -> None:
    history, found = RequestHistory(), []
    for number in range(5):
        history.end(record(f"old-{number}"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed, history, RequestQuery(lines=2, follow=True), found)
        await trio.testing.wait_all_tasks_blocked()
        assert found == ["old-3", "old-4"]
        for number in range(3):
            history.end(record(f"new-{number}"))
        await trio.testing.wait_all_tasks_blocked()
        assert found[2:] == ["new-0", "new-1", "new-2"]
        nursery.cancel_scope.cancel()
    found.clear()
    await followed(history, RequestQuery(lines=100), found)
    assert (len(found), found[0], found[-1]) == (8, "old-0", "new-2")
