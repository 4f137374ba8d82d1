"""How long a response may last: as long as the engine does something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from rbee.errors import InferenceTimeoutError
from rbee.wire.common import Sampling
from rbee.wire.worker import FullContext
from rbee.worker.engine.loop import Engine
from rbee.worker.engine.slots import Slots
from rbee.worker.serving.responses import InferenceResponse, Limits
from rbee.worker.status.metrics import WorkerMetrics
from rbee.worker.status.status import Status
from tests.kit.markov import MarkovBackend

if TYPE_CHECKING:
    from trio.testing import MockClock

CONTEXT = FullContext(tokens=512, trained_tokens=2048)


class Bench:
    """A job of an engine whose thread does not run: what that would do, the test does."""

    def __init__(self, limits: Limits) -> None:
        status = Status(1)
        slots = Slots(status, WorkerMetrics(status))
        self.engine = Engine(MarkovBackend(slots=1), slots.deliver)
        job = slots.start(self.engine, "r", [1, 2, 3], Sampling(), 5)
        self.began = trio.current_time()
        self.response = InferenceResponse(job, self.began, limits, None, CONTEXT, narrate=False)

    async def work(self, steps: int, seconds: float) -> None:
        for _ in range(steps):
            await trio.sleep(seconds)
            self.engine.steps += 1

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


async def test_a_limit_in_all_holds_whatever_the_engine_does(autojump_clock: MockClock) -> None:
    assert await Bench(Limits(total=100, silence=60)).fail(1000, 1) == (
        "the inference did not end within 100 s (0 tokens so far)",
        100,
    )
