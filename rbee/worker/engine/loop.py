"""The thread that owns the context: it decodes all running sequences together, and hands their text to trio."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from rbee.errors import CancelledError, RbeeError, WorkerFailedError
from rbee.worker.engine import batching
from rbee.worker.engine.sequence import Ended, News, Piece, Sequence, Work
from rbee.worker.engine.thread_count import Crew
from rbee.worker.llama.context import BATCH, DecodeAbortedError, EngineFailedError, NoRoomError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.wire.worker import StopReason
    from rbee.worker.llama.context import Context
    from rbee.worker.llama.model import Model

log = logging.getLogger(__name__)

FRAME_SECONDS: Final = 1 / 60
"""The least time between two deliveries of text to trio, apart from first pieces and ends.

Sending a token costs trio's thread about 0.2 ms of a processor that the compute threads spin on. No eye sees more than
60 changes a second, so tokens that come faster travel together.
"""


class _Cancel(NamedTuple):
    number: int


class _SetAside(NamedTuple):
    number: int


class _Resume(NamedTuple):
    number: int
    slot: int


_STOP: Final = None


class Engine:
    """Runs generations, at most one in each slot of `context`; `deliver` gets their news, a list for each step.

    `deliver` is called in trio's thread. Whoever starts a generation keeps its slot to itself until its `Ended`, or
    until it is set aside.
    """

    def __init__(self, model: Model, context: Context, deliver: Callable[[list[News]], None]) -> None:
        self._model = model
        self._context = context
        self._deliver = deliver
        # Its put may be called from anywhere, even by a finaliser in this very thread; its get sleeps without polling.
        self._inbox: SimpleQueue[Work | _Cancel | _SetAside | _Resume | None] = SimpleQueue()
        self._sequences: dict[int, Sequence] = {}  # by slot
        self._aside: dict[int, Sequence] = {}  # by number
        self._pace = batching.PrefillPace(BATCH)
        self._crew = Crew(context.threads)
        self._abortable: frozenset[int] = frozenset()
        self._places: list[tuple[int, batching.Chunk]] = []
        self._news: list[News] = []
        self._is_news_urgent = False
        self._delivered_at = 0.0
        self._is_over = False

    def start(self, work: Work) -> None:
        """Begin a generation in a free slot; once the engine has stopped it ends at once with an error."""
        self._inbox.put(work)
        if self._is_over:
            self._refuse_rest()

    def cancel(self, number: int) -> None:
        """End a generation, if it still runs: its `Ended` comes soon, even from within a long prompt."""
        self._interrupt(number, _Cancel(number))

    def set_aside(self, number: int) -> None:
        """Take a generation out of its slot, which another may be given at once; `resume` lets it go on."""
        self._interrupt(number, _SetAside(number))

    def resume(self, number: int, slot: int) -> None:
        """Let a generation that was set aside go on in a free slot; all its tokens are decoded anew."""
        self._inbox.put(_Resume(number, slot))

    def _interrupt(self, number: int, message: _Cancel | _SetAside) -> None:
        self._inbox.put(message)
        # In this order: the engine publishes what it decodes and then looks into the inbox once more, so either it
        # sees the message before it decodes, or we see the number here.
        if number in self._abortable:
            self._context.abort()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the thread until cancelled; what runs then ends with an error.

        Raises EngineFailedError when the context is of no use any more.
        """
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_with_us)
            task_status.started()
            try:
                await trio.to_thread.run_sync(self._loop, limiter=trio.CapacityLimiter(1))
            finally:
                self._is_over = True
                self._refuse_rest()
            nursery.cancel_scope.cancel()

    async def _stop_with_us(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._inbox.put(_STOP)
            self._context.abort()

    def _refuse_rest(self) -> None:
        """Answer what came too late for the thread to see."""
        with suppress(Empty):
            while True:
                message = self._inbox.get_nowait()
                if isinstance(message, Work):
                    self._deliver([Ended(message.number, "", 0, None, WorkerFailedError("the worker has stopped"))])

    # From here on everything runs in the engine thread.

    def _loop(self) -> None:
        failure = WorkerFailedError("the worker has stopped")
        try:
            while self._take_messages():
                self._step()
                if self._is_news_urgent or time.perf_counter() - self._delivered_at >= FRAME_SECONDS:
                    self._send_news()
        except EngineFailedError as exc:
            failure = exc
            raise
        except BaseException:
            failure = WorkerFailedError("the engine failed; the worker's log says more")
            raise
        finally:
            for sequence in (*self._sequences.values(), *self._aside.values()):
                self._end(sequence, error=failure)
            self._send_news()

    def _send_news(self) -> None:
        if self._news:
            news, self._news = self._news, []
            self._is_news_urgent = False
            self._delivered_at = time.perf_counter()
            self._token.run_sync_soon(self._deliver, news)

    def _take_messages(self) -> bool:
        """Take what the inbox holds, waiting for something to do; returns False when told to stop."""
        self._abortable = frozenset()
        while True:
            try:
                message = self._inbox.get(block=not self._sequences and not self._news)
            except Empty:
                return True
            if message is _STOP:
                return False
            match message:
                case Work():
                    self._sequences[message.slot] = Sequence(message, self._model.vocabulary)
                case _Cancel(number) if (sequence := self._find(number)) is not None:
                    self._end(sequence, error=CancelledError("the request was cancelled"))
                case _SetAside(number) if (sequence := self._find(number)) is not None:
                    self._vacate(sequence)
                    self._aside[number] = sequence
                case _Resume(number, slot) if (sequence := self._aside.pop(number, None)) is not None:
                    sequence.slot = slot
                    self._sequences[slot] = sequence

    def _find(self, number: int) -> Sequence | None:
        """Return the sequence of a work that has not ended."""
        running = (sequence for sequence in self._sequences.values() if sequence.number == number)
        return next(running, self._aside.get(number))

    def _vacate(self, sequence: Sequence) -> None:
        """Take a sequence out of its slot and of the context; who waits for room is let in."""
        del self._sequences[sequence.slot]
        self._context.remove(sequence.slot)
        sequence.cached = 0
        sequence.is_parked = False
        for other in self._sequences.values():
            other.is_parked = False

    def _step(self) -> None:
        running = [sequence for sequence in self._sequences.values() if not sequence.is_parked]
        chunks = batching.plan(
            [sequence.pending() for sequence in running], batch=BATCH, prefill_limit=self._pace.limit()
        )
        if not chunks or not self._decode(chunks):
            return
        for place, chunk in self._places:
            sequence = self._sequences[chunk.sequence]
            sequence.cached += chunk.tokens
            if chunk.is_last:
                self._sample(sequence, place)

    def _decode(self, chunks: list[batching.Chunk]) -> bool:
        """Decode one batch; returns False where that has to be tried again with another one."""
        context = self._context
        context.start_batch()
        self._places = []
        prefill = 0
        for chunk in chunks:
            sequence = self._sequences[chunk.sequence]
            start = sequence.cached
            tokens = sequence.tokens[start : start + chunk.tokens]
            self._places.append((context.add(chunk.sequence, tokens, start, wants_logits=chunk.is_last), chunk))
            prefill += chunk.tokens if chunk.tokens > 1 else 0
        context.clear_abort()
        # A lone sequence is aborted at once. Where others would lose their step, only a part of a prompt is worth it.
        self._abortable = frozenset(
            self._sequences[chunk.sequence].number for chunk in chunks if chunk.tokens > 1 or len(chunks) == 1
        )
        if not self._inbox.empty():
            return False
        started, used = time.perf_counter(), time.process_time()
        try:
            context.decode()
        except DecodeAbortedError:
            self._repair(chunks)
            return False
        except NoRoomError:
            self._park_youngest()
            return False
        seconds = time.perf_counter() - started
        if prefill:
            self._pace.observe(prefill, seconds)
        else:
            self._adapt(seconds, time.process_time() - used)
        return True

    def _adapt(self, seconds: float, used: float) -> None:
        """Let the crew learn from a step of single tokens."""
        before = self._crew.threads
        self._crew.observe(seconds, used)
        if self._crew.threads != before:
            self._context.set_threads(self._crew.threads)

    def _repair(self, chunks: list[batching.Chunk]) -> None:
        """Take out of the cache whatever an aborted decode left there."""
        for chunk in chunks:
            sequence = self._sequences[chunk.sequence]
            if not self._context.remove(sequence.slot, sequence.cached):
                self._context.remove(sequence.slot)
                sequence.cached = 0

    def _park_youngest(self) -> None:
        """Give up the cells of the sequence that came last; it is decoded anew once another one has ended."""
        *others, youngest = [sequence for sequence in self._sequences.values() if not sequence.is_parked]
        if not others:
            self._end(youngest, error=WorkerFailedError("the context has no room for this request"))
            return
        self._context.remove(youngest.slot)
        youngest.cached = 0
        youngest.is_parked = True

    def _sample(self, sequence: Sequence, place: int) -> None:
        token = self._context.sample(sequence.sampler.chain, place)
        if self._model.is_end(token):
            self._end(sequence, "eos")
            return
        sequence.tokens.append(token)
        text = sequence.text.feed(self._model.piece(token))
        if sequence.text.is_stopped:
            self._end(sequence, "stop", text)
        elif sequence.generated >= sequence.limit:
            self._end(sequence, "length", text)
        elif text:
            self._news.append(Piece(sequence.number, text, sequence.generated))
            self._is_news_urgent |= not sequence.has_spoken
            sequence.has_spoken = True

    def _end(
        self, sequence: Sequence, reason: StopReason | None = None, text: str = "", *, error: RbeeError | None = None
    ) -> None:
        """Take a sequence out of the context; the one place where they end."""
        if self._aside.pop(sequence.number, None) is None:
            self._vacate(sequence)
        sequence.sampler.close()
        if reason is not None:
            text += sequence.text.finish()
        self._news.append(Ended(sequence.number, text, sequence.generated, reason, error))
        self._is_news_urgent = True
