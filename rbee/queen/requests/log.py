"""Writes one line of the queen's log for each request, never with any of its text, and no key."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio
from msgspec import UNSET

from rbee.adapters.logs.json_log import correlation
from rbee.concurrency.contained import contained
from rbee.queen.requests.generations import WORDS_SECONDS, Generations
from rbee.queen.requests.record import OK

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.queen.requests.record import RequestRecord
    from rbee.wire.worker import EndedRequest

log = logging.getLogger(__name__)

MAX_PLACED: Final = 1000
REFUSALS: Final = 60
"""Lines a minute about callers that were not let in: trying keys must not push everything else out of the log."""
_NOT_LET_IN: Final = frozenset({"MISSING_API_KEY", "INVALID_API_KEY", "FORBIDDEN"})
MINUTE: Final = 60.0


class RequestLog:
    """The requests of one queen that are not written down yet: their workers have them."""

    def __init__(self) -> None:
        self.on_end: Callable[[RequestRecord], None] = lambda _: None
        """Takes each that is over, but for those that are written quietly, and for refusals that are too many."""
        self.generations = Generations()
        """Those of requests that are not placed as a whole."""
        self._placed: dict[str, RequestRecord] = {}
        self._refusals = 0
        self._refused_since = 0.0

    def write(self, record: RequestRecord, *, quietly: bool = False) -> None:
        """Write the line of a request that is over; `quietly` where somebody only looks, again and again."""
        record.close()
        if record.end in _NOT_LET_IN and record.caller is None and not self._may_write_refusal():
            return
        set_back = correlation.set(record.correlation_id)  # this may be called by another task than the request's own
        try:
            is_quiet = quietly or (record.is_step and record.end == OK)
            log.log(logging.DEBUG if is_quiet else logging.INFO, "%s", record.line())
        finally:
            correlation.reset(set_back)
        if not quietly:
            self.on_end(record)

    def end(self, record: RequestRecord, nursery: trio.Nursery, *, quietly: bool = False) -> None:
        """Write the line of a request that is over, in `nursery` once it is known what its generations took."""
        if self.generations.are_open(record):
            record.is_over, record.ended = True, trio.current_time()
            nursery.start_soon(self._settle, record)
        else:
            self.write(record, quietly=quietly)

    async def _settle(self, record: RequestRecord) -> None:
        with contained("the line of a request"):
            try:
                await self.generations.settle(record)
            finally:
                self.write(record)

    def on_placed(self, record: RequestRecord) -> None:
        """A worker has the request, and will say what came of it."""
        assert record.request_id is not None
        before = self._placed.pop(record.request_id, None)
        if before is not None and before is not record:
            record.follows_refusal = before.worker == record.worker and before.refusal is None
            self._give_up(before, "placed again")
        self._placed[record.request_id] = record
        while len(self._placed) > MAX_PLACED:
            self._give_up(self._placed.pop(next(iter(self._placed))), "not known")

    async def finish(self, record: RequestRecord) -> None:
        """The queen has relayed the whole answer: write the line, with what the worker says if that comes soon."""
        record.is_over, record.ended = True, trio.current_time()
        with contained("the line of a request"):
            if not record.is_explained:
                if record.refusal != record.end:
                    await trio.sleep(WORDS_SECONDS)
                if self._placed.get(record.request_id or "") is not record:
                    return
                del self._placed[record.request_id or ""]
            self.write(record)

    def on_ended(self, ended: EndedRequest) -> None:
        """A worker has reported the end of a request."""
        self.generations.on_ended(ended)
        record = self._placed.get(ended.request_id)
        if record is None or ended.worker_id not in (UNSET, record.worker):
            return  # nobody waits for it any more, or it is the end of an earlier try, elsewhere
        if ended.is_refusal:
            self._on_refused(record, ended)
            return
        del self._placed[ended.request_id]
        record.on_ended(ended)
        if record.is_over or not record.relayed:
            self.write(record)

    def _on_refused(self, record: RequestRecord, ended: EndedRequest) -> None:
        """The worker did not take the request, or an earlier try of it: a further one may follow, or run already."""
        if record.relayed:
            # The queen has had the refusal itself, and has tried again unless that was the request's end.
            record.refusal = ended.end
            if record.is_over and record.end == ended.end:
                del self._placed[ended.request_id]
                self.write(record)
        elif record.follows_refusal:
            record.follows_refusal = False
        elif record.refusal is None:
            record.refusal = record.end = ended.end
            self.write(record)
            record.end, record.ended = OK, None

    def on_gone(self, worker_id: str) -> None:
        """A worker has ended, and says nothing any more; what the queen relays has its end there, or a second try."""
        self.generations.on_gone(worker_id)
        gone = [
            name
            for name, record in self._placed.items()
            if record.worker == worker_id and (record.is_over or not record.relayed)
        ]
        for request_id in gone:
            self._give_up(self._placed.pop(request_id), "the worker ended")

    def close(self) -> None:
        """The queen ends."""
        for record in self._placed.values():
            self._give_up(record, "the queen ended")
        self._placed.clear()

    def _give_up(self, record: RequestRecord, why: str) -> None:
        if record.refusal is not None and not record.relayed:
            return  # there is a line already
        if record.end == OK:
            record.end = why
        self.write(record)

    def _may_write_refusal(self) -> bool:
        now = trio.current_time()
        if now - self._refused_since >= MINUTE:
            if (missed := self._refusals - REFUSALS) > 0:
                log.warning("%d more requests without a right key were refused within a minute", missed)
            self._refusals, self._refused_since = 0, now
        self._refusals += 1
        return self._refusals <= REFUSALS
