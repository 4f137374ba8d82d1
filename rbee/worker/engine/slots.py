"""Gives out slots to jobs, and hands each the events of its sequence."""

from __future__ import annotations

import itertools
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import trio

from rbee.concurrency.contained import contained
from rbee.errors import AllSlotsBusyError, CancelledError, InvalidRequestError, RbeeError
from rbee.worker.engine.sequence import EngineEvent, Job, JobEnded

if TYPE_CHECKING:
    from collections.abc import Container

    from rbee.wire.common import Sampling
    from rbee.worker.engine.backend import Constraint
    from rbee.worker.engine.loop import Engine
    from rbee.worker.status.metrics import WorkerMetrics
    from rbee.worker.status.status import Status

CANCEL_SECONDS: Final = 5.0
"""How long the end of a cancelled job is waited for; it takes a decode step, and most of a prompt none."""


class _RunningJob:
    """The table's side of a job. `slot` is None while another job has what was its slot."""

    def __init__(self, job: Job, send: trio.MemorySendChannel[EngineEvent], engine: Engine) -> None:
        self.number = job.number
        self.slot: int | None = job.slot
        self.is_silent = False
        self.prompt_tokens = len(job.prompt)
        self.send = send
        self.engine = engine
        self.ended = trio.Event()
        self.tokens = 0
        self.prompt_read = 0
        self.limit = job.limit
        self.cause: RbeeError | None = None


class JobHandle:
    """What a request holds of its job: the events, until the job has ended.

    The job has a slot to itself until then, unless its reader is silent (see `Slots.set_silent`). Leaving `async with`
    early ends the job, and waits for that; an error of ours that does so is what it ended by. A handle that is dropped
    without being entered, because its reader went away first, cancels the job too.
    """

    def __init__(self, request_id: str, running: _RunningJob, receive: trio.MemoryReceiveChannel[EngineEvent]) -> None:
        self.request_id = request_id
        self.prompt_tokens = running.prompt_tokens
        self._running = running
        self._receive = receive
        self._guard = weakref.finalize(self, running.engine.cancel, running.number)
        self._guard.atexit = False

    @property
    def number(self) -> int:
        """The job's number in the engine."""
        return self._running.number

    @property
    def has_ended(self) -> bool:
        """Whether the job's sequence is out of the engine."""
        return self._running.ended.is_set()

    @property
    def tokens(self) -> int:
        """Tokens generated so far, as far as they made text."""
        return self._running.tokens

    @property
    def limit(self) -> int:
        """The most tokens that it may generate."""
        return self._running.limit

    @property
    def prompt_read(self) -> int:
        """Tokens of the prompt that are read; never fewer than it said before."""
        running = self._running
        running.prompt_read = max(running.prompt_read, running.engine.prompt_read(running.number))
        return running.prompt_read

    @property
    def progress(self) -> float:
        """A number that changes as long as the engine computes, for this job or for others."""
        return self._running.engine.progress

    async def next(self) -> list[EngineEvent]:
        """Wait for events; returns all there are, in order. After a JobEnded there is nothing more."""
        events = [await self._receive.receive()]
        while True:
            try:
                events.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                return events

    async def cancel(self, cause: RbeeError | None = None) -> None:
        """End the job, and return when its sequence is out of the engine."""
        running = self._running
        if not running.ended.is_set():
            running.cause = running.cause or cause
            running.engine.cancel(running.number)
            await running.ended.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _kind: object, value: BaseException | None, _trace: object) -> None:
        self._receive.close()
        self._guard.detach()
        with trio.move_on_after(CANCEL_SECONDS, shield=True):
            await self.cancel(value if isinstance(value, RbeeError) else None)


