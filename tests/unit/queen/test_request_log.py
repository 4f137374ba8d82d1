"""One line for each request: what it holds, when it is written, and what it never holds."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from rbee.errors import WorkerFailedError
from rbee.queen.requests.events import Generated
from rbee.queen.requests.log import REFUSALS, RequestLog
from rbee.queen.requests.record import RequestRecord
from rbee.queen.routes.request_log import end_of
from rbee.wire.queen import TaskHandle
from rbee.wire.worker import EndedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"
WORKER = "6b8ff8ee-1a6c-4a2c-8a3c-0123456789ab"
ENDED = EndedRequest(
    request_id=UUID,
    prompt_tokens=12,
    cached_tokens=8,
    total_tokens=40,
    first_token_ms=100,
    duration_ms=900,
    end="length",
)


def record(request_id: str | None = UUID, **fields: object) -> RequestRecord:
    return RequestRecord("192.0.2.9", "POST /v2/tasks", None, request_id=request_id, model="hf:o/r", **fields)


def handle(*, relayed: bool) -> TaskHandle:
    where = {"request_id": UUID, "node": "attic", "worker_id": WORKER, "worker_url": "http://x:8001"}
    return TaskHandle(**where, api_key="rbee_w_secret", state="idle", relayed=relayed)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Give the lines that were written, as they come."""
    found: list[str] = []

    class Taken(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            found.append(entry.getMessage())

    logger, handler = logging.getLogger("rbee.queen.requests.log"), Taken()
    logger.setLevel("DEBUG")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)
    logger.setLevel("NOTSET")


def fields(line: str) -> dict[str, str]:
    return {name: bare or quoted for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))', line)}


async def test_a_worker_that_was_gone_to_says_what_came_of_the_request(
    lines: list[str], autojump_clock: MockClock
) -> None:
    log, one = RequestLog(), record()
    autojump_clock.jump(0.2)
    one.on_placed(handle(relayed=False))
    log.on_placed(one)
    assert lines == []
    autojump_clock.jump(1.0)
    log.on_ended(ENDED)
    log.on_ended(ENDED)
    (line,) = lines
    assert fields(line) == {
        "id": UUID, "address": "192.0.2.9", "route": "POST /v2/tasks", "status": "200", "model": "hf:o/r",
        "node": "attic", "worker": WORKER, "relayed": "no", "prompt_tokens": "12", "cached_tokens": "8", "tokens": "40",
        "queue_ms": "200", "first_token_ms": "400", "total_ms": "1200", "end": "length",
    }  # fmt: skip
    assert "rbee_w" not in line


@pytest.mark.parametrize("words_first", [True, False])
async def test_a_relayed_answer_is_one_line_whoever_is_first(
    lines: list[str], autojump_clock: MockClock, *, words_first: bool
) -> None:
    log, one = RequestLog(), record()
    one.on_event(handle(relayed=True))
    log.on_placed(one)
    autojump_clock.jump(0.3)
    one.on_event(Generated("message", '{"token":"the text","index":0}'))
    one.on_event(Generated("message", '{"token":" itself","index":1}'))
    if words_first:
        log.on_ended(ENDED)
        assert lines == []
        await log.finish(one)
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.finish, one)
            await trio.testing.wait_all_tasks_blocked()
            log.on_ended(ENDED)
    (line,) = lines
    found = fields(line)
    assert (found["relayed"], found["tokens"], found["first_token_ms"], found["end"]) == ("yes", "40", "300", "length")
    assert "text" not in line
    assert "itself" not in line


async def test_a_worker_that_says_nothing_is_waited_for_a_moment(lines: list[str], autojump_clock: MockClock) -> None:
    log, one = RequestLog(), record()
    one.on_placed(handle(relayed=True))
    log.on_placed(one)
    await log.finish(one)
    log.on_ended(ENDED)
    (line,) = lines
    assert fields(line)["end"] == "ok"
    assert "tokens" not in fields(line)


