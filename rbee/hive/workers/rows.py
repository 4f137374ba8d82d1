"""The table `workers`: what a hive stores of each worker, so that the next hive can adopt it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.adapters.daemon.process import Identity

if TYPE_CHECKING:
    import sqlite3

    from rbee.hive.workers.record import Resource, WorkerRecord


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
    """Delete the worker's row, if there is one."""
    connection.execute("DELETE FROM workers WHERE id = ?", (worker_id,))


class LastKnownWorker(NamedTuple):
    """A worker as the last hive stored it; `url` is None for one that had not called back yet.

    `memory` is what it takes once it is loaded (bytes of `resource`).
    """

    id: str
    url: str | None
    model_ref: str
    backend: str
    device: int
    slots_total: int
    resource: Resource
    memory: int
    identity: Identity


def last_known(connection: sqlite3.Connection) -> list[LastKnownWorker]:
    """Return the stored workers."""
    rows = connection.execute(
        "SELECT id, url, model_ref, backend, device, slots_total, resource, memory, pid, started_at, boot_id"
        " FROM workers"
    )
    return [
        LastKnownWorker(
            worker_id, url, model_ref, backend, device, slots, resource, memory, Identity(pid, started_at, boot)
        )
        for worker_id, url, model_ref, backend, device, slots, resource, memory, pid, started_at, boot in rows
    ]
