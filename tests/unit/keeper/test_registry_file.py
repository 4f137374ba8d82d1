"""The registry is read without a queen where it is whole, and nobody has left changes beside it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from rbee.adapters import config
from rbee.keeper.session import registry_file
from tests.kit.remote_nodes import register

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> config.Settings:
    return config.load({"paths": {"state_dir": str(tmp_path)}}, environment={})


def test_nodes_are_read_in_order_and_the_file_is_left_alone(settings: config.Settings) -> None:
    assert registry_file.read(settings) == []
    register(settings.state_dir, ("cellar", "127.0.0.3"), ("attic", "127.0.0.2"))
    before = {path: path.read_bytes() for path in settings.state_dir.iterdir()}
    rows = registry_file.read(settings)
    assert rows is not None
    assert [(row.node_name, row.ssh_host, row.backends, row.is_tunnelled) for row in rows] == [
        ("attic", "127.0.0.2", [], False),
        ("cellar", "127.0.0.3", [], False),
    ]
    assert {path: path.read_bytes() for path in settings.state_dir.iterdir()} == before


@pytest.mark.parametrize("damage", ["no database", "half", "another table", "changes beside it", "a wrong value"])
def test_a_queen_is_needed_where_there_is_something_to_mend(settings: config.Settings, damage: str) -> None:
    register(settings.state_dir, ("attic", "127.0.0.2"))
    path = settings.state_dir / "beehives.db"
    match damage:
        case "no database":
            path.write_bytes(b"text" * 1000)
        case "half":
            path.write_bytes(path.read_bytes()[:5000])
        case "another table":
            path.unlink()
            sqlite3.connect(path).execute("CREATE TABLE x (y)").connection.close()
        case "changes beside it":
            path.with_name("beehives.db-wal").write_bytes(b"x")
        case "a wrong value":
            connection = sqlite3.connect(path)
            connection.execute("UPDATE beehives SET status = 'odd', backends = '{'")
            connection.commit()
            connection.close()
    assert registry_file.read(settings) is None
