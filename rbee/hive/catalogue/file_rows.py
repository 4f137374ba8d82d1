"""The table `model_files`: which files a model of the catalogue is made of, in order, and their hashes."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from rbee.wire.hub import HubFile

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence


class Stored(NamedTuple):
    """A file on this node's disk, and how long it is."""

    path: Path
    size: int


class Unhashed(NamedTuple):
    """A file of a model whose hash is not known."""

    model_id: str
    name: str
    path: Path
    size: int


def put(connection: sqlite3.Connection, model_id: str, files: Sequence[HubFile]) -> None:
    """Store the files of a new model."""
    connection.executemany(
        "INSERT INTO model_files (model_id, place, name, size_bytes, sha256) VALUES (?, ?, ?, ?, ?)",
        [(model_id, place, *file) for place, file in enumerate(files)],
    )


def forget_others(connection: sqlite3.Connection) -> None:
    """Delete the files of models that are no longer in the catalogue."""
    connection.execute("DELETE FROM model_files WHERE model_id NOT IN (SELECT id FROM models)")


def of(connection: sqlite3.Connection, model_id: str) -> list[HubFile]:
    """Return the files of a model."""
    rows = connection.execute(
        "SELECT name, size_bytes, sha256 FROM model_files WHERE model_id = ? ORDER BY place", (model_id,)
    )
    return [HubFile(*row) for row in rows]


def stored(connection: sqlite3.Connection, model_id: str) -> list[Stored]:
    """Return where the files of a model are, and how long they were when they came."""
    first = connection.execute("SELECT local_path FROM models WHERE id = ?", (model_id,)).fetchone()
    return [Stored(_beside(first[0], file.name), file.size) for file in of(connection, model_id)] if first else []


def _beside(first: str, name: str) -> Path:
    """Return the path of a model's file; those of a split model lie beside the first."""
    return Path(first).with_name(PurePosixPath(name).name)


def by_hash(connection: sqlite3.Connection, sha256: str) -> list[Stored]:
    """Return the files that have this content, as far as the catalogue tells."""
    rows = connection.execute(
        "SELECT local_path, name, model_files.size_bytes FROM model_files JOIN models ON id = model_id"
        " WHERE model_files.sha256 = ?",
        (sha256,),
    )
    return [Stored(_beside(first, name), size) for first, name, size in rows]


def without_hash(connection: sqlite3.Connection) -> list[Unhashed]:
    """Return the files whose hash is not known, the smallest first."""
    rows = connection.execute(
        "SELECT model_id, name, local_path, model_files.size_bytes FROM model_files JOIN models ON id = model_id"
        " WHERE model_files.sha256 IS NULL ORDER BY model_files.size_bytes"
    )
    return [Unhashed(model_id, name, _beside(first, name), size) for model_id, name, first, size in rows]


def note_hash(connection: sqlite3.Connection, file: Unhashed, sha256: str) -> None:
    """Store the hash of a file, unless the catalogue tells of another one there by now."""
    values = (sha256, file.model_id, file.name, file.size)
    connection.execute(
        "UPDATE model_files SET sha256 = ? WHERE (model_id, name, size_bytes) = (?, ?, ?) AND sha256 IS NULL", values
    )
    connection.execute(
        "UPDATE models SET sha256 = (SELECT sha256 FROM model_files WHERE model_id = id AND place = 0) WHERE id = ?",
        (file.model_id,),
    )
