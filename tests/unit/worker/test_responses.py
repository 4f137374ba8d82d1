"""How long a response may last: as long as the engine does something."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
import trio

from rbee.errors import InferenceTimeoutError
from rbee.wire.common import Sampling
from rbee.wire.worker import EndedRequest, FullContext
from rbee.worker.engine.loop import Engine
from rbee.worker.engine.slots import Slots
from rbee.worker.serving.follow import Limits, RequestClock
from rbee.worker.serving.responses import InferenceResponse
from rbee.worker.status.metrics import WorkerMetrics
from rbee.worker.status.status import Status
from tests.kit.markov import MarkovBackend

if TYPE_CHECKING:
    from trio.testing import MockClock

    from rbee.adapters.http.sse_server import Send

CONTEXT = FullContext(tokens=512, trained_tokens=2048)


class Bench:
    """A job of an engine whose thread does not run: what that would do, the test does."""

    def __init__(self, limits: Limits) -> None:
        status = Status(1)
        slots = Slots(status, WorkerMetrics(status))
        self.engine = Engine(MarkovBackend(slots=1), slots.deliver)
        job = slots.start(self.engine, "r", [1, 2, 3], Sampling(), 5)
        self.began = trio.current_time()
        self.response = InferenceResponse(job, RequestClock(self.began, limits), None, CONTEXT, narrate=False)

    async def work(self, steps: int, seconds: float) -> None:
        for _ in range(steps):
            await trio.sleep(seconds)
            self.engine._backend.share += 1 / 4096  # a part of one long step

    async def fail(self, steps: int, seconds: float) -> tuple[str, float]:
        """Return why the response failed, and after how many seconds."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.work, steps, seconds)
            with pytest.raises(InferenceTimeoutError) as failed:
                await self.response.whole()
            elapsed = failed.value.details["elapsed"]
            nursery.cancel_scope.cancel()
        return failed.value.message, elapsed


@pytest.mark.parametrize("seconds", [0.01, 1, 30, 59])
async def test_a_prompt_may_be_read_for_any_time_as_long_as_the_engine_does_something(
    seconds: float, autojump_clock: MockClock
) -> None:
    message, elapsed = await Bench(Limits(total=0, silence=60)).fail(100, seconds)
    assert message == "nothing came of the engine for 60 s (0 tokens so far)"
    assert 100 * seconds + 60 <= elapsed <= 100 * seconds + 62


async def test_an_engine_that_does_nothing_ends_the_response(autojump_clock: MockClock) -> None:
    assert await Bench(Limits(total=0, silence=60)).fail(0, 0) == (
        "nothing came of the engine for 60 s (0 tokens so far)",
        60.5,
    )


async def test_the_time_for_which_a_worker_was_stopped_is_no_silence(autojump_clock: MockClock) -> None:
    bench = Bench(Limits(total=0, silence=60))

    async def stop_and_go_on() -> None:
        await bench.work(5, 1)
        autojump_clock.jump(300)
        await bench.work(5, 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_and_go_on)
        with pytest.raises(InferenceTimeoutError) as failed:
            await bench.response.whole()
    assert failed.value.details["elapsed"] >= 5 + 300 + 5 + 60


async def test_a_client_that_goes_before_the_first_word_is_told_of(autojump_clock: MockClock) -> None:
    ended: list[EndedRequest] = []
    bench = Bench(Limits(total=0, silence=60))

    class Gone:
        async def send(self, _: bytes) -> None:
            raise trio.BrokenResourceError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.engine.run)
        response = replace(bench.response, narrate=True, on_ended=ended.append)
        with pytest.raises(trio.BrokenResourceError):
            await response.stream(cast("Send", Gone()))
        nursery.cancel_scope.cancel()
    assert [(one.request_id, one.end) for one in ended] == [("r", "CANCELLED")]


async def test_a_limit_in_all_holds_whatever_the_engine_does(autojump_clock: MockClock) -> None:
    assert await Bench(Limits(total=100, silence=60)).fail(1000, 1) == (
        "the inference did not end within 100 s (0 tokens so far)",
        100,
    )
