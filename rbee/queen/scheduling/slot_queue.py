"""Decides which waiting request gets which slot of the workers that a hive shows (PURE)."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.queen.scheduling.choose_worker import fitting
from rbee.queen.scheduling.reservations import Reservations
from rbee.queen.scheduling.turns import CallerTurns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from rbee.queen.hives.mirror import HiveMirror
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.place_request import PlaceRequest
    from rbee.wire.hive import WorkerRow


PACE_TURNS: Final = 8
"""Of so many turns the time between two is the mean."""
RETRY_SECONDS: Final = (1.0, 60.0)
"""The least and the most after which one that finds the line full is told to ask again."""
UNKNOWN_PACE: Final = 5.0


class Turn(NamedTuple):
    """It is this request's turn: at the worker of `row`, or with None to be placed anew, since its workers are gone."""

    waiter: PlaceRequest
    row: WorkerRow | None


class SlotQueue:
    """The requests that wait on one node, in the order in which they have come.

    They wait for what the hive's event stream shows (`mirror`): an answer to a call of ours may be older. Whose turn it
    is, `turns_of` all nodes say. At most `limit` wait; a caller with less than its share of them still gets in, until
    there are twice as many.
    """

    def __init__(self, limit: int, mirror: HiveMirror, turns_of: CallerTurns | None = None) -> None:
        self.limit = limit
        self.waiters: list[PlaceRequest] = []
        self.reservations = Reservations()
        self._mirror = mirror
        self._turns = CallerTurns() if turns_of is None else turns_of
        self._given: dict[str, deque[float]] = {}

    def is_full(self, caller: str) -> bool:
        """Whether a caller may not wait here with one request more."""
        count = len(self.waiters)
        if count < self.limit:
            return False
        callers = Counter(waiter.caller for waiter in self.waiters)
        share = max(1, self.limit // len({*callers, caller}))
        return count >= 2 * self.limit or callers[caller] >= share

    def retry_after(self, model_ref: str) -> float:
        """Return after how many seconds somebody whom the line was too full for is to ask again.

        A tenth of the line has had its turn then, at the pace of the last turns.
        """
        given = self._given.get(model_ref, deque[float]())
        pace = (given[-1] - given[0]) / (len(given) - 1) if len(given) > 1 else UNKNOWN_PACE
        least, most = RETRY_SECONDS
        return min(max(least, pace * max(1, len(self.waiters) // 10)), most)

    def places(self, now: float) -> Iterator[tuple[PlaceRequest, int]]:
        """Yield each waiting request, with how many for the same model have their turns before it."""
        ahead = Counter[str]()
        for waiter in self._turns.order(self.waiters, now):
            yield waiter, ahead[waiter.wanted.model_ref]
            ahead[waiter.wanted.model_ref] += 1

    def remove(self, waiter: PlaceRequest) -> None:
        """Take a request out that waits no longer, if it still does."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def choose(self, rows: Iterable[WorkerRow], wanted: Wanted, now: float) -> WorkerRow | None:
        """Return the best of these workers that has a slot left for `wanted`."""
        return next((row for row in fitting(rows, wanted) if self.reservations.free(row, now) > 0), None)

    def reserve(self, row: WorkerRow, request: PlaceRequest, now: float) -> None:
        """Reserve a slot of a worker, which the mirror or an answer of the hive has named."""
        finished = self._mirror.finished[row.id]
        self.reservations.make(row, now, is_shown=row.id in self._mirror.rows, finished=finished)
        self._turns.note(request, now)

    def take(self, request: PlaceRequest, now: float) -> WorkerRow | None:
        """Reserve a slot that is free now, at a worker that has loaded its model, for a request of another node."""
        if (row := self.choose(self.loaded_and_free(now), request.wanted, now)) is not None:
            self.reserve(row, request, now)
        return row

    def loaded_and_free(self, now: float) -> list[WorkerRow]:
        """Return the workers that have loaded their models, and have slots left."""
        return [row for row in self._look(now) if row.state != "loading" and self.reservations.free(row, now) > 0]

    def _look(self, now: float) -> Collection[WorkerRow]:
        """Return the workers as they are shown, after what that says of the reservations has been noted."""
        if self._mirror.is_live:
            self.reservations.update(self._mirror.rows, now)
        self.reservations.lapse(now)
        return self._mirror.rows.values() if self._mirror.is_live else ()

    def turns(self, now: float) -> list[Turn]:
        """Take out the requests whose turn it is now, and reserve their slots."""
        rows, turns = self._look(now), list[Turn]()
        if not self._mirror.is_live:
            return []
        for waiter in self._turns.order(self.waiters, now):
            row = self.choose(rows, waiter.wanted, now)
            if row is None and fitting(rows, waiter.wanted):
                continue
            if row is not None:
                self.reserve(row, waiter, now)
                self._given.setdefault(waiter.wanted.model_ref, deque(maxlen=PACE_TURNS)).append(now)
            self.waiters.remove(waiter)
            turns.append(Turn(waiter, row))
        return turns
