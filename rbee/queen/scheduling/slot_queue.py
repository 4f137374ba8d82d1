"""Decides which waiting request gets which slot of the workers that a hive shows (PURE)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from rbee.queen.scheduling.choose_worker import fitting
from rbee.queen.scheduling.reservations import Reservations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from rbee.queen.hives.mirror import HiveMirror
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.place_request import PlaceRequest
    from rbee.wire.hive import WorkerRow


class Turn(NamedTuple):
    """It is this request's turn: at the worker of `row`, or with None to be placed anew, since its workers are gone."""

    waiter: PlaceRequest
    row: WorkerRow | None


class SlotQueue:
    """The requests that wait on one node, the oldest first; at most `limit`.

    They wait for what the hive's event stream shows (`mirror`): an answer to a call of ours may be older.
    """

    def __init__(self, limit: int, mirror: HiveMirror) -> None:
        self.limit = limit
        self.waiters: list[PlaceRequest] = []
        self.reservations = Reservations()
        self._mirror = mirror

    @property
    def is_full(self) -> bool:
        return len(self.waiters) >= self.limit

    def places(self) -> Iterator[tuple[PlaceRequest, int]]:
        """Yield each waiting request, with how many for the same model have come before it."""
        ahead = Counter[str]()
        for waiter in self.waiters:
            yield waiter, ahead[waiter.wanted.model_ref]
            ahead[waiter.wanted.model_ref] += 1

    def remove(self, waiter: PlaceRequest) -> None:
        """Take a request out that waits no longer, if it still does."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def choose(self, rows: Iterable[WorkerRow], wanted: Wanted, now: float) -> WorkerRow | None:
        """Return the best of these workers that has a slot left for `wanted`."""
        return next((row for row in fitting(rows, wanted) if self.reservations.free(row, now) > 0), None)

    def reserve(self, row: WorkerRow, now: float) -> None:
        """Reserve a slot of a worker, which the mirror or an answer of the hive has named."""
        self.reservations.make(row, now, is_shown=row.id in self._mirror.rows)

    def take(self, wanted: Wanted, now: float) -> WorkerRow | None:
        """Reserve a slot that is free now, at a worker that has loaded its model, for a request of another node."""
        if (row := self.choose(self.loaded_and_free(now), wanted, now)) is not None:
            self.reserve(row, now)
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
        for waiter in list(self.waiters):
            row = self.choose(rows, waiter.wanted, now)
            if row is None and fitting(rows, waiter.wanted):
                continue
            if row is not None:
                self.reserve(row, now)
            self.waiters.remove(waiter)
            turns.append(Turn(waiter, row))
        return turns
