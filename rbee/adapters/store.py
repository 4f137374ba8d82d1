"""Keeps a daemon's registries in one SQLite file: one process, one connection, one statement thread."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, TypeVar

import trio

from rbee.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T")


class Store:
    """An open database.

    SQLite 3.7.0 to 3.51.2 can corrupt a WAL database that two connections use, so there is one connection, and the
    limiter of 1 makes every transaction wait for the one before. Who opens a store holds its role's `Place` already,
    so no other process has the file.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._limiter = trio.CapacityLimiter(1)

    @classmethod
    async def open(cls, path: Path, migrations: Sequence[str]) -> Store:
        """Open or make the database; `migrations` are scripts in order, of which only new ones are run.

        Raises StorageError when the file cannot be opened or was made by a newer version.
        """
        return cls(await trio.to_thread.run_sync(_open, path, migrations), path)

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction: all of it is stored, or nothing.

        Once begun it is not cancelled half-way. Raises StorageError.
        """

        def attempt() -> T:
            try:
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    return work(self._connection)
            except sqlite3.Error as exc:
                raise StorageError(f"{self._path.name}: {exc}") from exc

        return await trio.to_thread.run_sync(attempt, limiter=self._limiter)

    async def close(self) -> None:
        """Write everything back and close."""
        await trio.to_thread.run_sync(self._connection.close, limiter=self._limiter)


def _open(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1)
        try:
            _migrate(connection, path, migrations)
        except BaseException:
            connection.close()  # it may be inside a transaction, which would lock the next one out
            raise
    except (sqlite3.Error, OSError) as exc:
        raise StorageError(f"{path.name} cannot be opened: {exc}") from exc
    return connection


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise StorageError(f"{path.name} was written by a newer version of rbee", hint="upgrade rbee on this host")
    for number, script in enumerate(migrations[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
