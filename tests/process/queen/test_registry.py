"""The queen's table of nodes, in a real database."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from rbee.adapters.store.sqlite import Store
from rbee.errors import NodeExistsError, NodeNotFoundError
from rbee.queen.registry.identity import AnotherHiveError, HiveIdentities
from rbee.queen.registry.record import NodeRecord
from rbee.queen.registry.table import MIGRATIONS, Registry
from rbee.wire.registry import BeehiveRow
from tests.kit.paths import FILES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def row(**changes: Any) -> BeehiveRow:
    values: dict[str, Any] = {
        "node_name": "attic",
        "ssh_host": "fd00::7",
        "ssh_port": 2222,
        "ssh_user": "bee",
        "ssh_key_path": '/home/bee/it\'s "a" key',
        "git_repo_url": "https://example.com/rbee.git",
        "git_branch": "next",
        "install_path": "/home/bee/$(touch canary); `id`",
        "tunnel": "always",
        "host_key": "ssh-ed25519 AAAA",
        "last_connected_unix": 1.5,
        "last_error": "'; DROP TABLE beehives; --",
        "status": "unreachable",
        "backends": ["cpu", "cuda"],
        "devices": {"cpu": 1, "cuda": 2},
        "spawned_by_queen": True,
    }
    return msgspec.convert(values | changes, BeehiveRow)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = await Store.open(tmp_path / "beehives.db", MIGRATIONS)
    yield found
    await found.close()


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store)


async def test_a_row_comes_back_as_it_was_stored_also_after_a_restart(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "beehives.db", MIGRATIONS)
    bare = row(node_name="bare", ssh_key_path=None, git_repo_url=None, last_connected_unix=None, last_error=None)
    for one in (row(), bare):
        await Registry(store).add(one)
    await store.close()
    store = await Store.open(tmp_path / "beehives.db", MIGRATIONS)
    assert await Registry(store).rows() == [row(), bare]
    await store.close()


async def test_rows_come_by_name(registry: Registry) -> None:
    for name in ("b", "c", "a"):
        await registry.add(row(node_name=name))
    assert [found.node_name for found in await registry.rows()] == ["a", "b", "c"]


async def test_a_name_is_taken_once(registry: Registry) -> None:
    await registry.check_free("attic")
    await registry.add(row())
    for refused in (registry.check_free("attic"), registry.add(row(ssh_host="other"))):
        with pytest.raises(NodeExistsError, match="attic is registered already") as caught:
            await refused
        assert "update-node --name attic" in (caught.value.hint or "")
    assert await registry.rows() == [row()]


async def test_of_many_that_add_one_name_at_once_one_does(registry: Registry) -> None:
    taken: list[str] = []

    async def add(host: str) -> None:
        try:
            await registry.add(row(ssh_host=host))
        except NodeExistsError:
            taken.append(host)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(add, f"host{number}")
    (stored,) = await registry.rows()
    assert sorted([*taken, stored.ssh_host]) == [f"host{number}" for number in range(8)]


async def test_a_change_of_every_field_is_stored(registry: Registry) -> None:
    await registry.add(row())
    await registry.add(row(node_name="other"))
    changed = row(ssh_host="new", ssh_port=22, backends=[], devices={}, spawned_by_queen=False, last_error=None)
    await registry.replace(changed)
    assert await registry.rows() == [changed, row(node_name="other")]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("devices", "{"),
        ("devices", "[" * 100_000),
        ("backends", "1"),
        ("tunnel", "?"),
        ("ssh_port", "x"),
        ("status", 7),
        ("hive_url", "http://127.0.0.1:99999"),
        ("hive_url", "http://[::1"),
        ("hive_url", "http://127.0.0.1:abc"),
        ("hive_url", "127.0.0.1"),
    ],
)
async def test_an_entry_that_is_damaged_is_shown_and_can_be_removed(
    registry: Registry, store: Store, column: str, value: object
) -> None:
    await registry.add(row())
    await registry.add(row(node_name="other"))
    update = f"UPDATE beehives SET {column} = ? WHERE node_name = 'attic'"
    await store.transact(lambda connection: connection.execute(update, (value,)) and None)
    damaged, other = await registry.rows()
    assert (damaged.node_name, damaged.status, damaged.spawned_by_queen) == ("attic", "unreachable", False)
    assert "is damaged" in (damaged.last_error or "")
    assert other == row(node_name="other")
    await registry.remove("attic")
    assert await registry.rows() == [other]


async def test_a_record_changes_the_row_in_memory_and_in_the_table(registry: Registry) -> None:
    added = row(status="unknown", spawned_by_queen=False)
    await registry.add(added)
    await registry.add(row(node_name="other"))
    identities = HiveIdentities("token")
    record = NodeRecord(added, registry, identities)
    other = NodeRecord(row(node_name="other"), registry, identities)

    async def stored() -> BeehiveRow:
        found, other = await registry.rows()
        assert found == record.row
        assert other == row(node_name="other")
        return found

    await record.failed("timeout")
    found = await stored()
    assert (found.status, found.last_error, found.last_connected_unix) == ("unreachable", "timeout", 1.5)
    before = time.time()
    await record.connected()
    await record.change(spawned_by_queen=True)
    found = await stored()
    assert (found.status, found.last_error, found.spawned_by_queen) == ("reachable", None, True)
    assert before <= (found.last_connected_unix or 0) <= time.time()
    await record.change(spawned_by_queen=False)
    assert not (await stored()).spawned_by_queen
    await record.change(hive_id="one")
    assert ((await stored()).hive_id, record.claim) == ("one", ("one", False))
    await record.located("http://127.0.0.1:9300", "two")
    assert ((await stored()).hive_id, record.claim) == ("two", ("two", True))
    await record.located("http://127.0.0.1:9300", None)
    found = await stored()
    assert (found.hive_url, found.hive_id, record.claim) == ("http://127.0.0.1:9300", None, (None, False))
    assert other.claim == (None, False)
    await record.change(is_tunnelled=True)
    assert (await stored()).is_tunnelled
    assert msgspec.structs.replace(await stored(), is_tunnelled=False, hive_url=None, status="unknown") == (
        msgspec.structs.replace(added, last_error=None, last_connected_unix=found.last_connected_unix)
    )


async def test_of_two_nodes_with_one_hive_the_other_stops_when_one_has_named_it(registry: Registry) -> None:
    """As a queen finds them after its start, where both rows have it."""
    await registry.add(row(hive_id="one"))
    await registry.add(row(node_name="other", hive_id="one"))
    identities = HiveIdentities("token")
    record = NodeRecord(row(hive_id="one"), registry, identities)
    NodeRecord(row(node_name="other", hive_id="one"), registry, identities)

    async def use() -> None:
        async with identities.fail_if_lost("other", "192.0.2.7:9300"):
            await record.located("http://127.0.0.1:9300", "one")
            await trio.sleep_forever()

    with pytest.raises(AnotherHiveError, match="is the hive of node attic, not that of node other"), trio.fail_after(5):
        await use()


async def test_an_unknown_node_is_reported_with_the_command_that_adds_it(registry: Registry) -> None:
    await registry.add(row())
    await registry.remove("attic")
    record = NodeRecord(row(), registry, HiveIdentities("token"))
    for refused in (registry.remove("attic"), registry.replace(row()), record.connected()):
        with pytest.raises(NodeNotFoundError, match="attic is not in the registry") as caught:
            await refused
        assert "rbee setup add-node --name attic" in (caught.value.hint or "")
    assert await registry.rows() == []


async def test_the_registry_of_an_earlier_version_is_read_and_changed(tmp_path: Path) -> None:
    """The file was written by commit 4824768: Registry's add, connected, owned, located, failed and identified."""
    shutil.copyfile(FILES / "beehives-4824768.db", tmp_path / "beehives.db")
    store = await Store.open(tmp_path / "beehives.db", MIGRATIONS)
    registry = Registry(store)
    attic, cellar, porch = await registry.rows()
    assert attic == row(
        ssh_key_path="/home/me/.ssh/id_bee",
        install_path="/home/bee/.local/share/rbee/node",
        last_connected_unix=attic.last_connected_unix,
        last_error=None,
        status="reachable",
        hive_url="http://127.0.0.1:9300",
        is_tunnelled=True,
        hive_id="0f3c2a",
    )
    assert (cellar.status, cellar.last_error) == ("unreachable", "SSH to bee@192.0.2.7 failed: timeout")
    record = NodeRecord(porch, registry, HiveIdentities("token"))
    assert (porch.tunnel, porch.hive_id, record.claim) == ("never", "77aa", ("77aa", False))
    await record.located("http://127.0.0.1:9200", "78bb")
    await registry.replace(msgspec.structs.replace(cellar, devices={"cpu": 4}))
    assert await registry.rows() == [attic, msgspec.structs.replace(cellar, devices={"cpu": 4}), record.row]
    await store.close()


