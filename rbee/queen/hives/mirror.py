"""What the queen knows of a node: its hive's workers, as their event stream shows them, and its devices (PURE)."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from rbee.wire.hive import WorkerGone, WorkerList, WorkerRow
from rbee.wire.worker import EndedRequest

if TYPE_CHECKING:
    from rbee.wire.hive import BackendDevices, EndedWorker, HiveEvent

REMEMBERED_ENDS: Final = 100
"""Ended workers whose reason can still be asked for: a hive that ends takes its own memory of them along, just when
the requests that were sent to its workers ask."""
Devices = Mapping[str, Sequence[int | None]]
"""Backend → free bytes of each of its devices; None where that is not known."""


def devices_of(backends: Sequence[BackendDevices]) -> Devices:
    """Return the devices that a hive reports."""
    return {backend.name: [device.memory_available for device in backend.devices] for backend in backends}


class HiveMirror:
    """What the queen knows of one hive's workers without asking.

    `rows` are the workers by id; while `is_live` is false the event stream is not held, and nothing is known of them.
    `ended` are the last workers that ended, by id; None stands for an end that was asked for. `finished` counts the
    requests that have ended at each worker since it was seen.
    """

    def __init__(self) -> None:
        self.is_live = False
        self.rows: dict[str, WorkerRow] = {}
        self.ended: OrderedDict[str, EndedWorker | None] = OrderedDict()
        self.finished: Counter[str] = Counter()

    def on_hive_event(self, event: HiveEvent | None) -> list[WorkerRow | WorkerGone]:
        """The hive has sent an event; None stands for a stream that was lost.

        Returns which workers have changed; that a health check has found one alive once more is no change.
        """
        before = self.rows
        match event:
            case None:
                self.is_live, self.rows = False, {}
            case WorkerList(workers=rows, ended=ended):
                self.is_live, self.rows = True, {row.id: row for row in rows}
                self.finished = Counter({name: count for name, count in self.finished.items() if name in self.rows})
                self._remember({worker.id: worker for worker in ended})
            case WorkerRow():
                self.rows = before | {event.id: event}
            case WorkerGone(id=worker_id, ended=reason):
                self.rows = {known: row for known, row in before.items() if known != worker_id}
                self._remember({worker_id: reason})
                del self.finished[worker_id]
                return [event] if worker_id in before else []
            case EndedRequest(worker_id=str(worker_id)) if worker_id in before:
                self.finished[worker_id] += 1
                return []
            case _:
                return []
        changed = [row for worker_id, row in self.rows.items() if _has_changed(before.get(worker_id), row)]
        return [*(WorkerGone(id=worker_id) for worker_id in before if worker_id not in self.rows), *changed]

    def _remember(self, ended: dict[str, EndedWorker | None]) -> None:
        self.ended.update(ended)
        while len(self.ended) > REMEMBERED_ENDS:
            self.ended.popitem(last=False)


def _has_changed(before: WorkerRow | None, row: WorkerRow) -> bool:
    if before is None:
        return True
    seen = msgspec.structs.replace(before, idle_since=row.idle_since, last_health_at=row.last_health_at)
    return seen != row
