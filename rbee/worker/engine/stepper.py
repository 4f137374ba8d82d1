"""Computes the running sequences step by step, in the engine's thread, and says what came of each."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from rbee.concurrency.contained import as_error
from rbee.errors import CancelledError, RbeeError, WorkerFailedError
from rbee.narrower_errors import NoNumbersError
from rbee.worker.engine import batching, pool_room
from rbee.worker.engine.backend import DecodeAbortedError, EngineFailedError, NoRoomError
from rbee.worker.engine.draft import Drafter, Speculation
from rbee.worker.engine.prefix_cache import SAVE_SECONDS, PrefixCache
from rbee.worker.engine.sequence import EngineEvent, EngineSequence, Job, JobEnded, TextEvent
from rbee.worker.engine.thread_count import ThreadCount

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.wire.worker import StopReason
    from rbee.worker.engine.backend import Backend
    from rbee.worker.engine.state_store import StateStore

log = logging.getLogger(__name__)

CLOSE_SECONDS: Final = 1.0
"""How long states are saved when the engine stops."""
SAVE_INTERVAL: Final = 0.1
"""The least time between two parts of states that are saved while requests run."""


class Stepper:
    """The sequences of one engine. Before each decode `may_decode` is told which jobs an abort is worth.

    Where it returns False, something else has to be looked at first. `sequences` are by slot, and `by_number` has those
    too that have no slot at present; other threads look into it.
    """

    def __init__(
        self,
        backend: Backend,
        store: StateStore | None,
        may_decode: Callable[[frozenset[int]], bool],
        *,
        guesses: bool,
        longest_pause: float,
    ) -> None:
        self._backend = backend
        self._vocabulary = backend.vocabulary
        self._may_decode = may_decode
        self.prefixes = PrefixCache(backend, store)
        self.speculation = Speculation()
        self._guesses = guesses and backend.can_cut
        self._skips_guesses = False
        self._saves_until: float | None = None
        """Until when what has to make room is saved first, from the first decode that found none to one that does."""
        self._saved_at = 0.0
        self.sequences: dict[int, EngineSequence] = {}
        self.by_number: dict[int, EngineSequence] = {}
        self._preempted: dict[int, EngineSequence] = {}
        self._pace = batching.PrefillPace(backend.batch, longest_pause)
        self.thread_count = ThreadCount(backend.threads)
        self._threads = backend.threads
        self._events: list[EngineEvent] = []
        self.must_send = False
        """Whether the events should be sent without delay."""
        self.steps = 0
        """Batches that were decoded."""

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do, or to be sent."""
        return bool(self.sequences or self._events or self.prefixes.can_save)

    def take_events(self) -> list[EngineEvent]:
        """Return what has happened since the last time."""
        events, self._events = self._events, []
        self.must_send = False
        return events

    def cancel(self, number: int) -> None:
        """End a job, if it still runs."""
        if (sequence := self.by_number.get(number)) is not None:
            self._end(sequence, CancelledError("the request was cancelled"))

    def preempt(self, number: int) -> None:
        """Take a job out of its slot, if it still runs."""
        if (sequence := self.by_number.get(number)) is not None:
            self._vacate(sequence, keeps=True)
            self._preempted[number] = sequence

    def resume(self, number: int, slot: int) -> None:
        """Let a job that was preempted go on in another slot."""
        if (sequence := self._preempted.pop(number, None)) is not None:
            sequence.slot = slot
            self.sequences[slot] = sequence
            self._let_in(sequence, comes_back=True)

    def end_all(self, failure: RbeeError) -> None:
        """End every job with this error, and save what is to outlive the engine."""
        for sequence in (*self.sequences.values(), *self._preempted.values()):
            self._end(sequence, failure)
        if not isinstance(failure, EngineFailedError):
            self.prefixes.close(CLOSE_SECONDS)

    def begin(self, job: Job) -> None:
        """Begin a job in its slot, which is free."""
        try:
            sequence = EngineSequence(job, self._backend.new_sampler(job.options, job.constraint), time.perf_counter())
            self.sequences[job.slot] = self.by_number[job.number] = sequence
            self._let_in(sequence, comes_back=False)
        except EngineFailedError:
            raise
        except Exception as exc:  # noqa: BLE001 (the other jobs go on)
            error = as_error(exc, "the beginning of a request")
            if (begun := self.by_number.get(job.number)) is not None:
                self._end(begun, error)
            else:
                self._events.append(JobEnded(job.number, "", 0, error))
                self.must_send = True

    def _let_in(self, sequence: EngineSequence, *, comes_back: bool) -> None:
        """Let a sequence compute where there is room for it, and wait otherwise."""
        others = self.sequences.values()
        sequence.is_parked = not pool_room.has_room(sequence, others, self._backend.pool, comes_back=comes_back)
        if not sequence.is_parked:
            self._look_up(sequence)

    def _look_up(self, sequence: EngineSequence) -> None:
        """Give a sequence with no tokens in the memory what is known of its beginning."""
        self.prefixes.begin(sequence, self.sequences.values())

    def _vacate(self, sequence: EngineSequence, *, keeps: bool) -> None:
        """Take a sequence out of its slot and of the memory; those that wait for room are let in."""
        del self.sequences[sequence.slot]
        if keeps:
            self.prefixes.keep(sequence)
        self._backend.remove(sequence.slot)
        sequence.lost()
        sequence.leader = sequence.parts = None
        sequence.is_parked = False
        for other in sorted(self.sequences.values(), key=lambda one: one.number):
            if other.is_parked:
                self._let_in(other, comes_back=True)

    def step(self) -> None:
        """Compute one batch, or make way for one."""
        self._save_prefixes()
        running = [sequence for sequence in self.sequences.values() if not sequence.is_parked]
        deadline = time.perf_counter() + SAVE_SECONDS
        for sequence in running:
            if sequence.is_waiting:
                self._advance(sequence, running, deadline)
        running = [sequence for sequence in running if not sequence.is_waiting]
        pending = [sequence.pending() for sequence in running]
        chunks = batching.plan(
            pending,
            batch=self._backend.batch,
            prefill_limit=self._pace.limit(),
            prompt_limit=self._backend.prompt_step,
            scored_limit=self._backend.scored_step,
        )
        self._guess(chunks)
        if not chunks or (rows := self._decode(chunks)) is None:
            return
        self.steps += 1
        is_alone = len(chunks) == 1
        for chunk, row in zip(chunks, rows, strict=True):
            sequence = self.sequences[chunk.sequence]
            if is_alone and sequence.exact == sequence.cached and chunk.tokens == self._backend.prompt_step:
                sequence.exact += chunk.tokens
            self._go_on(sequence, chunk, row)

    def _advance(self, sequence: EngineSequence, running: list[EngineSequence], deadline: float) -> None:
        """Go on with what a sequence waits for; where that fails, it computes what it lacks."""
        try:
            self.prefixes.advance(sequence, running, deadline)
        except EngineFailedError:
            raise
        except Exception:
            log.exception("a known beginning is not used")
            self._backend.remove(sequence.slot)
            sequence.lost()
            sequence.leader = sequence.parts = None

    def _guess(self, chunks: list[batching.Chunk]) -> None:
        """Let tokens be computed that may come next, where that pays: only beside other single tokens."""
        sequences = [self.sequences[chunk.sequence] for chunk in chunks]
        for sequence in sequences:
            sequence.guessed = ()
        if self._skips_guesses:
            self._skips_guesses = False
            return
        if not self._guesses or any(len(sequence.tokens) - sequence.cached > 1 for sequence in sequences):
            return
        if not self.speculation.may_guess(len(sequences)):
            return
        room = min(self._backend.scored_step - 1, self._backend.batch - len(chunks))
        for sequence in sequences:
            if sequence.drafter is not None and (most := sequence.may_guess(room)) > 0:
                most = self.speculation.length(len(sequences), sequence.drafter.rate, most)
                sequence.guessed = sequence.drafter.guess(most)
                room -= len(sequence.guessed)

    def _save_prefixes(self) -> None:
        """Save a part of what the store wants: at once where nothing runs, now and then where no prompt is read."""
        if not self.prefixes.can_save or any(not sequence.generated for sequence in self.sequences.values()):
            return
        now = time.perf_counter()
        if not self.sequences or now - self._saved_at >= SAVE_INTERVAL:
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
            if sequence.guessed:
                self._verify(sequence, row)
            elif chunk.is_last:
                self._sample(sequence, row)
        except EngineFailedError:
            raise
        except Exception as exc:  # noqa: BLE001 (see above)
            self._end(sequence, as_error(exc, "a request"))

    def _verify(self, sequence: EngineSequence, row: int) -> None:
        """Sample after each token that was computed, as long as the guess is what comes; `row` is the last one's."""
        guessed, sequence.guessed = sequence.guessed, ()
        first = row - len(guessed)
        self.speculation.guessed += len(guessed)
        for count, token in enumerate(guessed):
            self._sample(sequence, first + count)
            if sequence.number not in self.by_number or sequence.tokens[-1] != token:
                break
            self.speculation.right += 1
            sequence.cached += 1
        else:
            self._sample(sequence, row)
        if sequence.number in self.by_number:
            self._backend.remove(sequence.slot, sequence.cached)

    def _decode(self, chunks: list[batching.Chunk]) -> list[int] | None:
        """Decode one batch; returns None where another one has to be planned."""
        backend = self._backend
        backend.clear_abort()
        # A lone sequence is aborted at once. Where others would lose their step, only a part of a prompt is worth it.
        if not self._may_decode(
            frozenset(self.sequences[chunk.sequence].number for chunk in chunks if chunk.tokens > 1 or len(chunks) == 1)
        ):
            return None
        self._adapt_threads(chunks)
        sequences = [self.sequences[chunk.sequence] for chunk in chunks]
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
            # Guesses may be what has no room: the next step goes without them.
            if any(sequence.guessed for sequence in sequences):
                self._skips_guesses = True
            else:
                self._make_room(sequences)
            return None
        finally:
            for sequence in sequences:
                sequence.decoding = 0
        self._saves_until = None
        seconds = time.perf_counter() - started
        guessed = sum(len(sequence.guessed) for sequence in sequences)
        if prefill := sum(chunk.tokens for chunk in chunks if chunk.tokens > 1):
            self._pace.observe(prefill, seconds)
            if self._threads == self.thread_count.threads:
                self.thread_count.observe_prompt(seconds, time.process_time() - used)
            return rows
        self.speculation.observe(len(sequences), guessed, seconds)
        if not guessed and self._threads == self.thread_count.threads:
            self.thread_count.observe(seconds, time.process_time() - used)
        return rows

    def _adapt_threads(self, chunks: list[batching.Chunk]) -> None:
        """Choose how many threads compute: as many as are of use, or always the same number.

        The number decides in which order numbers are added up, and so, once in a while, which token is the likeliest.
        A sequence with a seed that has the engine to itself gets the same text whatever else the machine does.
        """
        is_fixed = len(chunks) == 1 and self.sequences[chunks[0].sequence].is_seeded
        threads = self.thread_count.most if is_fixed else self.thread_count.threads
        if threads != self._threads:
            self._threads = threads
            self._backend.set_threads(threads)

    def _repair(self, chunks: list[batching.Chunk]) -> None:
        """Take out of the memory whatever an aborted decode left there."""
        for chunk in chunks:
            sequence = self.sequences[chunk.sequence]
            if not self._backend.remove(sequence.slot, sequence.cached):
                self._backend.remove(sequence.slot)
                sequence.lost()
                self._look_up(sequence)

    def _make_room(self, computing: list[EngineSequence]) -> None:
        """Give up what was kept longest, or the room of the sequence that came last."""
        if self._saves_until is None:
            self._saves_until = time.perf_counter() + SAVE_SECONDS
        if not self.prefixes.make_room(self._saves_until):
            self._park_youngest(computing)

    def _park_youngest(self, computing: list[EngineSequence]) -> None:
        """Give up the room of the sequence that came last; it goes on once another one has ended.

        What it has computed is kept until the room is wanted, and goes to the store then.
        """
        if (youngest := pool_room.youngest(self.sequences.values())) is None:
            self._end(computing[0], WorkerFailedError("the context has no room for this request"))
            return
        self.prefixes.keep(youngest)
        self._backend.remove(youngest.slot)
        youngest.lost()
        youngest.leader = youngest.parts = None
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
        if sequence.drafter is not None:
            sequence.drafter.saw()
        elif self._guesses and not sequence.is_seeded:
            sequence.drafter = Drafter(sequence.tokens)
        if (logprob := sequence.sampler.logprob) is not None:
            sequence.logprobs.append(logprob)
        text = sequence.text.feed(self._vocabulary.piece(token, control=sequence.shows_control))
        if sequence.text.is_stopped:
            self._end(sequence, "stop", text)
        elif sequence.generated >= sequence.limit:
            self._end(sequence, "length", text)
        elif text or sequence.logprobs:
            self._events.append(TextEvent(sequence.number, text, sequence.generated, sequence.take_logprobs()))
            self.must_send |= not sequence.has_output
            sequence.has_output = True

    def _end(self, sequence: EngineSequence, outcome: StopReason | RbeeError, text: str = "") -> None:
        """End a job, and take its sequence out of the memory; the one place where jobs end."""
        if self.by_number.pop(sequence.number, None) is None:
            return  # it has ended, and something went wrong after that
        if self._preempted.pop(sequence.number, None) is None:
            # What failed may have left nonsense; a request that was cancelled has not.
            self._vacate(sequence, keeps=not isinstance(outcome, RbeeError) or isinstance(outcome, CancelledError))
        sequence.sampler.close()
        if not isinstance(outcome, RbeeError):
            text += sequence.text.finish()
        self._events.append(sequence.ended(outcome, text))
        self.must_send = True
