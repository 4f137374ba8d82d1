"""The engine when llama.cpp does not do as asked: contexts that fail on purpose, around a real one."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from rbee.concurrency.contained import expected
from rbee.errors import AllSlotsBusyError, RbeeError, WorkerFailedError
from rbee.wire.common import Sampling
from rbee.worker.engine.backend import EngineFailedError, NoRoomError
from rbee.worker.engine.loop import Engine
from rbee.worker.engine.sequence import EngineEvent, JobEnded
from rbee.worker.engine.slots import JobHandle, Slots
from rbee.worker.llama import header
from rbee.worker.llama.context import Context
from rbee.worker.llama.model import Model
from rbee.worker.status.metrics import WorkerMetrics
from rbee.worker.status.status import Status
from tests.kit.models import make

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rbee.worker.engine.backend import Backend, BatchPart

GREEDY = Sampling(temperature=0)


class Failing(Context):
    """Fails at decodes whose number is in `at`, with `error`."""

    at: frozenset[int] = frozenset()
    error: type[Exception] = NoRoomError
    decodes = 0
    gate: threading.Event | None = None

    def decode(self, parts: Sequence[BatchPart]) -> list[int]:
        self.decodes += 1
        if self.gate is not None:
            self.gate.wait()
        if self.decodes in self.at:
            raise self.error("on purpose") if issubclass(self.error, RbeeError) else self.error()
        return super().decode(parts)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = make(tmp_path_factory.mktemp("models") / "tiny.gguf")
    model = Model(path, header.read(path))
    yield model
    model.close()


@pytest.fixture
def context(model: Model) -> Iterator[Failing]:
    context = Failing(model, slots=3, length=512, threads=1)
    yield context
    context.close()


class Bench:
    """An engine and its slots, without HTTP."""

    def __init__(self, backend: Backend) -> None:
        self.vocabulary = backend.vocabulary
        self.status = Status(3)
        self.slots = Slots(self.status, WorkerMetrics(self.status))
        self.engine = Engine(backend, self.slots.deliver)
        self.texts: dict[str, str] = {}
        self.ends: dict[str, JobEnded] = {}
        self.numbers = iter(range(100))

    async def status_is_busy(self, slots: int) -> None:
        """Return once so many requests have been handed to the engine."""
        while self.status.now.slots_busy < slots:
            await self.status.changed.wait()

    async def generate(self, prompt: str, limit: int = 20) -> None:
        tokens = self.vocabulary.tokenize(prompt)
        name = f"{prompt}{next(self.numbers)}"
        async with self.slots.start(self.engine, name, tokens, GREEDY, limit) as job:
            text = ""
            while True:
                events = await job.next()
                text += "".join(item.text for item in events)
                if isinstance(events[-1], JobEnded):
                    self.texts[prompt], self.ends[prompt] = text, events[-1]
                    return


async def test_without_room_the_youngest_waits_and_goes_on(context: Failing) -> None:
    bench = Bench(context)
    context.at = frozenset({3, 4})  # two of three are parked, one after the other
    context.gate = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.engine.run)
        async with trio.open_nursery() as requests:
            for prompt in ("A", "K", "a"):
                requests.start_soon(bench.generate, prompt)
            await bench.status_is_busy(3)
            context.gate.set()
        nursery.cancel_scope.cancel()
    assert bench.texts == {"A": "BCDEFGHIJKLMNOPQRSTU", "K": "LMNOPQRSTUVWXYZABCDE", "a": "bcdefghijklmnopqrstu"}
    assert bench.status.now.slots_busy == 0


async def test_a_lone_request_without_room_fails(context: Failing) -> None:
    bench = Bench(context)
    context.at = frozenset({3})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.engine.run)
        await bench.generate("A")
        assert isinstance(bench.ends["A"].outcome, WorkerFailedError)
        await bench.generate("x")
        nursery.cancel_scope.cancel()
    assert bench.texts["x"] == "yz"


@pytest.mark.parametrize("error", [EngineFailedError, ZeroDivisionError])
async def test_a_failure_ends_every_request_with_an_error(context: Failing, error: type[Exception]) -> None:
    bench = Bench(context)
    context.at, context.error = frozenset({8}), error

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.engine.run)
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as requests:
                    for prompt in ("A", "K", "a"):
                        requests.start_soon(bench.generate, prompt)

    with pytest.raises(BaseExceptionGroup) as failure:
        await run()
    for end in bench.ends.values():
        assert isinstance(end.outcome, WorkerFailedError)
    assert len(bench.ends) == 3
    assert bench.status.now.slots_busy == 0
    found = expected(failure.value)
    assert (found is not None and found.exit_code == 70) == (error is EngineFailedError)


async def test_a_job_that_nobody_enters_gives_its_slot_back(context: Failing) -> None:
    bench = Bench(context)
    tokens = context.vocabulary.tokenize("A")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.engine.run)
        for number in range(9):
            bench.slots.start(bench.engine, str(number), list(tokens), GREEDY, 500)
            with trio.fail_after(5):
                await bench.status.wait_idle()
        nursery.cancel_scope.cancel()


async def test_leaving_early_at_any_moment_gives_the_slot_back(context: Failing) -> None:
    bench = Bench(context)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.engine.run)
        for milliseconds in range(12):
            async with trio.open_nursery() as requests:
                for prompt in ("A", "a" * 400, "K"):
                    requests.start_soon(partial(bench.generate, prompt, 100))
                await trio.sleep(milliseconds / 1000)
                requests.cancel_scope.cancel()
            assert bench.status.now.slots_busy == 0
        await bench.generate("x")
        nursery.cancel_scope.cancel()
    assert bench.texts["x"] == "yz"


async def test_a_slot_whose_reader_is_silent_goes_to_the_next_and_nothing_is_lost(context: Failing) -> None:
    bench = Bench(context)
    context.gate = gate = threading.Event()
    texts = dict.fromkeys("AKa", "")

    async def read(job: JobHandle, prompt: str) -> None:
        async with job:
            events: list[EngineEvent] = []
            while not (events and isinstance(events[-1], JobEnded)):
                events = await job.next()
                texts[prompt] += "".join(event.text for event in events)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.engine.run)
        async with trio.open_nursery() as requests:
            kept = []
            for prompt in texts:
                tokens = context.vocabulary.tokenize(prompt)
                kept.append(bench.slots.start(bench.engine, prompt, tokens, GREEDY, 60))
                requests.start_soon(read, kept[-1], prompt)
            for job in kept[:2]:
                bench.slots.set_silent(job, True)
            assert (bench.status.now.slots_busy, bench.status.now.running) == (1, 3)
            gate.set()
            # One of the two is preempted for each of these.
            async with trio.open_nursery() as others:
                others.start_soon(bench.generate, "x")
                others.start_soon(bench.generate, "w")
            assert bench.texts == {"x": "yz", "w": "xyz"}
            for job in kept[:2]:
                bench.slots.set_silent(job, False)
        assert (bench.status.now.slots_busy, bench.status.now.running) == (0, 0)
        nursery.cancel_scope.cancel()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" * 4
    assert texts == {"A": alphabet[1:61], "K": alphabet[11:71], "a": "bcdefghijklmnopqrstuvwxyz"}


async def test_one_that_was_preempted_can_be_cancelled(context: Failing) -> None:
    bench = Bench(context)
    tokens = context.vocabulary.tokenize("A")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.engine.run)
        kept = [bench.slots.start(bench.engine, str(number), list(tokens), GREEDY, 500) for number in range(3)]
        bench.slots.set_silent(kept[1], True)
        kept.append(bench.slots.start(bench.engine, "4", list(tokens), GREEDY, 500))
        with pytest.raises(AllSlotsBusyError):
            bench.slots.start(bench.engine, "5", list(tokens), GREEDY, 500)
        with trio.fail_after(5):
            await kept[1].cancel()
        assert bench.status.now.slots_busy == 3
        for job in kept:
            await job.cancel()
        nursery.cancel_scope.cancel()
    assert (bench.status.now.slots_busy, bench.status.now.running) == (0, 0)


async def test_slots_are_counted(context: Failing) -> None:
    bench = Bench(context)
    tokens = context.vocabulary.tokenize("A")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.engine.run)
        kept = [bench.slots.start(bench.engine, str(number), list(tokens), GREEDY, 500) for number in range(3)]
        assert bench.status.now.slots_busy == 3
        with pytest.raises(AllSlotsBusyError) as refused:
            bench.slots.start(bench.engine, "4", list(tokens), GREEDY, 500)
        assert refused.value.details == {"slots_total": 3, "slots_busy": 3}
        for job in kept:
            await job.cancel()
        assert bench.status.now.slots_busy == 0
        nursery.cancel_scope.cancel()