async def test_several_generations_count_once_each_whoever_says_it(
    lines: list[str], autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    log, one = RequestLog(), record()
    for name in ("a", "b", "c", "d"):
        log.generations.begin(name, one, WORKER)
    for words in (msgspec.structs.replace(ENDED, request_id="a"), msgspec.structs.replace(ENDED, request_id="b")):
        log.on_ended(words)
        log.generations.end(words.request_id, 12, 8, 40)  # its last event comes too
    log.end(one, nursery)
    assert lines == []
    log.on_ended(msgspec.structs.replace(ENDED, request_id="c", worker_id=OTHER))
    log.on_ended(msgspec.structs.replace(ENDED, request_id="c", worker_id=WORKER, end="CANCELLED"))
    await trio.sleep(1)
    assert lines == []
    assert one.story().steps[-1].human == "Ended: ok, after 120 tokens", "those who ask are told meanwhile"
    await trio.sleep(2)  # nobody says anything of the last one
    (line,) = lines
    found = fields(line)
    assert [found[name] for name in ("prompt_tokens", "cached_tokens", "tokens", "end")] == ["36", "24", "120", "ok"]
    assert not log.generations.are_open(one)
    assert [step.human for step in one.story().steps] == ["Ended: ok, after 120 tokens"]


async def test_of_a_worker_that_is_gone_nothing_more_is_awaited(lines: list[str], nursery: trio.Nursery) -> None:
    log, one = RequestLog(), record()
    log.generations.begin("a", one, WORKER)
    log.end(one, nursery)
    log.on_gone(WORKER)
    await trio.testing.wait_all_tasks_blocked()
    assert len(lines) == 1


async def test_every_request_leaves_its_line_however_it_ends(lines: list[str]) -> None:
    log = RequestLog()
    one, again = record(), record()
    for each in (one, again):
        each.on_placed(handle(relayed=False))
        log.on_placed(each)
    assert [fields(line)["end"] for line in lines] == ["placed again"]
    log.on_gone("another")
    log.on_gone(WORKER)
    assert [fields(line)["end"] for line in lines] == ["placed again", "the worker ended"]
    last = record()
    last.on_placed(handle(relayed=False))
    log.on_placed(last)
    log.close()
    assert fields(lines[-1])["end"] == "the queen ended"


BUSY = EndedRequest(request_id=UUID, duration_ms=0.4, end="ALL_SLOTS_BUSY")
OTHER = "7c8ff8ee-1a6c-4a2c-8a3c-0123456789ab"


def placed(log: RequestLog, one: RequestRecord | None = None, *, relayed: bool) -> RequestRecord:
    """A worker has the request, or has it once more."""
    one = one or record()
    one.on_placed(handle(relayed=relayed))
    log.on_placed(one)
    return one


async def test_what_is_said_late_of_a_try_that_was_refused_does_not_end_the_next_one(
    lines: list[str], autojump_clock: MockClock
) -> None:
    """The queen relays: the first worker was busy, the next one answers before the first one's refusal is known."""
    log = RequestLog()
    one = placed(log, relayed=True)
    placed(log, one, relayed=True)
    log.on_ended(BUSY)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.finish, one)
        await trio.testing.wait_all_tasks_blocked()
        log.on_ended(BUSY)
        assert lines == []
        log.on_ended(ENDED)
    (line,) = lines
    assert (fields(line)["end"], fields(line)["tokens"]) == ("length", "40")


@pytest.mark.parametrize("is_late", [True, False])
async def test_a_relayed_request_that_ends_refused_is_one_line_at_once(
    lines: list[str], autojump_clock: MockClock, *, is_late: bool
) -> None:
    log = RequestLog()
    one = placed(log, relayed=True)
    if not is_late:
        log.on_ended(BUSY)
    one.end = BUSY.end
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.finish, one)
        await trio.testing.wait_all_tasks_blocked()
        if is_late:
            log.on_ended(BUSY)
            assert len(lines) == 1
    assert [fields(line)["end"] for line in lines] == ["ALL_SLOTS_BUSY"]
    assert is_late or trio.current_time() == began


