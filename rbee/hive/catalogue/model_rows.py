"""The tables `models` and `model_names`: which models are on this node's disk, and what they are called."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from rbee.hive.catalogue import file_rows
from rbee.wire.model_ref import ModelRef
from rbee.wire.models import ModelRow

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from rbee.wire.hub import HubFile

_COLUMNS: Final = "id, provider, reference, variant, local_path, size_bytes, sha256, downloaded_at_unix, last_used_unix"


def _row(values: Sequence[object]) -> ModelRow:
    model_id, provider, reference, kind, *rest = values
    ref = ModelRef(provider, reference, kind or None)  # type: ignore[arg-type]
    names = ("local_path", "size_bytes", "sha256", "downloaded_at_unix", "last_used_unix")
    return ModelRow(
        id=str(model_id),
        model_ref=str(ref),
        provider=ref.provider,
        reference=ref.reference,
        variant=ref.variant or "",
        **dict(zip(names, rest, strict=True)),  # type: ignore[arg-type]
    )


def _one(connection: sqlite3.Connection, condition: str, *values: object) -> ModelRow | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM models WHERE {condition}", values).fetchone()  # noqa: S608
    return None if row is None else _row(row)


def by_name(connection: sqlite3.Connection, name: str) -> ModelRow | None:
    """Return the model that this name has come to mean here."""
    return _one(connection, "id = (SELECT model_id FROM model_names WHERE name = ?)", name)


def by_path(connection: sqlite3.Connection, path: str) -> ModelRow | None:
    """Return the model whose first file is at `path`."""
    return _one(connection, "local_path = ?", path)


def by_id(connection: sqlite3.Connection, model_id: str) -> ModelRow | None:
    return _one(connection, "id = ?", model_id)


def all_models(connection: sqlite3.Connection) -> list[ModelRow]:
    """Return all models, by id."""
    return [_row(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM models ORDER BY id")]  # noqa: S608


def of_repository(connection: sqlite3.Connection, ref: ModelRef) -> list[tuple[ModelRow, list[HubFile]]]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM models WHERE (provider, reference) = (?, ?) ORDER BY id",  # noqa: S608
        (ref.provider, ref.reference),
    )
    return [(row, file_rows.of(connection, row.id)) for row in map(_row, rows.fetchall())]


def add_name(connection: sqlite3.Connection, ref: ModelRef, model_id: str) -> None:
    """Have `ref` mean the model from now on."""
    connection.execute("INSERT OR REPLACE INTO model_names (name, model_id) VALUES (?, ?)", (str(ref), model_id))


def add(
    connection: sqlite3.Connection, ref: ModelRef, kind: str, path: Path, files: Sequence[HubFile], now: float
) -> ModelRow:
    """Store a model, its files and its names; a row for the same files or the same variant is replaced.

    `kind` is empty for a user's own file.
    """
    connection.execute(
        "DELETE FROM models WHERE local_path = ? OR (provider, reference, variant) = (?, ?, ?)",
        (str(path), ref.provider, ref.reference, kind),
    )
    file_rows.delete_orphans(connection)
    model_id = path.stem
    if by_id(connection, model_id) is not None:
        # A file of another repository has this name.
        model_id += "-" + hashlib.sha256(f"{ref.reference}/{kind}".encode()).hexdigest()[:8]
    connection.execute(
        f"INSERT INTO models ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",  # noqa: S608
        (
            model_id,
            ref.provider,
            ref.reference,
            kind,
            str(path),
            sum(file.size for file in files),
            files[0].sha256,
            now,
        ),
    )
    file_rows.put(connection, model_id, files)
    add_name(connection, ref, model_id)
    add_name(connection, ref._replace(variant=kind or None), model_id)
    row = by_id(connection, model_id)
    assert row is not None
    return row


def note_use(connection: sqlite3.Connection, model_id: str, now: float) -> None:
    """Store when a worker was last started with the model."""
    connection.execute("UPDATE models SET last_used_unix = ? WHERE id = ?", (now, model_id))


def delete(connection: sqlite3.Connection, model_id: str) -> None:
    connection.execute("DELETE FROM models WHERE id = ?", (model_id,))
    connection.execute("DELETE FROM model_names WHERE model_id = ?", (model_id,))
    file_rows.delete_orphans(connection)
