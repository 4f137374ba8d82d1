"""The queen's table of nodes, which SQL and the public paths call beehives."""

from __future__ import annotations

import json
import logging
import sqlite3
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rbee.adapters.nearest import did_you_mean
from rbee.adapters.store.sqlite import Addition
from rbee.errors import NodeExistsError, NodeNotFoundError
from rbee.wire.common import check_base_url
from rbee.wire.registry import BeehiveRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rbee.adapters.store.sqlite import Store

log = logging.getLogger(__name__)

MOST_NAMED: Final = 10
"""Nodes that a hint names."""

MIGRATIONS: Final = (
    """
    CREATE TABLE beehives (
        node_name TEXT PRIMARY KEY,
        ssh_host TEXT NOT NULL,
        ssh_port INTEGER NOT NULL DEFAULT 22,
        ssh_user TEXT NOT NULL,
        ssh_key_path TEXT,
        git_repo_url TEXT,
        git_branch TEXT NOT NULL DEFAULT 'main',
        install_path TEXT NOT NULL,
        tunnel TEXT NOT NULL DEFAULT 'auto',
        host_key TEXT NOT NULL,
        last_connected_unix REAL,
        last_error TEXT,
        status TEXT NOT NULL DEFAULT 'unknown',
        backends TEXT NOT NULL DEFAULT '[]',
        devices TEXT NOT NULL DEFAULT '{}',
        spawned_by_queen INTEGER NOT NULL DEFAULT 0
    );
    """,
    """
    ALTER TABLE beehives ADD COLUMN hive_url TEXT;
    ALTER TABLE beehives ADD COLUMN is_tunnelled INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE beehives ADD COLUMN hive_id TEXT;
    """,
    Addition("beehives", "ssh_settings", "TEXT NOT NULL DEFAULT 'null'"),
)
"""In order; a change appends a script or an addition, and never edits one."""

_COLUMNS: Final = BeehiveRow.__struct_fields__
_JSON: Final = ("backends", "devices", "ssh_settings")
_BOOLEANS: Final = ("spawned_by_queen", "is_tunnelled")
_DAMAGED: Final = dict.fromkeys(_COLUMNS) | {
    "ssh_host": "damaged.invalid", "ssh_port": 22, "ssh_user": "", "git_branch": "main", "install_path": "",
    "tunnel": "auto", "host_key": "", "status": "unreachable", "backends": [], "devices": {}, "spawned_by_queen": False,
    "is_tunnelled": False, "ssh_settings": None,
    "last_error": "its entry in the registry is damaged: remove the node, and add it again",
}  # fmt: skip
"""Stands for an entry that is not as it was stored, so that the user sees it and can remove it; the others work on."""