@pytest.mark.parametrize("is_late", [True, False])
async def test_a_client_that_is_refused_and_placed_again_has_a_line_for_each_try(
    lines: list[str], *, is_late: bool
) -> None:
    log = RequestLog()
    placed(log, relayed=False)
    if not is_late:
        log.on_ended(BUSY)
    placed(log, relayed=False)
    if is_late:
        log.on_ended(BUSY)
    log.on_ended(ENDED)
    assert [fields(line)["end"] for line in lines] == ["placed again" if is_late else "ALL_SLOTS_BUSY", "length"]


async def test_a_client_that_asks_a_worker_again_past_the_queen_has_a_line_and_a_story_for_its_answer(
    lines: list[str], autojump_clock: MockClock
) -> None:
    log, stories = RequestLog(), []
    log.on_end = lambda ended: stories.append((ended.info().end, ended.info().total_ms))
    placed(log, relayed=False)
    for _ in range(3):
        await trio.sleep(1)
        log.on_ended(BUSY)
    log.on_ended(ENDED)
    assert [fields(line)["end"] for line in lines] == ["ALL_SLOTS_BUSY", "length"]
    assert stories == [("ALL_SLOTS_BUSY", 1000), ("length", 3000)]
    placed(log, relayed=False)
    log.on_ended(BUSY)
    log.on_gone(WORKER)
    assert [fields(line)["end"] for line in lines[2:]] == ["ALL_SLOTS_BUSY"], "it is not lost as well"


@pytest.mark.parametrize("relayed", [True, False])
async def test_the_end_of_a_try_at_another_worker_is_not_that_of_the_one_at_this(
    lines: list[str], autojump_clock: MockClock, *, relayed: bool
) -> None:
    """A worker that is told to end cuts a request off, which another one has when that is known."""
    log = RequestLog()
    one = placed(log, relayed=relayed)
    cut = EndedRequest(request_id=UUID, worker_id=OTHER, prompt_tokens=12, duration_ms=5, end="WORKER_DRAINING")
    log.on_ended(cut)
    assert lines == []
    log.on_ended(msgspec.structs.replace(ENDED, worker_id=WORKER))
    if relayed:
        await log.finish(one)
    assert [fields(line)["end"] for line in lines] == ["length"]


async def test_who_tries_keys_does_not_fill_the_log(lines: list[str], autojump_clock: MockClock) -> None:
    log = RequestLog()
    autojump_clock.jump(100)
    for _ in range(REFUSALS + 40):
        log.write(record(None, status=401, end="INVALID_API_KEY"))
    log.write(record())
    assert len(lines) == REFUSALS + 1
    autojump_clock.jump(61)
    log.write(record(None, status=401, end="MISSING_API_KEY"))
    assert lines[-2] == "40 more requests without a right key were refused within a minute"
    assert fields(lines[-1])["end"] == "MISSING_API_KEY"


@pytest.mark.parametrize("model", ["file:/a b/c.gguf", 'a"b', "a\nb", "x end=ok"])
async def test_a_value_cannot_look_like_another(lines: list[str], model: str) -> None:
    one = record()
    one.model = model
    RequestLog().write(one)
    (line,) = lines
    assert "\n" not in line
    assert line.count(" end=ok") == (2 if "end=ok" in model else 1)
    assert line.endswith(" end=ok")


@pytest.mark.parametrize(
    ("failures", "end"),
    [
        ([WorkerFailedError("x")], "WORKER_FAILED"),
        ([trio.BrokenResourceError()], "CANCELLED"),
        ([trio.BrokenResourceError(), trio.BrokenResourceError()], "CANCELLED"),
        ([KeyError()], "INTERNAL_ERROR"),
        ([KeyError(), trio.BrokenResourceError()], "INTERNAL_ERROR"),
    ],
)
def test_the_end_of_a_request_is_known_also_where_nurseries_have_wrapped_it(
    failures: list[Exception], end: str
) -> None:
    assert end_of(ExceptionGroup("", [ExceptionGroup("", failures)])) == end
    if len(failures) == 1:
        assert end_of(failures[0]) == end
