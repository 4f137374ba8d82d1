"""Reads the registered nodes from the registry's file while no queen has it open."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from rbee.wire.registry import BeehiveRow

if TYPE_CHECKING:
    from rbee.adapters.config import Settings

_JSON: Final = ("backends", "devices", "ssh_settings")


def read(settings: Settings) -> list[BeehiveRow] | None:
    """Return the nodes by name; None where only a queen can tell: it mends, and brings up to date, what is there.

    The file is opened as one that nobody changes, so without a lock: a second connection that takes part could damage
    it, see `adapters.store.sqlite`. A queen that was killed has left its last changes beside it.
    """
    path = settings.state_dir / "beehives.db"
    if not path.exists():
        return []
    beside = path.with_name(f"{path.name}-wal")
    if beside.exists() and beside.stat().st_size:
        return None
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)
        try:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM beehives ORDER BY node_name").fetchall()
        finally:
            connection.close()
        return [_row(dict(row)) for row in rows]
    except (sqlite3.Error, ValueError, msgspec.ValidationError):
        return None


def _row(values: dict[str, object]) -> BeehiveRow:
    for name in _JSON:
        if isinstance(text := values.get(name), str):
            values[name] = json.loads(text)
    return msgspec.convert(values, BeehiveRow, strict=False)
