"""The thread that owns the back-end: it decodes all running sequences together, and hands their text to trio."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from rbee.concurrency.background import open_background
from rbee.concurrency.contained import as_error, contained
from rbee.errors import CancelledError, NoNumbersError, RbeeError, WorkerFailedError
from rbee.worker.engine import batching
from rbee.worker.engine.backend import DecodeAbortedError, EngineFailedError, NoRoomError
from rbee.worker.engine.prefix_cache import SAVE_SECONDS, PrefixCache
from rbee.worker.engine.sequence import EngineEvent, EngineSequence, Job, JobEnded, TextEvent
from rbee.worker.engine.thread_count import ThreadCount

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.wire.worker import StopReason
    from rbee.worker.engine.backend import Backend
    from rbee.worker.engine.state_store import StateStore

FRAME_SECONDS: Final = 1 / 60
"""The least time between two deliveries of text to trio, apart from first pieces and ends.

Sending a token costs trio's thread about 0.2 ms of a processor that the compute threads spin on. No eye sees more than
60 changes a second, so tokens that come faster travel together.
"""


class _Cancel(NamedTuple):
    number: int


class _Preempt(NamedTuple):
    number: int


class _Resume(NamedTuple):
    number: int
    slot: int


_STOP: Final = None
CLOSE_SECONDS: Final = 1.0
"""How long states are saved when the engine stops."""
SAVE_INTERVAL: Final = 0.1
"""The least time between two parts of states that are saved while requests run."""


class Engine:
    """Runs jobs, at most one in each slot of `backend`; `deliver` gets their events, a list for each step.

    `deliver` is called in trio's thread. A job's slot is its own until its JobEnded, or until it is preempted.
    """

    def __init__(
        self, backend: Backend, deliver: Callable[[list[EngineEvent]], None], store: StateStore | None = None
    ) -> None:
        self._backend = backend
        self.prefixes = PrefixCache(backend, store)
        self._saved_at = 0.0
        self._vocabulary = backend.vocabulary
        self._deliver = deliver
        # Its put may be called from anywhere, even by a finaliser in this very thread; its get sleeps without polling.
        self._inbox: SimpleQueue[Job | _Cancel | _Preempt | _Resume | None] = SimpleQueue()
        self._sequences: dict[int, EngineSequence] = {}  # by slot
        self._preempted: dict[int, EngineSequence] = {}  # by number
        self._pace = batching.PrefillPace(backend.batch)
        self._thread_count = ThreadCount(backend.threads)
        self._threads = backend.threads
        self._abortable: frozenset[int] = frozenset()
        self._events: list[EngineEvent] = []
        self._must_send = False
        self._sent_at = 0.0
        self._is_over = False
        # Written by the engine's thread alone, and looked into by others.
        self._by_number: dict[int, EngineSequence] = {}
        self.steps = 0
        """Batches that were decoded."""

    @property
    def progress(self) -> float:
        """The batches that were decoded, with the part of the running one: as long as it changes, the engine lives."""
        return self.steps + self._backend.decoded()

    def prompt_read(self, number: int) -> int:
        """Return how many tokens of a job's prompt are read, with the part of the step that runs."""
        sequence = self._by_number.get(number)
        if sequence is None:
            return 0
        # What it waits for is read for it. In this order, which is not that of `_step`: nothing is counted twice.
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
                self._step()
                if self._must_send or time.perf_counter() - self._sent_at >= FRAME_SECONDS:
                    self._send_events()
        except EngineFailedError as exc:
            failure = exc
            raise
        except BaseException:
            failure = WorkerFailedError("the engine failed; the worker's log says more")
            raise
        finally:
            for sequence in (*self._sequences.values(), *self._preempted.values()):
                self._end(sequence, failure)
            self._send_events()
            if not isinstance(failure, EngineFailedError):
                self.prefixes.close(CLOSE_SECONDS)

    def _send_events(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._must_send = False
            self._sent_at = time.perf_counter()
            self._token.run_sync_soon(self._deliver_contained, events)

    def _deliver_contained(self, events: list[EngineEvent]) -> None:
        """Deliver events; trio itself would end with an error of what it calls for a thread."""
        with contained("delivering text"):
            self._deliver(events)

    def _take_messages(self) -> bool:
        """Take what the inbox holds, waiting for something to do; returns False when the engine has to stop."""
        self._abortable = frozenset()
        while True:
            try:
                has_work = self._sequences or self._events or self.prefixes.has_unsaved
                message = self._inbox.get(block=not has_work)
            except Empty:
                return True
            if message is _STOP:
                return False
            match message:
                case Job():
                    self._begin(message)
                case _Cancel(number) if (sequence := self._by_number.get(number)) is not None:
                    self._end(sequence, CancelledError("the request was cancelled"))
                case _Preempt(number) if (sequence := self._by_number.get(number)) is not None:
                    self._vacate(sequence, keeps=True)
                    self._preempted[number] = sequence
                case _Resume(number, slot) if (sequence := self._preempted.pop(number, None)) is not None:
                    sequence.slot = slot
                    self._sequences[slot] = sequence
                    self._look_up(sequence)

    def _begin(self, job: Job) -> None:
        try:
            sequence = EngineSequence(job, self._backend.new_sampler(job.options, job.constraint), time.perf_counter())
            self._sequences[job.slot] = self._by_number[job.number] = sequence
            self._look_up(sequence)
        except EngineFailedError:
            raise
        except Exception as exc:  # noqa: BLE001 (the other jobs go on)
            self._events.append(JobEnded(job.number, "", 0, as_error(exc, "the beginning of a request")))
            self._must_send = True

    def _look_up(self, sequence: EngineSequence) -> None:
        """Give a sequence with no tokens in the memory what is known of its beginning."""
        self.prefixes.begin(sequence, self._sequences.values())

    def _vacate(self, sequence: EngineSequence, *, keeps: bool) -> None:
        """Take a sequence out of its slot and of the memory; those that wait for room are let in."""
        del self._sequences[sequence.slot]
        if keeps:
            self.prefixes.keep(sequence)
        self._backend.remove(sequence.slot)
        sequence.lost()
        sequence.leader = sequence.parts = None
        sequence.is_parked = False
        for other in self._sequences.values():
            if other.is_parked:
                other.is_parked = False
                self._look_up(other)

    def _step(self) -> None:
        self._save_prefixes()
        running = [sequence for sequence in self._sequences.values() if not sequence.is_parked]
        for sequence in running:
            if sequence.is_waiting:
                self.prefixes.advance(sequence, running, SAVE_SECONDS)
        running = [sequence for sequence in running if not sequence.is_waiting]
        self._adapt_threads(running)
        chunks = batching.plan(
            [sequence.pending() for sequence in running],
            batch=self._backend.batch,
            prefill_limit=self._pace.limit(),
            prompt_limit=self._backend.prompt_step,
            scored_limit=self._backend.scored_step,
        )
        if not chunks or (rows := self._decode(chunks)) is None:
            return
        self.steps += 1
        is_alone = len(chunks) == 1
        for chunk, row in zip(chunks, rows, strict=True):
            sequence = self._sequences[chunk.sequence]
            if is_alone and sequence.exact == sequence.cached and chunk.tokens == self._backend.prompt_step:
                sequence.exact += chunk.tokens
            self._go_on(sequence, chunk, row)

    def _save_prefixes(self) -> None:
        """Save a part of what the store wants: at once where nothing runs, and now and then where something does."""
        now = time.perf_counter()
        if self.prefixes.has_unsaved and (not self._sequences or now - self._saved_at >= SAVE_INTERVAL):
            self._saved_at = now
            self.prefixes.save_some()

    def _go_on(self, sequence: EngineSequence, chunk: batching.Chunk, row: int) -> None:
        """Take in what was decoded, and sample; what goes wrong with one request's options or text ends that alone."""
        try:
            if not sequence.is_scored:
                sequence.score(chunk, row)
            sequence.cached += chunk.tokens
            if sequence.cached in sequence.marks and not self._backend.can_cut:
                self.prefixes.save_whole(sequence)
            if chunk.is_last:
                self._sample(sequence, row)
        except EngineFailedError:
            raise
        except Exception as exc:  # noqa: BLE001 (see above)
            self._end(sequence, as_error(exc, "a request"))

    def _decode(self, chunks: list[batching.Chunk]) -> list[int] | None:
        """Decode one batch; returns None where another one has to be planned."""
        backend = self._backend
        backend.clear_abort()
        # A lone sequence is aborted at once. Where others would lose their step, only a part of a prompt is worth it.
        self._abortable = frozenset(
            self._sequences[chunk.sequence].number for chunk in chunks if chunk.tokens > 1 or len(chunks) == 1
        )
        if not self._inbox.empty():
            return None
        sequences = [self._sequences[chunk.sequence] for chunk in chunks]
        parts = [sequence.part(chunk) for sequence, chunk in zip(sequences, chunks, strict=True)]
        started, used = time.perf_counter(), time.process_time()
        for sequence, chunk in zip(sequences, chunks, strict=True):
            sequence.decoding = chunk.tokens
        try:
            rows = backend.decode(parts)
        except DecodeAbortedError:
            self._repair(chunks)
            return None
        except NoRoomError:
            if not self.prefixes.make_room():
                self._park_youngest()
            return None
        finally:
            for sequence in sequences:
                sequence.decoding = 0
        seconds = time.perf_counter() - started
        if prefill := sum(chunk.tokens for chunk in chunks if chunk.tokens > 1):
            self._pace.observe(prefill, seconds)
        elif self._threads == self._thread_count.threads:
            self._thread_count.observe(seconds, time.process_time() - used)
        return rows

    def _adapt_threads(self, running: list[EngineSequence]) -> None:
        """Choose how many threads compute single tokens: as many as are of use, or always the same number.

        The number decides in which order numbers are added up, and so, once in a while, which token is the likeliest.
        A sequence with a seed that has the engine to itself gets the same text whatever else the machine does.
        """
        is_fixed = len(running) == 1 and running[0].is_seeded
        threads = self._thread_count.most if is_fixed else self._thread_count.threads
        if threads != self._threads:
            self._threads = threads
            self._backend.set_threads(threads)

    def _repair(self, chunks: list[batching.Chunk]) -> None:
        """Take out of the memory whatever an aborted decode left there."""
        for chunk in chunks:
            sequence = self._sequences[chunk.sequence]
            if not self._backend.remove(sequence.slot, sequence.cached):
                self._backend.remove(sequence.slot)
                sequence.lost()
                self._look_up(sequence)

    def _park_youngest(self) -> None:
        """Give up the room of the sequence that came last; it is decoded anew once another one has ended."""
        *others, youngest = [
            sequence for sequence in self._sequences.values() if not sequence.is_parked and not sequence.is_waiting
        ]
        if not others:
            self._end(youngest, WorkerFailedError("the context has no room for this request"))
            return
        self._backend.remove(youngest.slot)
        youngest.lost()
        youngest.is_parked = True

    def _sample(self, sequence: EngineSequence, row: int) -> None:
        try:
            token = sequence.sampler.sample(row)
        except NoNumbersError as exc:
            self._end(sequence, exc)
            return
        sequence.sampled(time.perf_counter())
        if self._vocabulary.is_end(token):
            self._end(sequence, "eos")
            return
        sequence.tokens.append(token)
        if (logprob := sequence.sampler.logprob) is not None:
            sequence.logprobs.append(logprob)
        text = sequence.text.feed(self._vocabulary.piece(token, control=sequence.shows_control))
        if sequence.text.is_stopped:
            self._end(sequence, "stop", text)
        elif sequence.generated >= sequence.limit:
            self._end(sequence, "length", text)
        elif text or sequence.logprobs:
            self._events.append(TextEvent(sequence.number, text, sequence.generated, sequence.take_logprobs()))
            self._must_send |= not sequence.has_output
            sequence.has_output = True

    def _end(self, sequence: EngineSequence, outcome: StopReason | RbeeError, text: str = "") -> None:
        """End a job, and take its sequence out of the memory; the one place where jobs end."""
        del self._by_number[sequence.number]
        if self._preempted.pop(sequence.number, None) is None:
            # What failed may have left nonsense; a request that was cancelled has not.
            self._vacate(sequence, keeps=not isinstance(outcome, RbeeError) or isinstance(outcome, CancelledError))
        sequence.sampler.close()
        if not isinstance(outcome, RbeeError):
            text += sequence.text.finish()
        self._events.append(sequence.ended(outcome, text))
        self._must_send = True
