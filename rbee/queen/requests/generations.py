"""Counts the generations of requests that have several, or none that is whole: each is counted once.

How many tokens a generation took is said by its last event, and by its worker when it ends. Of one that is cut off only
the worker says it, a moment later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio
from msgspec import UNSET

if TYPE_CHECKING:
    from rbee.queen.requests.record import RequestRecord
    from rbee.wire.worker import EndedRequest

WORDS_SECONDS: Final = 2.0
"""For the worker's own account of a request, which comes by its hive, after an answer that was relayed has ended."""


@dataclass(slots=True)
class _Generation:
    record: RequestRecord
    worker: str


class Generations:
    """The generations that run, by the ids under which their workers know them."""

    def __init__(self) -> None:
        self._running: dict[str, _Generation] = {}
        self._ended = trio.lowlevel.ParkingLot()

    def begin(self, generation_id: str, record: RequestRecord, worker: str) -> None:
        """A worker has one, for the request of this record; perhaps after another had it."""
        self._running[generation_id] = _Generation(record, worker)

    def end(self, generation_id: str, prompt: int = 0, cached: int = 0, tokens: int = 0) -> None:
        """It took so many tokens; nothing happens if that was counted before."""
        if (found := self._running.pop(generation_id, None)) is None:
            return
        record = found.record
        if prompt or tokens:
            record.prompt_tokens = (record.prompt_tokens or 0) + prompt
            record.cached_tokens = (record.cached_tokens or 0) + cached
            record.tokens = (record.tokens or 0) + tokens
        self._ended.unpark_all()

    def on_ended(self, ended: EndedRequest) -> None:
        """A worker has said what came of a generation."""
        found = self._running.get(ended.request_id)
        if found is None or ended.worker_id not in (UNSET, found.worker):
            return
        if not ended.is_refusal or found.record.is_over:  # else the request may be tried once more
            self.end(ended.request_id, ended.prompt_tokens, ended.cached_tokens, ended.total_tokens)

    def on_gone(self, worker: str) -> None:
        """A worker has ended, and says nothing any more."""
        for generation_id in [one for one, found in self._running.items() if found.worker == worker]:
            self.end(generation_id)

    def are_open(self, record: RequestRecord) -> bool:
        """Whether it is not known yet what some of a request's generations took."""
        return any(found.record is record for found in self._running.values())

    async def settle(self, record: RequestRecord) -> None:
        """Return once that is known, or their workers have been silent for WORDS_SECONDS; none counts afterwards."""
        try:
            with trio.move_on_after(WORDS_SECONDS):
                while self.are_open(record):
                    await self._ended.park()
        finally:
            for generation_id in [one for one, found in self._running.items() if found.record is record]:
                del self._running[generation_id]
