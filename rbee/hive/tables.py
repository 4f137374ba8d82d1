"""The schema of the hive's database: models with their names and files, and the last known workers."""

from __future__ import annotations

from typing import Final

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
