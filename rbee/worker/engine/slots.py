"""Gives out slots to generations, and hands each the news of its sequence."""

from __future__ import annotations

import itertools
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import trio

from rbee.errors import AllSlotsBusyError, CancelledError, InvalidRequestError, RbeeError
from rbee.worker.engine.sequence import Ended, News, Work

if TYPE_CHECKING:
    from types import TracebackType

    from rbee.wire.common import Sampling
    from rbee.worker.engine.loop import Engine
    from rbee.worker.status.metrics import Measures
    from rbee.worker.status.status import Status

CANCEL_SECONDS: Final = 5.0
"""How long the end of a cancelled generation is waited for; it takes a decode step, and most of a prompt none."""


class _Running:
    """The table's side of a generation. `slot` is None while another has what was its slot."""

    def __init__(self, work: Work, send: trio.MemorySendChannel[News], engine: Engine) -> None:
        self.number = work.number
        self.slot: int | None = work.slot
        self.is_silent = False
        self.prompt_tokens = len(work.prompt)  # the engine appends to that list
        self.send = send
        self.engine = engine
        self.ended = trio.Event()
        self.tokens = 0
        self.cause: RbeeError | None = None


class Generation:
    """A running generation: its news, until it has ended.

    It has a slot to itself until then, unless its reader is silent (see `Generations.set_silent`). Leaving `async with`
    early ends it, and waits for that; an error of ours that does so is what it ended by. One that is dropped
    without being entered, because its reader went away first, is cancelled too.
    """

    def __init__(self, request_id: str, running: _Running, receive: trio.MemoryReceiveChannel[News]) -> None:
        self.request_id = request_id
        self.prompt_tokens = running.prompt_tokens
        self._running = running
        self._receive = receive
        self._guard = weakref.finalize(self, running.engine.cancel, running.number)
        self._guard.atexit = False

    async def next(self) -> list[News]:
        """Wait for news; returns all there is, in order. After one with `Ended` there is nothing more."""
        news = [await self._receive.receive()]
        while True:
            try:
                news.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                return news

    @property
    def tokens(self) -> int:
        """Tokens generated so far, as far as they made text."""
        return self._running.tokens

    async def cancel(self, cause: RbeeError | None = None) -> None:
        """End the generation, and return when its sequence is out of the engine."""
        running = self._running
        if not running.ended.is_set():
            running.cause = running.cause or cause
            running.engine.cancel(running.number)
            await running.ended.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._receive.close()
        self._guard.detach()
        with trio.move_on_after(CANCEL_SECONDS, shield=True):
            await self.cancel(value if isinstance(value, RbeeError) else None)


class Generations:
    """All slots of the worker; used in trio's thread only, where nothing else runs between two awaits."""

    def __init__(self, status: Status, measures: Measures) -> None:
        self._status = status
        self._measures = measures
        self._free = list(range(status.slots_total))
        self._running: dict[int, _Running] = {}
        self._by_request: weakref.WeakValueDictionary[str, Generation] = weakref.WeakValueDictionary()
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"<Generations {len(self._running)} running, {len(self._free)} free>"

    def check_slot(self) -> None:
        """Raise AllSlotsBusyError when a request would get no slot."""
        if not self._free and not any(running.is_silent and running.slot is not None for running in self._all()):
            total = self._status.slots_total
            busy = "the only slot is" if total == 1 else f"all {total} slots are"
            raise AllSlotsBusyError(f"{busy} busy", slots_total=total, slots_busy=total)

    def check_new(self, request_id: str) -> None:
        """Raise InvalidRequestError when a request of this id runs."""
        if self.find(request_id) is not None:
            raise InvalidRequestError(
                "field request_id: a request with this id is running", field="request_id", rule="not in use"
            )

    def find(self, request_id: str) -> Generation | None:
        """Return the generation of a request that runs."""
        found = self._by_request.get(request_id)
        return None if found is None or found._running.ended.is_set() else found

    def start(self, engine: Engine, request_id: str, prompt: list[int], options: Sampling, limit: int) -> Generation:
        """Take a slot and start; raises AllSlotsBusyError. Between the check and the taking nothing can happen."""
        self.check_slot()
        self.check_new(request_id)
        # The one freed last: its cells are the likeliest to be in the processor's cache.
        slot = self._free.pop() if self._free else self._vacated()
        work = Work(next(self._numbers), slot, prompt, options, limit)
        # Each token makes at most one piece, so a reader that stalls costs bounded memory and the engine never waits.
        send, receive = trio.open_memory_channel[News](limit + 1)
        running = self._running[work.number] = _Running(work, send, engine)
        generation = self._by_request[request_id] = Generation(request_id, running, receive)
        self._tell()
        engine.start(work)
        return generation

    def _all(self) -> list[_Running]:
        return list(self._running.values())

    def _vacated(self) -> int:
        """Return the slot of the oldest generation with a silent reader, which is set aside."""
        for running in self._all():
            if running.is_silent and running.slot is not None:
                running.engine.set_aside(running.number)
                slot, running.slot = running.slot, None
                return slot
        raise AssertionError

    def set_silent(self, generation: Generation, is_silent: bool) -> None:
        """Say that the reader of a generation takes nothing any more, or that it does again.

        It may have gone without a word, or be slow. So its slot counts as free, but it keeps it until another request
        needs it; then it is set aside, and goes on in the next free slot once its reader is heard again.
        """
        running = generation._running
        if not running.ended.is_set() and running.is_silent != is_silent:
            running.is_silent = is_silent
            self._resume()
            self._tell()

    def _resume(self) -> None:
        """Give free slots to those that lost theirs and whose readers are heard again."""
        for running in self._all():
            if self._free and running.slot is None and not running.is_silent:
                running.slot = self._free.pop()
                running.engine.resume(running.number, running.slot)

    def _tell(self) -> None:
        taken = sum(running.slot is not None and not running.is_silent for running in self._all())
        self._status.set_busy(taken, len(self._running))

    def deliver(self, news: list[News]) -> None:
        """Take what the engine reports of one step."""
        for item in news:
            running = self._running[item.number]
            running.tokens = item.tokens
            # Where nobody reads any more, the cancellation is on its way.
            with suppress(trio.BrokenResourceError):
                running.send.send_nowait(self._finish(running, item) if isinstance(item, Ended) else item)

    def _finish(self, running: _Running, ended: Ended) -> Ended:
        """Give the slot back: the one place where that happens, and so where requests are counted."""
        if isinstance(ended.error, CancelledError) and running.cause is not None:
            ended = ended._replace(error=running.cause)
        outcome = ended.reason or ended.error
        assert outcome is not None
        self._measures.ended(outcome, prompt=running.prompt_tokens, generated=ended.tokens)
        del self._running[running.number]
        if running.slot is not None:
            self._free.append(running.slot)
            self._resume()
        running.ended.set()
        self._tell()
        return ended

    def cancel_all(self, engine: Engine, cause: RbeeError) -> None:
        """Ask for the end of everything that runs; the status tells when it is reached."""
        for running in self._running.values():
            running.cause = running.cause or cause
            engine.cancel(running.number)