async def test_an_earlier_version_can_read_the_registry(tmp_path: Path) -> None:
    """Version and columns of a new file are those of commit 4824768; what it has beside them, that one passes over."""
    await (await Store.open(tmp_path / "beehives.db", MIGRATIONS)).close()

    def layout(file: Path) -> tuple[Any, ...]:
        with closing(sqlite3.connect(file)) as connection:
            return (
                connection.execute("PRAGMA user_version").fetchone(),
                connection.execute("SELECT type, name FROM sqlite_master WHERE tbl_name = 'beehives'").fetchall(),
                connection.execute("PRAGMA table_info(beehives)").fetchall(),
            )

    shutil.copyfile(FILES / "beehives-4824768.db", tmp_path / "earlier.db")
    *now, columns = layout(tmp_path / "beehives.db")
    *earlier, known = layout(tmp_path / "earlier.db")
    assert now == earlier
    assert columns[: len(known)] == known
    for _, name, _, is_not_null, default, _ in columns[len(known) :]:
        assert not is_not_null or default is not None, f"an earlier version writes rows without {name}"
    # As that one does: it names its own columns, to write and to read.
    names = ", ".join(column[1] for column in known)
    with closing(sqlite3.connect(tmp_path / "earlier.db")) as connection:
        values = connection.execute(f"SELECT {names} FROM beehives").fetchall()
    assert values
    with closing(sqlite3.connect(tmp_path / "beehives.db")) as connection, connection:
        connection.executemany(f"INSERT INTO beehives ({names}) VALUES ({', '.join('?' * len(known))})", values)
        assert connection.execute(f"SELECT {names} FROM beehives").fetchall() == values
    store = await Store.open(tmp_path / "beehives.db", MIGRATIONS)
    assert [found.ssh_settings for found in await Registry(store).rows()] == [None] * len(values)
    await store.close()