class Slots:
    """All slots of the worker; used in trio's thread only, where nothing else runs between two awaits."""

    def __init__(self, status: Status, metrics: WorkerMetrics) -> None:
        self._status = status
        self._metrics = metrics
        self._total = status.now.slots_total
        self._free = list(range(self._total))
        self._running: dict[int, _RunningJob] = {}  # by number, oldest first
        self._by_request: weakref.WeakValueDictionary[str, JobHandle] = weakref.WeakValueDictionary()
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"<Slots {len(self._running)} running, {len(self._free)} free>"

    def check_slot(self) -> None:
        """Raise AllSlotsBusyError when a request would get no slot."""
        if not self._free and self._preemptible() is None:
            raise self._busy()

    def _busy(self) -> AllSlotsBusyError:
        busy = "the only slot is" if self._total == 1 else f"all {self._total} slots are"
        return AllSlotsBusyError(f"{busy} busy", slots_total=self._total, slots_busy=self._total)

    def check_new(self, request_id: str, others: Container[str] = ()) -> None:
        """Raise InvalidRequestError when a request of this id runs, or is one of `others`."""
        if request_id in others or self.find(request_id) is not None:
            raise InvalidRequestError(
                "field request_id: a request with this id is running", field="request_id", rule="not in use"
            )

    def find(self, request_id: str) -> JobHandle | None:
        """Return the job of a request that runs."""
        job = self._by_request.get(request_id)
        return None if job is None or job.has_ended else job

    def start(
        self,
        engine: Engine,
        request_id: str,
        prompt: list[int],
        options: Sampling,
        limit: int,
        *,
        constraint: Constraint | None = None,
        shows_control: bool = False,
        scored: int = 0,
        salt: bytes = b"",
        uses_cache: bool = True,
    ) -> JobHandle:
        """Take a slot and start a job of at most `limit` tokens; what else there is are fields of Job.

        Raises AllSlotsBusyError or InvalidRequestError. Between the check and the taking nothing can happen.
        """
        self.check_new(request_id)
        number, slot = next(self._numbers), self._take_slot()
        job = Job(number, slot, prompt, options, limit, constraint, shows_control, scored, salt, uses_cache)
        # Each token makes at most one event, so a reader that stalls costs bounded memory and the engine never waits.
        send, receive = trio.open_memory_channel[EngineEvent](limit + 1)
        running = self._running[job.number] = _RunningJob(job, send, engine)
        handle = self._by_request[request_id] = JobHandle(request_id, running, receive)
        self._publish()
        engine.start(job)
        return handle

    def _take_slot(self) -> int:
        """Return a slot for a new job. Raises AllSlotsBusyError."""
        if self._free:
            # The one freed last: its cells are the likeliest to be in the processor's cache.
            return self._free.pop()
        if (preemptible := self._preemptible()) is None:
            raise self._busy()
        running, slot = preemptible
        running.engine.preempt(running.number)
        running.slot = None
        return slot

    def _preemptible(self) -> tuple[_RunningJob, int] | None:
        """Return the oldest job in a slot whose reader is silent, and its slot."""
        silent = (
            (running, running.slot)
            for running in self._running.values()
            if running.is_silent and running.slot is not None
        )
        return next(silent, None)

    def set_silent(self, handle: JobHandle, is_silent: bool) -> None:
        """Say that the reader of a job takes nothing any more, or that it does again.

        It may have gone without a word, or be slow. So its slot counts as free, but it keeps it until another request
        needs it; then the job is preempted, and goes on in the next free slot once its reader reads again.
        """
        running = handle._running
        if not running.ended.is_set() and running.is_silent != is_silent:
            running.is_silent = is_silent
            self._resume()
            self._publish()

    def _resume(self) -> None:
        """Give free slots to preempted jobs whose readers read again."""
        for running in self._running.values():
            if self._free and running.slot is None and not running.is_silent:
                running.slot = self._free.pop()
                running.engine.resume(running.number, running.slot)

    def _publish(self) -> None:
        taken = sum(running.slot is not None and not running.is_silent for running in self._running.values())
        self._status.set_busy(taken, len(self._running))

    def deliver(self, events: list[EngineEvent]) -> None:
        for event in events:
            if (running := self._running.get(event.number)) is None:
                continue  # what comes after an end
            running.tokens = event.tokens
            # Where nobody reads any more, the cancellation is on its way.
            with contained("delivering text"), suppress(trio.BrokenResourceError):
                running.send.send_nowait(self._finish(running, event) if isinstance(event, JobEnded) else event)

    def _finish(self, running: _RunningJob, ended: JobEnded) -> JobEnded:
        """Give the slot back: the one place where that happens, and so where requests are counted."""
        if isinstance(ended.outcome, CancelledError) and running.cause is not None:
            ended = ended._replace(outcome=running.cause)
        self._metrics.ended(ended.outcome, prompt=running.prompt_tokens, generated=ended.tokens, cached=ended.cached)
        del self._running[running.number]
        if running.slot is not None:
            self._free.append(running.slot)
            self._resume()
        running.ended.set()
        self._publish()
        return ended

    def cancel_all(self, cause: RbeeError) -> None:
        """Ask for the end of every job; the status says when it is reached."""
        for running in self._running.values():
            running.cause = running.cause or cause
            running.engine.cancel(running.number)
