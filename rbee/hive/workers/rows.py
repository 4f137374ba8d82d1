"""The table `workers`: what a hive stores of each worker, so that the next hive can adopt those that run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from rbee.adapters.daemon.process import Identity
from rbee.hive.workers.record import WorkerSpec

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable

    from rbee.hive.workers.record import WorkerRecord

log = logging.getLogger(__name__)


def save(connection: sqlite3.Connection, worker: WorkerRecord, identity: Identity) -> None:
    """Store the worker's row, new or changed."""
    connection.execute(
        "INSERT OR REPLACE INTO workers (id, url, model_ref, backend, device, state, slots_total, slots_available, pid,"
        " started_at, boot_id, idle_since, last_health_at, failed_checks, resource, memory)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            worker.id,
            worker.url,
            worker.spec.model_ref,
            worker.spec.backend,
            worker.spec.device,
            worker.state,
            worker.spec.slots,
            worker.slots_available,
            identity.pid,
            identity.started_at,
            identity.boot_id,
            worker.idle_since,
            worker.last_health_at,
            worker.failed_checks,
            worker.spec.resource,
            worker.spec.memory,
        ),
    )


def delete(connection: sqlite3.Connection, worker_id: str) -> None:
    connection.execute("DELETE FROM workers WHERE id = ?", (worker_id,))


class LastKnownWorker(NamedTuple):
    """A worker as the last hive stored it; `url` is None for one that had not called back yet.

    Where its model's file is, and how long its context, is not stored.
    """

    id: str
    url: str | None
    spec: WorkerSpec
    identity: Identity


def last_known(connection: sqlite3.Connection) -> list[LastKnownWorker]:
    rows = connection.execute(
        "SELECT id, url, model_ref, '', backend, device, resource, slots_total, NULL, memory, pid, started_at, boot_id"
        " FROM workers"
    )
    return [LastKnownWorker(row[0], row[1], WorkerSpec(*row[2:10]), Identity(*row[10:])) for row in rows]


class Compared(NamedTuple):
    """The stored workers that still run, and the ids of the others."""

    surviving: list[LastKnownWorker]
    gone: list[str]


def compare(stored: Iterable[LastKnownWorker], is_running: Callable[[Identity], bool]) -> Compared:
    """Return which of the stored workers still run, to be adopted before the hive serves.

    A row is compared with the process's start time and the boot, so a pid that was given out again is never taken for a
    worker. Whether the process also answers as that worker is checked once it is adopted.
    """
    compared = Compared([], [])
    for row in stored:
        if not is_running(row.identity):
            compared.gone.append(row.id)
            continue
        what = "is adopted" if row.url is not None else "was not ready: it is ended"
        log.info("worker %s (pid %d) outlived its hive and %s", row.id, row.identity.pid, what)
        compared.surviving.append(row)
    return compared
