"""Answers of real engines whose beginnings were computed before: the same as without, for every kind of memory."""

from __future__ import annotations

from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import pytest
import trio

from rbee.concurrency.background import open_background
from rbee.errors import WorkerFailedError
from rbee.wire.common import Sampling
from rbee.worker.engine.loop import Engine
from rbee.worker.engine.sequence import EngineEvent, JobEnded
from rbee.worker.engine.slots import JobHandle, Slots
from rbee.worker.llama import header
from rbee.worker.llama.context import Context
from rbee.worker.llama.model import Model
from rbee.worker.status.metrics import WorkerMetrics
from rbee.worker.status.status import Status
from tests.kit import odd_models
from tests.kit.models import make
from tests.kit.other_memories import make_recurrent, make_windowed
from tests.kit.prefix_dict import PrefixDict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SLOTS, LENGTH = 3, 400
STORY = "There was a bee, and it had something to say about the weather. " * 3
MEMORIES = {
    "attention": lambda path: make(path, random=True),
    "window": make_windowed,
    "recurrent": make_recurrent,
    "hybrid": lambda path: odd_models.hybrid(path, random=True),
}


class Bench:
    """A real engine without HTTP."""

    def __init__(self, model: Model, *, slots: int = SLOTS, store: PrefixDict | None = None) -> None:
        self.model = model
        self.context = Context(model, slots=slots, length=LENGTH, threads=1)
        status = Status(slots)
        self.slots = Slots(status, WorkerMetrics(status))
        self.engine = Engine(self.context, self.slots.deliver, store)
        self._count = 0

    async def answer(
        self, prompt: str | list[int], limit: int = 24, *, uses_cache: bool = True
    ) -> tuple[str, JobEnded]:
        return await self.read(self.start(prompt, limit, uses_cache=uses_cache))

    def start(self, prompt: str | list[int], limit: int = 24, *, uses_cache: bool = True) -> JobHandle:
        self._count += 1
        tokens = self.model.tokenize(prompt) if isinstance(prompt, str) else prompt
        sampling = Sampling(temperature=0)
        return self.slots.start(self.engine, str(self._count), tokens, sampling, limit, uses_cache=uses_cache)

    async def read(self, job: JobHandle) -> tuple[str, JobEnded]:
        events: list[EngineEvent] = []
        async with job:
            while not events or not isinstance(events[-1], JobEnded):
                events += await job.next()
        ended = events[-1]
        assert isinstance(ended, JobEnded)
        return "".join(event.text for event in events), ended

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with closing(self.context), trio.fail_after(300):
            async with open_background() as background:
                background.start_soon(self.engine.run)
                yield


@pytest.fixture(params=MEMORIES)
def model(tmp_path: Path, request: pytest.FixtureRequest) -> object:
    path = MEMORIES[request.param](tmp_path / "model.gguf")
    with closing(Model(path, header.read(path))) as model:
        yield model


async def test_the_text_is_the_same_with_and_without(model: Model) -> None:
    """A conversation of three turns, a fork of it, and the same prompt once more."""
    store = PrefixDict(None if model.is_recurrent else 16)
    bench = Bench(model, store=store)
    known = []
    async with bench.running():
        prompt = STORY
        for _ in range(3):
            expected, _ = await bench.answer(prompt, uses_cache=False)
            text, ended = await bench.answer(prompt)
            assert text == expected
            known.append(ended.cached)
            prompt += text + " And then? "
        fork = STORY + "Or was it a wasp?"
        expected, _ = await bench.answer(fork, uses_cache=False)
        assert (await bench.answer(fork))[0] == expected
        text, ended = await bench.answer(fork)
        assert text == expected
        assert ended.cached >= len(fork) - 8
    assert known[0] == 0
    assert known[1] >= len(STORY) - 8
    assert known[2] > known[1] + 20
    # What was saved is right in another context.
    bench = Bench(model, store=store)
    async with bench.running():
        text, ended = await bench.answer(fork)
        assert text == expected
        assert ended.cached >= len(STORY) - 16


async def test_together_they_compute_a_beginning_once(model: Model) -> None:
    prompts = [f"{STORY}{letter}" for letter in "abc"]
    bench = Bench(model)
    async with bench.running():
        expected = [(await bench.answer(prompt, uses_cache=False))[0] for prompt in prompts]
    bench = Bench(model, store=PrefixDict(None if model.is_recurrent else 16))
    jobs = [bench.start(prompt) for prompt in prompts]  # before the engine runs, so that none is late
    async with bench.running():
        found = [await bench.read(job) for job in jobs]
    # Several at once are computed in another shape than one alone: the last bits, and so a text, may differ.
    assert sum(text == alone for (text, _), alone in zip(found, expected, strict=True)) >= 2
    assert sorted(ended.cached for _, ended in found)[1:] == [len(STORY) + 1] * 2


@pytest.mark.parametrize("slots", [1, 64])
async def test_prompts_of_one_token_and_of_the_whole_context(tmp_path: Path, slots: int) -> None:
    path = make(tmp_path / "model.gguf")
    with closing(Model(path, header.read(path))) as model:
        bench = Bench(model, slots=slots)
        async with bench.running():
            assert (await bench.answer([5], 3))[1].outcome in ("length", "eos")
            whole = model.tokenize("A" * LENGTH)[: LENGTH - 1]
            for cached in (0, LENGTH - 2):
                text, ended = await bench.answer(whole, 1)
                assert (text, ended.outcome, ended.cached) == ("B", "length", cached)


async def test_many_prompts_that_differ_are_forgotten_in_their_order(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    count = 10_000 if pytestconfig.getoption("--full") else 400
    path = make(tmp_path / "model.gguf", layers=1)
    with closing(Model(path, header.read(path))) as model:
        bench = Bench(model, slots=1)
        async with bench.running():
            for number in range(count):
                text, ended = await bench.answer(f"{number:04}" * 4 + "M", 2)
                assert text == "NO"
                assert ended.cached <= 10
            assert (await bench.answer(f"{count - 1:04}" * 4 + "M", 2))[1].cached == 17


async def test_a_prompt_that_does_not_fit_with_what_is_kept(tmp_path: Path) -> None:
    """What is kept makes room; a request alone that is too long for all of it fails."""
    path = make(tmp_path / "model.gguf", layers=1)
    with closing(Model(path, header.read(path))) as model:
        bench = Bench(model, slots=1)
        async with bench.running():
            for letter in "ABC":
                assert isinstance((await bench.answer(letter * 300, 2))[1].outcome, str)
            _, ended = await bench.answer("A" * 600, 2)
            assert isinstance(ended.outcome, WorkerFailedError)
            assert "no room" in ended.outcome.message
            assert isinstance((await bench.answer("B" * 300, 2))[1].outcome, str)
