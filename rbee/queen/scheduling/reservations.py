"""Keeps one free slot from being given to two requests: what was promised, and until when (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container

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

    def make(self, row: WorkerRow, now: float, *, is_shown: bool = True) -> None:
        """Promise one slot of a worker; while it loads, nobody can take it, and the promise stays.

        That is so only where the hive's event stream has shown the worker, and so will tell its end (`is_shown`). Of
        one that an answer alone has named nothing more may ever be heard, as when it starts and ends between two
        events: until it is shown, the promise lapses like any other.
        """
        stays = row.state == "loading" and is_shown
        self._until.setdefault(row.id, []).append(None if stays else now + PROMISE_SECONDS)

    def see(self, before: WorkerRow | None, row: WorkerRow, now: float) -> None:
        """Take note of a worker's new state: a slot that was taken is promised no longer."""
        if (promised := self._until.get(row.id)) is None:
            return
        if row.state == "loading":
            promised[:] = [None] * len(promised)
        else:
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

    def lapse(self, now: float) -> None:
        """Drop what has not been taken up in time."""
        for worker_id, promised in list(self._until.items()):
            promised[:] = [until for until in promised if until is None or until > now]
            if not promised:
                del self._until[worker_id]

    def free(self, row: WorkerRow, now: float) -> int:
        """Return how many slots of the worker may still be promised."""
        shown = row.slots_total if row.state == "loading" else row.slots_available
        return shown - sum(until is None or until > now for until in self._until.get(row.id, ()))

    def due(self) -> float | None:
        """Return when the next promise lapses."""
        return min(
            (until for promised in self._until.values() for until in promised if until is not None), default=None
        )


def _busy(row: WorkerRow) -> int:
    return row.slots_total - row.slots_available if row.state in ("idle", "busy") else 0
