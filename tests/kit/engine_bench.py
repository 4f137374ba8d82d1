"""An engine and its slots over a back-end of `tests.kit.markov`, without HTTP."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from rbee.concurrency.background import open_background
from rbee.wire.common import Sampling
from rbee.worker.engine.loop import Engine
from rbee.worker.engine.sequence import JobEnded
from rbee.worker.engine.slots import JobHandle, Slots
from rbee.worker.status.metrics import WorkerMetrics
from rbee.worker.status.status import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rbee.worker.engine.sequence import EngineEvent
    from rbee.worker.engine.state_store import StateStore
    from tests.kit.markov import MarkovBackend

SECONDS = 20


class Bench:
    """An engine and its slots."""

    def __init__(self, backend: MarkovBackend, store: StateStore | None = None, *, guesses: bool = True) -> None:
        self.backend = backend
        self.status = Status(backend.slots)
        self.slots = Slots(self.status, WorkerMetrics(self.status))
        self.events: list[EngineEvent] = []
        self.engine = Engine(backend, self._deliver, store, guesses=guesses)
        self._numbers = itertools.count()

    def _deliver(self, events: list[EngineEvent]) -> None:
        self.events += events
        self.slots.deliver(events)

    def start(
        self,
        prompt: str,
        limit: int,
        *,
        stop: list[str] | None = None,
        seed: int | None = None,
        scored: bool = False,
        salt: bytes = b"",
        uses_cache: bool = True,
    ) -> JobHandle:
        tokens = self.backend.vocabulary.tokenize(prompt)
        options = Sampling(temperature=0, stop=stop, seed=seed)
        return self.slots.start(
            self.engine,
            str(next(self._numbers)),
            tokens,
            options,
            limit,
            scored=(len(tokens) - 1) * scored,
            salt=salt,
            uses_cache=uses_cache,
        )

    def scored(self, job: JobHandle) -> list[tuple[int, float | None]]:
        """Return the tokens of a job's prompt that were scored, and how."""
        told = [one for event in self.events if event.number == job.number for one in event.logprobs]
        return [(one.chosen.token, one.chosen.logprob) for one in told]

    def check_clean(self) -> None:
        """Nothing may be left of any job but what is kept for others."""
        assert self.backend.memory[: self.backend.slots] == [[] for _ in range(self.backend.slots)]
        assert self.backend.samplers == 0
        assert (self.status.now.slots_busy, self.status.now.running) == (0, 0)


async def read(job: JobHandle) -> tuple[str, JobEnded]:
    """Read a job to its end."""
    text = ""
    async with job:
        while True:
            events = await job.next()
            text += "".join(event.text for event in events)
            if isinstance(events[-1], JobEnded):
                return text, events[-1]


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[trio.Nursery]:
    """Run the engine until all tasks of the nursery have ended; nothing may be left then."""
    with trio.fail_after(SECONDS):
        async with open_background() as background:
            background.start_soon(bench.engine.run)
            async with trio.open_nursery() as nursery:
                yield nursery
    bench.check_clean()