class Registry:
    """The nodes that the user has registered; a database that fails raises StorageError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, row: BeehiveRow) -> None:
        """Store a new node. Raises NodeExistsError."""

        def work(connection: sqlite3.Connection) -> None:
            values = msgspec.structs.asdict(row)
            names, marks = ", ".join(values), ", ".join("?" * len(values))
            try:
                connection.execute(f"INSERT INTO beehives ({names}) VALUES ({marks})", _encoded(values))  # noqa: S608 (ours)
            except sqlite3.IntegrityError:
                raise _exists(row.node_name) from None

        await self._store.transact(work)

    async def check_free(self, node_name: str) -> None:
        """Raise NodeExistsError when the name is taken."""
        if await self._first("SELECT 1 FROM beehives WHERE node_name = ?", node_name) is not None:
            raise _exists(node_name)

    async def check_folder_free(self, row: BeehiveRow) -> None:
        """Raise NodeExistsError where another node has this folder: both would start and end the same hive."""
        query = (
            "SELECT node_name FROM beehives WHERE install_path = ? AND node_name != ?"
            " AND (host_key = ? AND host_key != '' OR ssh_host = ? AND ssh_port = ?)"
        )
        other = await self._first(query, row.install_path, row.node_name, row.host_key, row.ssh_host, row.ssh_port)
        if other is not None:
            raise NodeExistsError(
                f"node {row.node_name} would be node {other} once more: the same folder on the same machine",
                hint=f"`rbee setup update-node --name {other} …` changes that one; another --install-path makes a "
                "second installation on the machine, whose hive needs a port of its own",
                node=row.node_name,
                same_as=other,
            )

    async def replace(self, row: BeehiveRow) -> None:
        """Store all of a node that is in the table. Raises NodeNotFoundError."""
        await self.change(row.node_name, **msgspec.structs.asdict(row))

    async def change(self, node_name: str, /, **values: Any) -> None:
        """Store some columns of a node. Raises NodeNotFoundError."""
        changes = ", ".join(f"{name} = ?" for name in values)
        query = f"UPDATE beehives SET {changes} WHERE node_name = ?"  # noqa: S608 (our own columns)
        await self._change(query, node_name, *_encoded(values))

    async def remove(self, node_name: str) -> None:
        """Forget a node. Raises NodeNotFoundError."""
        await self._change("DELETE FROM beehives WHERE node_name = ?", node_name)

    async def _first(self, query: str, *values: object) -> object | None:
        """Return the first value that a query finds."""
        row = await self._store.transact(lambda connection: connection.execute(query, values).fetchone())
        return None if row is None else row[0]

    async def _change(self, query: str, node_name: str, *values: object) -> None:
        """Change the row of a node, whose name is the last value of the query."""
        if not await self._store.transact(lambda connection: connection.execute(query, (*values, node_name)).rowcount):
            raise not_found(node_name)

    async def rows(self) -> list[BeehiveRow]:
        def work(connection: sqlite3.Connection) -> list[BeehiveRow]:
            query = f"SELECT {', '.join(_COLUMNS)} FROM beehives ORDER BY node_name"  # noqa: S608 (our own columns)
            return [_row(values) for values in connection.execute(query)]

        return await self._store.transact(work)


def not_found(node_name: str, known: Iterable[str] = ()) -> NodeNotFoundError:
    """Return the error for a node that is not one of `known`, with the command that registers it."""
    meant = did_you_mean(node_name, known)
    return NodeNotFoundError(
        f"node {node_name} is not in the registry",
        hint=(f"{meant} " if meant else "") + "`rbee setup list-nodes` shows the nodes; to register it: "
        f"rbee setup add-node --name {node_name} --ssh-host HOST --ssh-user USER",
        node=node_name,
    )


def not_there_to_remove(node_name: str, known: Iterable[str]) -> NodeNotFoundError:
    """Return the error for a node that is to be removed, and is not one of `known`, which are registered."""
    names = sorted(known)
    more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    registered = f"registered are: {', '.join(names[:MOST_NAMED])}{more}" if names else "no node is registered"
    return NodeNotFoundError(
        f"node {node_name} is not in the registry", hint=did_you_mean(node_name, names) or registered, node=node_name
    )


def _exists(node_name: str) -> NodeExistsError:
    return NodeExistsError(
        f"node {node_name} is registered already",
        hint=f"`rbee setup update-node --name {node_name} …` changes it, "
        f"`rbee setup remove-node --name {node_name}` removes it",
        node=node_name,
    )


def _encoded(values: dict[str, Any]) -> list[Any]:
    return [json.dumps(msgspec.to_builtins(value)) if name in _JSON else value for name, value in values.items()]


def _row(values: tuple[Any, ...]) -> BeehiveRow:
    row = dict(zip(_COLUMNS, values, strict=True))
    try:
        row |= {name: json.loads(row[name]) for name in _JSON} | {name: bool(row[name]) for name in _BOOLEANS}
        found = msgspec.convert(row, BeehiveRow)
        if found.hive_url is not None:
            check_base_url(found.hive_url)
    except (msgspec.ValidationError, ValueError, TypeError, RecursionError) as exc:
        log.error("the entry of node %s in the registry is damaged: %s", row["node_name"], exc)  # noqa: TRY400 (expected)
        return msgspec.convert(_DAMAGED | {"node_name": str(row["node_name"])}, BeehiveRow)
    return found
