"""Decides which waiting request gets which slot of the workers that a hive shows (PURE)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from rbee.queen.scheduling.choose_worker import Wanted, fitting
from rbee.queen.scheduling.reservations import Promises
from rbee.wire.hive import WorkerGone, WorkerList, WorkerRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.hive import HiveEvent


class Waiter(Protocol):
    """A request that waits for a slot."""

    @property
    def wanted(self) -> Wanted: ...


W = TypeVar("W", bound=Waiter)


class Turn(NamedTuple, Generic[W]):
    """It is this request's turn: at the worker of `row`, or with None to be placed anew, since its workers are gone."""

    waiter: W
    row: WorkerRow | None


@dataclass(slots=True)
class Queue(Generic[W]):
    """The requests that wait on one node, the oldest first; at most `limit`.

    `rows` are the workers that the hive's event stream has shown; an answer to a call of ours may be older. While
    `is_seen` is false, nothing is known of them.
    """

    limit: int
    promises: Promises = field(default_factory=Promises)
    waiters: list[W] = field(default_factory=list)
    rows: dict[str, WorkerRow] = field(default_factory=dict)
    is_seen: bool = False

    @property
    def is_full(self) -> bool:
        return len(self.waiters) >= self.limit

    def remove(self, waiter: W) -> None:
        """Take a request out that waits no longer, if it still does."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def see(self, event: HiveEvent, now: float) -> None:
        """Take note of what the hive tells."""
        match event:
            case WorkerList(workers=rows):
                self.is_seen = True
                ids = {row.id for row in rows}
                self.rows = {worker_id: row for worker_id, row in self.rows.items() if worker_id in ids}
                # Beside the rows, which a lost stream has cleared: workers may have gone unseen.
                self.promises.keep_only(ids)
                for row in rows:
                    self.see(row, now)
            case WorkerRow():
                self.promises.see(self.rows.get(event.id), event, now)
                self.rows[event.id] = event
            case WorkerGone():
                self.rows.pop(event.id, None)
                self.promises.forget(event.id)

    def lose_sight(self) -> None:
        """The hive's event stream was lost."""
        self.rows, self.is_seen = {}, False

    def choose(self, rows: Sequence[WorkerRow], wanted: Wanted, now: float) -> WorkerRow | None:
        """Return the best worker that has a slot left for `wanted`."""
        return next((row for row in fitting(rows, wanted) if self.promises.free(row, now) > 0), None)

    def promise(self, row: WorkerRow, now: float) -> None:
        """Promise a slot of a worker that an answer of the hive has named."""
        self.promises.make(row, now, is_shown=row.id in self.rows)

    def turns(self, now: float) -> list[Turn[W]]:
        """Take out the requests whose turn it is now, and promise them their slots."""
        self.promises.lapse(now)
        if not self.is_seen:
            return []
        rows, turns = list(self.rows.values()), list[Turn[W]]()
        for waiter in list(self.waiters):
            row = self.choose(rows, waiter.wanted, now)
            if row is None and fitting(rows, waiter.wanted):
                continue
            if row is not None:
                self.promises.make(row, now)
            self.waiters.remove(waiter)
            turns.append(Turn(waiter, row))
        return turns
