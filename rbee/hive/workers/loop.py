"""The one task that owns a hive's workers: it makes decisions one after another, and has their effects carried out.

A caller that wants a change sends a decision over the inbox; only this task makes it, so the pool needs no lock. What
comes of the effects is sent to the inbox too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from rbee.concurrency.changed import Changed
from rbee.concurrency.contained import as_error, contained, keep_running
from rbee.concurrency.outcome import Outcome
from rbee.hive.workers.effects import Effect

if TYPE_CHECKING:
    from rbee.hive.workers.pool import Pool

Decision = Callable[[], Sequence[Effect]]
"""Changes the pool, and returns what to do about it."""


class DecisionLoop:
    """Owns `pool`; `perform` carries out effects without waiting for them.

    `changed` is notified after everything that was carried out, and at the end.
    """

    def __init__(self, pool: Pool, perform: Callable[[Sequence[Effect]], None]) -> None:
        self._pool = pool
        self._perform = perform
        self._send, self._inbox = trio.open_memory_channel[Decision](math.inf)
        self.changed = Changed()
        self.is_over = False

    async def run(self) -> None:
        """Make decisions until the pool is over."""
        await keep_running("deciding about workers", self._make_decisions)
        with suppress(trio.WouldBlock):
            while True:
                self._make(self._inbox.receive_nowait())  # late callers get DrainingError
        self.is_over = True
        self.changed.notify()

    async def _make_decisions(self) -> None:
        while not self._pool.is_over:
            due = self._pool.due()
            with trio.move_on_at(math.inf if due is None else due):
                self._make(await self._inbox.receive())
            self._carry_out(self._pool.tick(trio.current_time()))

    def _make(self, decision: Decision) -> None:
        """Make a decision; one that fails changes nothing for the others."""
        with contained("a decision about a worker"):
            self._carry_out(decision())

    def decide(self, decision: Decision) -> None:
        """Have a decision made and carried out soon.

        Once the loop is over it is made here and now: nobody else decides any more, and nobody reads the inbox.
        """
        if self.is_over:
            self._make(decision)
        else:
            self._send.send_nowait(decision)

    async def ask(self, decision: Decision) -> None:
        """Have a decision made, and wait for it; its error is raised here."""
        outcome = Outcome[None]()

        def attempt() -> Sequence[Effect]:
            try:
                return decision()
            except Exception as exc:  # noqa: BLE001 (it is the caller's)
                outcome.settle(as_error(exc, "a decision about a worker"))
                return ()
            finally:
                outcome.settle(None)

        self.decide(attempt)
        await outcome.wait()

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        if effects:
            self._perform(effects)
            self.changed.notify()
