"""The hive's tables: its catalogue of models, with their names and files, and its last known workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.adapters.daemon.process import Identity

if TYPE_CHECKING:
    import sqlite3

    from rbee.hive.workers.record import Worker

MIGRATIONS: Final = (
    """
    CREATE TABLE models (
        id TEXT PRIMARY KEY,
        provider TEXT NOT NULL,
        reference TEXT NOT NULL,
        variant TEXT,
        local_path TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        sha256 TEXT,
        downloaded_at_unix REAL NOT NULL,
        last_used_unix REAL,
        UNIQUE (provider, reference, variant)
    );
    CREATE TABLE workers (
        id TEXT PRIMARY KEY,
        url TEXT,
        model_ref TEXT NOT NULL,
        backend TEXT NOT NULL,
        device INTEGER NOT NULL,
        state TEXT NOT NULL,
        slots_total INTEGER NOT NULL,
        slots_available INTEGER NOT NULL,
        pid INTEGER NOT NULL,
        started_at INTEGER NOT NULL,
        boot_id TEXT NOT NULL,
        idle_since REAL,
        last_health_at REAL,
        failed_checks INTEGER NOT NULL DEFAULT 0
    );
    """,
    """
    ALTER TABLE workers ADD COLUMN resource TEXT NOT NULL DEFAULT 'ram';
    ALTER TABLE workers ADD COLUMN memory INTEGER NOT NULL DEFAULT 0;
    """,
    """
    CREATE TABLE model_names (
        name TEXT PRIMARY KEY,
        model_id TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE model_files (
        model_id TEXT NOT NULL,
        place INTEGER NOT NULL,
        name TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        sha256 TEXT,
        PRIMARY KEY (model_id, place)
    );
    CREATE INDEX model_files_sha256 ON model_files (sha256);
    """,
)
"""Scripts in order; a change appends one and never edits one."""


def save_worker(connection: sqlite3.Connection, worker: Worker, identity: Identity) -> None:
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


def delete_worker(connection: sqlite3.Connection, worker_id: str) -> None:
    """Delete the worker's row, if there is one."""
    connection.execute("DELETE FROM workers WHERE id = ?", (worker_id,))


class LastKnown(NamedTuple):
    """A worker as the last hive left it; `url` is None for one that had not called back yet.

    `memory` is what it takes once it is loaded (bytes of `resource`).
    """

    id: str
    url: str | None
    model_ref: str
    backend: str
    device: int
    slots_total: int
    resource: str
    memory: int
    identity: Identity


def last_known_workers(connection: sqlite3.Connection) -> list[LastKnown]:
    """Return the stored workers."""
    rows = connection.execute(
        "SELECT id, url, model_ref, backend, device, slots_total, resource, memory, pid, started_at, boot_id"
        " FROM workers"
    )
    return [
        LastKnown(worker_id, url, model_ref, backend, device, slots, resource, memory, Identity(pid, started_at, boot))
        for worker_id, url, model_ref, backend, device, slots, resource, memory, pid, started_at, boot in rows
    ]
