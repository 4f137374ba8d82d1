"""The table `model_files`: the files of each model of the catalogue, in order, with their hashes."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from rbee.wire.hub import HubFile

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence


class StoredFile(NamedTuple):
    """A file on this node's disk, and its size when it was stored."""

    path: Path
    size: int


class UnhashedFile(NamedTuple):
    """A file of a model whose hash is unknown."""

    model_id: str
    name: str
    path: Path
    size: int


def put(connection: sqlite3.Connection, model_id: str, files: Sequence[HubFile]) -> None:
    connection.executemany(
        "INSERT INTO model_files (model_id, place, name, size_bytes, sha256) VALUES (?, ?, ?, ?, ?)",
        [(model_id, index, *file) for index, file in enumerate(files)],
    )


def delete_orphans(connection: sqlite3.Connection) -> None:
    """Delete the files of models that are no longer in the catalogue."""
    connection.execute("DELETE FROM model_files WHERE model_id NOT IN (SELECT id FROM models)")


def of(connection: sqlite3.Connection, model_id: str) -> list[HubFile]:
    rows = connection.execute(
        "SELECT name, size_bytes, sha256 FROM model_files WHERE model_id = ? ORDER BY place", (model_id,)
    )
    return [HubFile(*row) for row in rows]


def stored(connection: sqlite3.Connection, model_id: str) -> list[StoredFile]:
    """Return where the files of a model are, and their sizes when they were stored."""
    first = connection.execute("SELECT local_path FROM models WHERE id = ?", (model_id,)).fetchone()
    return [StoredFile(_beside(first[0], file.name), file.size) for file in of(connection, model_id)] if first else []


def _beside(first: str, name: str) -> Path:
    """Return the path of a model's file; those of a split model lie beside the first."""
    return Path(first).with_name(PurePosixPath(name).name)


def by_hash(connection: sqlite3.Connection, sha256: str) -> list[StoredFile]:
    """Return the files that have this content, according to the table."""
    rows = connection.execute(
        "SELECT local_path, name, model_files.size_bytes FROM model_files JOIN models ON id = model_id"
        " WHERE model_files.sha256 = ?",
        (sha256,),
    )
    return [StoredFile(_beside(first, name), size) for first, name, size in rows]


def without_hash(connection: sqlite3.Connection) -> list[UnhashedFile]:
    """Return the files whose hash is unknown, the smallest first."""
    rows = connection.execute(
        "SELECT model_id, name, local_path, model_files.size_bytes FROM model_files JOIN models ON id = model_id"
        " WHERE model_files.sha256 IS NULL ORDER BY model_files.size_bytes"
    )
    return [UnhashedFile(model_id, name, _beside(first, name), size) for model_id, name, first, size in rows]


def note_hash(connection: sqlite3.Connection, file: UnhashedFile, sha256: str) -> None:
    """Store the hash of a file, unless its row has changed since."""
    values = (sha256, file.model_id, file.name, file.size)
    connection.execute(
        "UPDATE model_files SET sha256 = ? WHERE (model_id, name, size_bytes) = (?, ?, ?) AND sha256 IS NULL", values
    )
    connection.execute(
        "UPDATE models SET sha256 = (SELECT sha256 FROM model_files WHERE model_id = id AND place = 0) WHERE id = ?",
        (file.model_id,),
    )
