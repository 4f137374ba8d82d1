"""The queen's table of API keys: of each key its hash, never the key."""

from __future__ import annotations

import json
import logging
import sqlite3
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from rbee.adapters.store.sqlite import AddedTable
from rbee.errors import InvalidRequestError
from rbee.wire.administration.keys import ApiKey

if TYPE_CHECKING:
    from rbee.adapters.store.sqlite import Store
    from rbee.adapters.store.write_behind import Work

log = logging.getLogger(__name__)

TABLE: Final = AddedTable(
    "api_keys",
    """
    CREATE TABLE api_keys (
        name TEXT PRIMARY KEY,
        hash TEXT NOT NULL UNIQUE,
        shown TEXT NOT NULL,
        models TEXT NOT NULL DEFAULT '[]',
        created_unix REAL NOT NULL,
        expires_unix REAL,
        last_used_unix REAL,
        requests INTEGER NOT NULL DEFAULT 0,
        prompt_tokens INTEGER NOT NULL DEFAULT 0,
        cached_tokens INTEGER NOT NULL DEFAULT 0,
        generated_tokens INTEGER NOT NULL DEFAULT 0
    );
    """,
)
_COLUMNS: Final = ApiKey.__struct_fields__
_COUNTS: Final = ("last_used_unix", "requests", "prompt_tokens", "cached_tokens", "generated_tokens")


class StoredKey(NamedTuple):
    """A key, and the SHA-256 that it is known by."""

    hash: str
    info: ApiKey


class KeyTable:
    """The keys on the disk; a database that fails raises StorageError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def rows(self) -> list[StoredKey]:
        """Return the keys by name. One whose entry is damaged opens nothing."""
        query = f"SELECT hash, {', '.join(_COLUMNS)} FROM api_keys ORDER BY name"  # noqa: S608 (our own columns)
        found = await self._store.transact(lambda connection: connection.execute(query).fetchall())
        return [key for values in found if (key := _key(values)) is not None]

    async def names(self) -> set[str]:
        """Return the names of all keys, also of those whose entries are damaged."""
        query = "SELECT name FROM api_keys"
        found = await self._store.transact(lambda connection: connection.execute(query).fetchall())
        return {str(name) for (name,) in found}

    async def add(self, key: StoredKey) -> None:
        """Store a new key. Raises InvalidRequestError."""
        values = msgspec.structs.asdict(key.info) | {"models": json.dumps(key.info.models), "hash": key.hash}
        marks = ", ".join("?" * len(values))
        query = f"INSERT INTO api_keys ({', '.join(values)}) VALUES ({marks})"  # noqa: S608 (our own columns)

        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute(query, list(values.values()))
            except sqlite3.IntegrityError:
                raise exists(key.info.name) from None

        await self._store.transact(work)

    async def remove(self, name: str) -> None:
        query = "DELETE FROM api_keys WHERE name = ?"
        await self._store.transact(lambda connection: connection.execute(query, (name,)))

    async def transact(self, work: Work) -> None:
        """Run a piece of work that `counted` has made."""
        await self._store.transact(work)


def counted(key: StoredKey) -> Work:
    """Return the work that stores what a key was used for, if it is still there."""
    values = [getattr(key.info, name) for name in _COUNTS]
    changes = ", ".join(f"{name} = ?" for name in _COUNTS)
    query = f"UPDATE api_keys SET {changes} WHERE hash = ?"  # noqa: S608 (our own columns)
    return lambda connection: connection.execute(query, (*values, key.hash))


def exists(name: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"field name: there is a key {name} already",
        hint=f"choose another name; or `rbee keys revoke {name}`, and make it anew",
        field="name",
        rule="unique",
    )


def _key(values: tuple[Any, ...]) -> StoredKey | None:
    row = dict(zip(("hash", *_COLUMNS), values, strict=True))
    try:
        row["models"] = json.loads(row["models"])
        return StoredKey(str(row.pop("hash")), msgspec.convert(row, ApiKey))
    except (msgspec.ValidationError, ValueError, TypeError, RecursionError) as exc:
        log.error("the entry of the key %s is damaged: %s", row.get("name"), exc)  # noqa: TRY400 (expected)
        return None
