"""Keeps a daemon's registries in one SQLite file: one process, one connection, one statement thread."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

import trio

from rbee.adapters.files import full_disk, private
from rbee.adapters.store.ballast import SMALLEST, Ballast
from rbee.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

T = TypeVar("T")

_WANTS_ROOM: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
"""How SQLite ends where there is no room: for pages, for its shared index, for a new file beside the database."""
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FILES: Final = ("", "-wal", "-shm")
"""A database in WAL mode is up to three files (sqlite.org/wal.html)."""


class Transact(Protocol):
    """Runs a function on the database, in one transaction; `Store.transact` is one."""

    async def __call__(self, work: Callable[[sqlite3.Connection], T], /) -> T: ...


class Addition(NamedTuple):
    """A column that older versions pass over, so that they can open the file again: it raises no version number."""

    table: str
    column: str
    declaration: str


class AddedTable(NamedTuple):
    """A table that older versions pass over, as an Addition; `script` makes it."""

    table: str
    script: str


Migration = str | Addition | AddedTable


class Store:
    """An open database.

    SQLite 3.7.0 to 3.51.2 can corrupt a WAL database that two connections use, so there is one connection, and the
    limiter of 1 makes every transaction wait for the one before. A daemon opens its store after it holds its
    role's lock, so no other process has the file.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, ballast: Ballast, damage: str | None) -> None:
        self.damage = damage
        """What was wrong with the file, and where it was moved; None for a sound file."""
        self._connection = connection
        self._path = path
        self._ballast = ballast
        self._limiter = trio.CapacityLimiter(1)

    @classmethod
    async def open(cls, path: Path, migrations: Sequence[Migration]) -> Store:
        """Open or make the database; `migrations` are scripts in order, of which only new ones are run, and additions.

        A damaged file is moved aside and made anew: its content can be found out again, and a daemon that does not
        start is of no use. Raises StorageError when the file cannot be opened or was made by a newer version.
        """
        ballast = Ballast(path.with_name(f"{path.name}.ballast"))
        connection, damage = await trio.to_thread.run_sync(_open, path, migrations, ballast)
        return cls(connection, path, ballast, damage)

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction: all of it is stored, or nothing.

        It is run again when there was no room on the disk and the ballast has been dropped. Once begun it is not
        cancelled half-way. Raises StorageError.
        """

        def attempt() -> T:
            try:
                return self._attempt(work)
            except sqlite3.Error as exc:
                raise _explain(exc, self._path, self._path.name) from exc

        return await trio.to_thread.run_sync(attempt, limiter=self._limiter)

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._run(work)
        except sqlite3.Error as exc:
            if _code(exc) not in _WANTS_ROOM or not self._ballast.drop():
                raise
            found = self._run(work)
            with suppress(sqlite3.Error):
                # What was appended to the log of changes goes into the database, and its room to the ballast.
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return found
        finally:
            self._ballast.restore()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            return work(self._connection)

    async def close(self) -> None:
        """Write everything back and close."""
        await trio.to_thread.run_sync(self._connection.close, limiter=self._limiter)


def _code(exc: sqlite3.Error) -> int:
    """Return SQLite's primary result code; 0 where it was Python's module that complained."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def _explain(exc: sqlite3.Error, path: Path, what: str) -> StorageError:
    """Return the error to show, whose message begins with `what`."""
    if _is_full(exc, path.parent):
        return StorageError(f"{what}: the disk is full", hint=full_disk.ADVICE)
    # SQLITE_ERROR: the statement does not fit the tables, so they are not those of our version.
    foreign = _code(exc) == sqlite3.SQLITE_ERROR or path.is_dir()
    hint = f"{path.name} is not as rbee made it: move it away, and a new one is made" if foreign else None
    return StorageError(f"{what}: {exc}", hint=hint)


def _is_full(exc: sqlite3.Error, folder: Path) -> bool:
    if _code(exc) == sqlite3.SQLITE_FULL:
        return True
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return _code(exc) in _WANTS_ROOM and found.f_bavail * found.f_frsize < SMALLEST


def _open(path: Path, migrations: Sequence[Migration], ballast: Ballast) -> tuple[sqlite3.Connection, str | None]:
    """Return the connection, and a note on a damaged file."""
    damage = None
    try:
        private.make_private(path.parent)
        try:
            connection = _connect(path, migrations)
        except sqlite3.Error as exc:
            if _code(exc) in _DAMAGED:
                damage = _move_aside(path, exc)
            elif _code(exc) not in _WANTS_ROOM or not ballast.drop():
                raise
            connection = _connect(path, migrations)
    except sqlite3.Error as exc:
        raise _explain(exc, path, f"{path.name} cannot be opened") from exc
    except OSError as exc:
        raise full_disk.refused(f"{path.name} cannot be opened", exc) from exc
    ballast.restore()
    return connection, damage


def _connect(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1)
    try:
        _check(connection)
        _migrate(connection, path, migrations)
    except BaseException:
        connection.close()  # it may be inside a transaction, which would lock the next one out
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        damage = sqlite3.DatabaseError(found)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage


def _move_aside(path: Path, why: sqlite3.Error) -> str:
    """Rename the database's files, and say so; an earlier damaged one is replaced, so that they never pile up."""
    aside = f"{path.name}.damaged"
    for suffix in _FILES:
        part, moved = path.with_name(path.name + suffix), path.with_name(aside + suffix)
        if part.exists():
            part.replace(moved)
        else:
            moved.unlink(missing_ok=True)
    said = f"{path.name} is damaged ({why}): it is now {aside}, and a new one is made"
    log.error("%s", said)
    return said


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    scripts = [script for script in migrations if isinstance(script, str)]
    if version > len(scripts):
        raise StorageError(f"{path.name} was written by a newer version of rbee", hint="upgrade rbee on this host")
    for number, script in enumerate(scripts[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
    for made in (each for each in migrations if isinstance(each, AddedTable)):
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        if connection.execute(query, (made.table,)).fetchone() is None:
            connection.executescript(f"BEGIN IMMEDIATE;\n{made.script}\nCOMMIT;")
    for table, column, declaration in (each for each in migrations if isinstance(each, Addition)):
        if column not in [found[1] for found in connection.execute(f"PRAGMA table_info({table})")]:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {declaration}")
