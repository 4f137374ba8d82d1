"""Decides which waiting request gets which slot, and keeps one slot from being given to two of them (PURE)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

from rbee.queen.placement import Wanted, fitting

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from rbee.wire.hive import WorkerRow

PROMISE_SECONDS: Final = 1.0
"""How long a slot stays promised to a request that was sent there and has not been seen to take it."""


class Promises:
    """Slots that requests were sent to. Times are seconds of one monotonic clock.

    What a worker shows is always a little late: between the answer "go there" and the request's arrival the slot still
    looks free.
    """

    def __init__(self) -> None:
        self._until: dict[str, list[float | None]] = {}

    def make(self, row: WorkerRow, now: float) -> None:
        """Promise one slot of a worker; while it loads, nobody can take it, and the promise stays."""
        promised = self._until.setdefault(row.id, [])
        promised[:] = [until for until in promised if until is None or until > now]
        promised.append(None if row.state == "loading" else now + PROMISE_SECONDS)

    def see(self, before: WorkerRow | None, row: WorkerRow, now: float) -> None:
        """Take note of a worker's new state: a slot that was taken is promised no longer."""
        if (promised := self._until.get(row.id)) is None:
            return
        if row.state != "loading":
            promised[:] = [now + PROMISE_SECONDS if until is None else until for until in promised]
        taken = _busy(row) - (_busy(before) if before is not None else 0)
        del promised[: max(0, taken)]

    def forget(self, worker_id: str) -> None:
        """The worker is gone."""
        self._until.pop(worker_id, None)

    def keep_only(self, worker_ids: Container[str]) -> None:
        """These are all workers there are; whatever was promised of others is void."""
        for gone in [worker_id for worker_id in self._until if worker_id not in worker_ids]:
            self.forget(gone)

    def free(self, row: WorkerRow, now: float) -> int:
        """Return how many slots of the worker may still be promised."""
        shown = row.slots_total if row.state == "loading" else row.slots_available
        return shown - sum(until is None or until > now for until in self._until.get(row.id, ()))

    def due(self, now: float) -> float | None:
        """Return when the next promise lapses."""
        lapses = [until for promised in self._until.values() for until in promised if until is not None and until > now]
        return min(lapses, default=None)


def _busy(row: WorkerRow) -> int:
    return row.slots_total - row.slots_available if row.state in ("idle", "busy") else 0


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
    """The requests that wait on one node, the oldest first; at most `limit`."""

    limit: int
    promises: Promises = field(default_factory=Promises)
    waiters: list[W] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        return len(self.waiters) >= self.limit

    def remove(self, waiter: W) -> None:
        """Take a request out that waits no longer, if it still does."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def choose(self, rows: Sequence[WorkerRow], wanted: Wanted, now: float) -> WorkerRow | None:
        """Return the best worker that has a slot left for `wanted`."""
        return next((row for row in fitting(rows, wanted) if self.promises.free(row, now) > 0), None)

    def turns(self, rows: Sequence[WorkerRow], now: float) -> list[Turn[W]]:
        """Take out the requests whose turn it is now, and promise them their slots."""
        turns: list[Turn[W]] = []
        for waiter in list(self.waiters):
            row = self.choose(rows, waiter.wanted, now)
            if row is None and fitting(rows, waiter.wanted):
                continue
            if row is not None:
                self.promises.make(row, now)
            self.waiters.remove(waiter)
            turns.append(Turn(waiter, row))
        return turns
