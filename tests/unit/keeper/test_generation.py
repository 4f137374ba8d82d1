"""How long an answer may take: any time, as long as something comes."""

from __future__ import annotations

import math
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
import trio

from rbee.adapters.config import Settings
from rbee.adapters.http.sse_client import Event
from rbee.errors import InferenceTimeoutError
from rbee.keeper.inference.generation import Generation
from rbee.keeper.output.terminal import Terminal
from rbee.wire.progress import Reading
from rbee.wire.worker import Done, InferenceRequest, Token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from rbee.keeper.inference.relayed import RelayedWorker
    from rbee.wire.common import Message

TOKEN = Token(token="bee", index=0)
DONE = Done(total_tokens=1, duration_ms=1, stop_reason="eos")
READING = Reading(tokens_read=1, tokens_total=2, most_tokens=500)


class Worker:
    """A worker that sends each event so many seconds after the last one."""

    url = "http://127.0.0.1:1"

    def __init__(self, *events: tuple[float, Message]) -> None:
        self._events = events
        self.cancelled = 0

    @asynccontextmanager
    async def inference(self, _: InferenceRequest, *, keep: float | None) -> AsyncIterator[AsyncIterator[Event]]:
        async def stream() -> AsyncIterator[Event]:
            for pause, message in self._events:
                await trio.sleep(pause)
                name = "progress" if isinstance(message, Reading) else ""
                yield Event(name, msgspec.json.encode(message).decode())

        async with aclosing(stream()) as events:
            yield events

    async def cancel(self, _: str) -> None:
        self.cancelled += 1


async def generate(worker: Worker, *, reader: float = 0, **timeouts: float) -> str:
    """Return the text, for a reader that takes so many seconds for each piece."""
    settings = Settings()
    for name, seconds in timeouts.items():
        setattr(settings.timeouts, name, seconds)
    generation = Generation(cast("RelayedWorker", worker), InferenceRequest(prompt="x"), settings, "log", None)
    terminal = Terminal()
    terminal.quiet = True

    async def write(_: str) -> None:
        await trio.sleep(reader)

    await generation.run(terminal, write)
    return generation.text


@pytest.mark.parametrize(
    ("events", "reader"),
    [
        ([(59, TOKEN)] * 100, 0),
        ([(1, TOKEN)] * 3, 10_000),
        ([*[(59, READING)] * 100, (59, TOKEN)], 0),
        ([(299, TOKEN)], 0),
        ([(299, READING), (59, TOKEN)], 0),
    ],
    ids=["slow text", "a reader that pauses", "a long prompt", "a worker of an earlier version", "a late beginning"],
)
async def test_an_answer_has_no_limit_as_long_as_something_comes(
    events: list[tuple[float, Any]], reader: float, autojump_clock: MockClock
) -> None:
    worker = Worker(*events, (1, DONE))
    assert await generate(worker, reader=reader) == "bee" * sum(message is TOKEN for _, message in events)
    assert worker.cancelled == 0


@pytest.mark.parametrize(
    ("events", "timeouts", "seconds"),
    [
        ([(5, TOKEN), (61, TOKEN)], {}, 65),
        ([(5, READING), (61, READING)], {}, 65),
        ([(math.inf, TOKEN)], {}, 300),
        ([(50, TOKEN)] * 10, {"inference": 120}, 120),
        ([(50, READING)] * 10, {"inference": 120}, 120),
        ([(5, TOKEN), (4, TOKEN)], {"token": 3}, 8),
    ],
)
async def test_an_answer_that_has_come_to_a_standstill_is_given_up(
    events: list[tuple[float, Any]], timeouts: dict[str, float], seconds: float, autojump_clock: MockClock
) -> None:
    worker = Worker(*events)
    with pytest.raises(InferenceTimeoutError) as caught:
        await generate(worker, **timeouts)
    assert caught.value.details["elapsed_s"] == seconds
    assert worker.cancelled == 1
