"""Keeps one free slot from being given to two requests: what is reserved, and until when (PURE)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rbee.wire.hive import WorkerRow

RESERVED_SECONDS: Final = 1.0
"""How long a slot stays reserved for a request that was sent there and has not been seen to take it."""


@dataclass(slots=True)
class _Worker:
    """A worker with reserved slots: how many of its slots were last seen taken, and until when each reservation lasts.

    None lasts while the worker loads. `is_shown` says whether the hive's event stream has shown the worker. Some that
    were `made` may have been used by requests so short that no slot was seen taken; `finished` had ended before.
    """

    busy: int
    is_shown: bool
    finished: int = 0
    made: int = 0
    until: list[float | None] = field(default_factory=list)


class Reservations:
    """Slots that requests were sent to. Times are seconds of one monotonic clock.

    What a worker shows is always a little late: between the answer "go there" and the request's arrival the slot still
    looks free.
    """

    def __init__(self) -> None:
        self._workers: dict[str, _Worker] = {}

    def make(self, row: WorkerRow, now: float, *, is_shown: bool = True, finished: int = 0) -> None:
        """Reserve one slot of a worker; while it loads, nobody can take it, and the reservation stays.

        That is so only where the hive's event stream has shown the worker, and so will report its end (`is_shown`).
        A worker that only an answer has named may never be shown, as when it starts and ends between two events: until
        it is, the reservation lapses like any other. `finished` requests have ended at the worker.
        """
        worker = self._workers.setdefault(row.id, _Worker(_busy(row), is_shown, finished))
        worker.made += 1
        worker.until.append(None if row.state == "loading" and is_shown else now + RESERVED_SECONDS)

    def update(self, rows: Mapping[str, WorkerRow], now: float) -> None:
        """These are the workers that the event stream shows: a slot that was taken is reserved no longer.

        Nor is one of a worker that is gone. One that was never shown may still be on its way into the stream.
        """
        for worker_id, worker in list(self._workers.items()):
            if (row := rows.get(worker_id)) is not None:
                _see(worker, row, now)
            elif worker.is_shown:
                del self._workers[worker_id]

    def lapse(self, now: float) -> None:
        """Drop what has not been taken up in time."""
        for worker_id, worker in list(self._workers.items()):
            worker.until[:] = [until for until in worker.until if until is None or until > now]
            if not worker.until:
                del self._workers[worker_id]

    def free(self, row: WorkerRow, now: float) -> int:
        """Return how many slots of the worker may still be reserved."""
        shown = row.slots_total if row.state == "loading" else row.slots_available
        worker = self._workers.get(row.id)
        return shown - sum(until is None or until > now for until in (worker.until if worker is not None else ()))

    def due(self) -> float | None:
        """Return when the next reservation lapses."""
        return min(
            (until for worker in self._workers.values() for until in worker.until if until is not None), default=None
        )

    def awaited(self, finished: Mapping[str, int]) -> list[str]:
        """Return the workers that requests are on their way to, where so many have ended at each."""
        return sorted(
            worker_id
            for worker_id, worker in self._workers.items()
            if worker.until and worker.made > finished.get(worker_id, 0) - worker.finished
        )

    def worker_ids(self) -> set[str]:
        """Return the workers of which slots are reserved."""
        return set(self._workers)


def _see(worker: _Worker, row: WorkerRow, now: float) -> None:
    if row.state == "loading":
        worker.until[:] = [None] * len(worker.until)
    else:
        worker.until[:] = [now + RESERVED_SECONDS if until is None else until for until in worker.until]
    taken, worker.busy, worker.is_shown = _busy(row) - worker.busy, _busy(row), True
    del worker.until[: max(0, taken)]


def _busy(row: WorkerRow) -> int:
    return row.slots_total - row.slots_available if row.state in ("idle", "busy") else 0
