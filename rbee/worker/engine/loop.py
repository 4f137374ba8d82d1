"""The thread that owns the back-end: it decodes all running sequences together, and hands their text to trio."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from rbee.concurrency.background import open_background
from rbee.concurrency.contained import contained
from rbee.errors import WorkerFailedError
from rbee.worker.engine.backend import EngineFailedError
from rbee.worker.engine.batching import LONGEST_PAUSE
from rbee.worker.engine.sequence import EngineEvent, Job, JobEnded
from rbee.worker.engine.stepper import Stepper

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.worker.engine.backend import Backend
    from rbee.worker.engine.state_store import StateStore

FRAME_SECONDS: Final = 1 / 60
"""The least time between two deliveries of text to trio, apart from first pieces and ends.

Sending a token costs trio's thread about 0.2 ms of a processor that the compute threads spin on. No eye sees more than
60 changes a second, so tokens that come faster travel together.
"""
FRAME_SECONDS_OF_EACH: Final = 1 / 120
MOST_FRAME_SECONDS: Final = 0.1
"""With several texts they travel together for so long for each of them, at most: ten changes a second are still a text
that flows, and sending is not what eight streams spend a tenth of the processors on."""
STORE_SECONDS: Final = 0.2
"""After which an engine without jobs sees whether the store takes more."""


class _Cancel(NamedTuple):
    number: int


class _Preempt(NamedTuple):
    number: int


class _Resume(NamedTuple):
    number: int
    slot: int


_STOP: Final = None


class Engine:
    """Runs jobs, at most one in each slot of `backend`; `deliver` gets their events, a list for each step.

    `store` has what earlier engines of the same model have computed; with `guesses` tokens may be computed before it
    is clear that they come (`draft`). `longest_pause` is how many seconds a job may wait for its next token because of
    prompts of others. `deliver` is called in trio's thread. A job's slot is its own until its JobEnded, or until it is
    preempted.
    """

    def __init__(
        self,
        backend: Backend,
        deliver: Callable[[list[EngineEvent]], None],
        store: StateStore | None = None,
        *,
        guesses: bool = True,
        longest_pause: float = LONGEST_PAUSE,
    ) -> None:
        self._backend = backend
        self._deliver = deliver
        self.stepper = Stepper(backend, store, self._may_decode, guesses=guesses, longest_pause=longest_pause)
        # Its put may be called from anywhere, even by a finaliser in this very thread; its get sleeps without polling.
        self._inbox: SimpleQueue[Job | _Cancel | _Preempt | _Resume | None] = SimpleQueue()
        self._abortable: frozenset[int] = frozenset()
        self._sent_at = 0.0
        self._is_over = False

    @property
    def progress(self) -> float:
        """The batches that were decoded, with the part of the running one: as long as it changes, the engine lives."""
        return self.stepper.steps + self._backend.decoded()

    def prompt_read(self, number: int) -> int:
        """Return how many tokens of a job's prompt are read, with the part of the step that runs."""
        sequence = self.stepper.by_number.get(number)
        if sequence is None:
            return 0
        # What it waits for is read for it. In this order, which is not that of a step: nothing is counted twice.
        if (leader := sequence.leader) is not None:
            return min(sequence.follow_length, leader.cached + int(leader.decoding * self._backend.decoded()))
        cached, decoding = sequence.cached, sequence.decoding
        return min(sequence.prompt_length, cached + int(decoding * self._backend.decoded()))

    def start(self, job: Job) -> None:
        """Begin a job in a free slot; once the engine has stopped it ends at once with an error."""
        self._inbox.put(job)
        if self._is_over:
            self._refuse_rest()

    def cancel(self, number: int) -> None:
        """End a job, if it still runs: its JobEnded comes soon, even from within a long prompt."""
        self._interrupt(number, _Cancel(number))

    def preempt(self, number: int) -> None:
        """Take a job out of its slot, which another may be given at once; `resume` lets it go on."""
        self._interrupt(number, _Preempt(number))

    def resume(self, number: int, slot: int) -> None:
        """Let a preempted job go on in a free slot; all its tokens are decoded anew."""
        self._inbox.put(_Resume(number, slot))

    def _interrupt(self, number: int, message: _Cancel | _Preempt) -> None:
        self._inbox.put(message)
        # In this order: the engine publishes what it decodes and then looks into the inbox once more, so either it
        # sees the message before it decodes, or we see the number here.
        if number in self._abortable:
            self._backend.abort()

    async def run(self) -> None:
        """Run the thread until cancelled; jobs that run then end with an error. Jobs may be started before.

        Raises EngineFailedError when the back-end is of no use any more.
        """
        self._token = trio.lowlevel.current_trio_token()
        async with open_background() as nursery:
            nursery.start_soon(self._stop_when_cancelled)
            try:
                await trio.to_thread.run_sync(self._loop, limiter=trio.CapacityLimiter(1))
            finally:
                self._is_over = True
                self._refuse_rest()

    async def _stop_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._inbox.put(_STOP)
            self._backend.abort()

    def _refuse_rest(self) -> None:
        """Answer what came too late for the thread to see."""
        with suppress(Empty):
            while True:
                message = self._inbox.get_nowait()
                if isinstance(message, Job):
                    self._deliver([JobEnded(message.number, "", 0, WorkerFailedError("the worker has stopped"))])

    # From here on everything runs in the engine thread.

    def _loop(self) -> None:
        failure = WorkerFailedError("the worker has stopped")
        try:
            while self._take_messages():
                self.stepper.step()
                if self.stepper.must_send or time.perf_counter() - self._sent_at >= _frame(len(self.stepper.sequences)):
                    self._send_events()
        except EngineFailedError as exc:
            failure = exc
            raise
        except BaseException:
            failure = WorkerFailedError("the engine failed; the worker's log says more")
            raise
        finally:
            self.stepper.end_all(failure)
            self._send_events()

    def _send_events(self) -> None:
        if events := self.stepper.take_events():
            self._sent_at = time.perf_counter()
            self._token.run_sync_soon(self._deliver_contained, events)

    def _deliver_contained(self, events: list[EngineEvent]) -> None:
        """Deliver events; trio itself would end with an error of what it calls for a thread."""
        with contained("delivering text"):
            self._deliver(events)

    def _may_decode(self, abortable: frozenset[int]) -> bool:
        """Publish which jobs a decode may be aborted for; returns False where a message has come meanwhile."""
        self._abortable = abortable
        return self._inbox.empty()

    def _take_messages(self) -> bool:
        """Take what the inbox holds, waiting for something to do; returns False when the engine has to stop."""
        self._abortable = frozenset()
        while True:
            try:
                has_to_look = self.stepper.prefixes.has_unsaved
                message = self._inbox.get(not self.stepper.has_work, STORE_SECONDS if has_to_look else None)
            except Empty:
                return True
            match message:
                case Job():
                    self.stepper.begin(message)
                case _Cancel(number):
                    self.stepper.cancel(number)
                case _Preempt(number):
                    self.stepper.preempt(number)
                case _Resume(number, slot):
                    self.stepper.resume(number, slot)
                case _:
                    return False  # _STOP


def _frame(texts: int) -> float:
    """Return the least seconds between two deliveries where so many texts are written."""
    return min(max(FRAME_SECONDS, texts * FRAME_SECONDS_OF_EACH), MOST_FRAME_SECONDS)
