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


def by_hash(connection: sqlite3.Connection, sha256: str) -> list[Stored]:
    """Return the files that have this content, as far as the catalogue tells."""
    rows = connection.execute(
        "SELECT local_path, name, model_files.size_bytes FROM model_files JOIN models ON id = model_id"
        " WHERE model_files.sha256 = ?",
        (sha256,),
    )
    # The files of a split model lie beside the first.
    return [Stored(Path(first).with_name(PurePosixPath(name).name), size) for first, name, size in rows]
