"""What is stored is stored whole or not at all, and survives its process."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from rbee.adapters.daemon import process
from rbee.adapters.store.sqlite import Store
from rbee.errors import StorageError
from rbee.hive import tables
from rbee.hive.workers import rows
from rbee.hive.workers.record import WorkerRecord, WorkerSpec

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

TABLE = "CREATE TABLE t (x INTEGER PRIMARY KEY, y TEXT);"
COLUMN = "ALTER TABLE t ADD COLUMN z TEXT DEFAULT 'new';"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = await Store.open(tmp_path / "test.db", (TABLE,))
    yield found
    await found.close()


def add(number: int) -> Callable[[sqlite3.Connection], object]:
    return lambda connection: connection.execute("INSERT INTO t VALUES (?, 'y')", (number,))


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT x FROM t ORDER BY rowid")]


# Migrations.


async def test_only_new_migrations_are_run(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    store = await Store.open(path, (TABLE,))
    await store.transact(add(1))
    await store.close()
    for _ in range(2):
        store = await Store.open(path, (TABLE, COLUMN))
        assert await store.transact(lambda c: c.execute("SELECT x, z FROM t").fetchall()) == [(1, "new")]
        await store.close()


async def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    store = await Store.open(path, (TABLE, COLUMN))
    await store.transact(add_z)
    await store.close()
    with pytest.raises(StorageError, match="newer version") as caught:
        await Store.open(path, (TABLE,))
    assert caught.value.hint is not None
    store = await Store.open(path, (TABLE, COLUMN))
    assert await store.transact(numbers) == [5]
    await store.close()


def add_z(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO t VALUES (5, 'y', 'z')")


async def test_a_file_with_other_tables_of_the_same_version_is_left_alone_and_the_hint_says_what_to_do(
    tmp_path: Path,
) -> None:
    path = tmp_path / "test.db"
    store = await Store.open(path, ("CREATE TABLE other (x INTEGER);",))
    await store.close()
    store = await Store.open(path, (TABLE,))
    with pytest.raises(StorageError, match="no such table") as caught:
        await store.transact(numbers)
    assert caught.value.hint == "test.db is not as rbee made it: move it away, and a new one is made"
    await store.close()


async def test_a_migration_that_fails_leaves_what_was(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    store = await Store.open(path, (TABLE,))
    await store.transact(add(1))
    await store.close()
    with pytest.raises(StorageError):
        await Store.open(path, (TABLE, COLUMN + "nonsense;"))
    store = await Store.open(path, (TABLE, COLUMN))
    assert await store.transact(lambda c: c.execute("SELECT x, z FROM t").fetchall()) == [(1, "new")]
    await store.close()


def spoil_header(path: Path) -> None:
    path.write_bytes(b"not a database, and longer than a header needs to be" * 100)


def spoil_page(path: Path) -> None:
    """Overwrite the page of the table, of a database whose header is in order."""
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4096])


@pytest.mark.parametrize("spoil", [spoil_header, spoil_page, cut])
async def test_a_damaged_file_is_moved_aside_and_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / "test.db"
    (tmp_path / "test.db.damaged-wal").write_text("of another damage")
    store = await Store.open(path, (TABLE,))
    await store.transact(add(1))
    await store.close()
    spoil(path)
    content = path.read_bytes()
    store = await Store.open(path, (TABLE,))
    assert await store.transact(numbers) == []
    await store.transact(add(2))
    await store.close()
    (said,) = caplog.messages
    assert store.damage == said
    assert said.startswith("test.db is damaged (")
    assert "test.db.damaged" in said
    assert (tmp_path / "test.db.damaged").read_bytes() == content
    assert not (tmp_path / "test.db.damaged-wal").exists()
    store = await Store.open(path, (TABLE,))
    assert await store.transact(numbers) == [2]
    await store.close()


async def test_a_folder_in_its_place_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        await Store.open(tmp_path, (TABLE,))


async def test_the_file_is_private(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "state/test.db", (TABLE,))
    await store.transact(add(1))
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()} == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    await store.close()


# Transactions.


async def test_all_of_a_transaction_is_stored_or_nothing(store: Store) -> None:
    def half(connection: sqlite3.Connection) -> None:
        add(1)(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.transact(half)
    assert await store.transact(numbers) == []
    await store.transact(add(2))
    assert await store.transact(numbers) == [2]


async def test_what_sqlite_refuses_is_an_error_of_ours(store: Store) -> None:
    await store.transact(add(1))
    with pytest.raises(StorageError, match=r"test\.db: UNIQUE"):
        await store.transact(add(1))
    with pytest.raises(StorageError):
        await store.transact(lambda c: c.execute("nonsense"))
    assert await store.transact(numbers) == [1]


async def test_one_comes_after_the_other(store: Store) -> None:
    gate = threading.Event()
    order: list[str] = []

    def slow(connection: sqlite3.Connection) -> None:
        order.append("slow begins")
        gate.wait(20)
        add(1)(connection)
        order.append("slow ends")

    def quick(connection: sqlite3.Connection) -> None:
        order.append("quick")
        assert numbers(connection) == [1]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.transact, slow)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(store.transact, quick)
        await trio.testing.wait_all_tasks_blocked(0.02)
        gate.set()
    assert order == ["slow begins", "slow ends", "quick"]


async def test_one_that_waits_can_be_cancelled_and_one_that_runs_is_not(store: Store) -> None:
    gate = threading.Event()
    ran: list[str] = []

    def slow(connection: sqlite3.Connection) -> None:
        gate.wait(20)
        add(1)(connection)

    async with trio.open_nursery() as nursery:
        running, waiting = trio.CancelScope(), trio.CancelScope()

        async def run(scope: trio.CancelScope, work: Callable[[sqlite3.Connection], Any]) -> None:
            with scope:
                await store.transact(work)

        nursery.start_soon(run, running, slow)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(run, waiting, lambda _: ran.append("waiting"))
        await trio.testing.wait_all_tasks_blocked(0.02)
        waiting.cancel()
        running.cancel()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert waiting.cancelled_caught
        assert len(nursery.child_tasks) == 1, "the one that runs goes on to its end"
        gate.set()
    assert ran == []
    assert await store.transact(numbers) == [1]


async def test_a_cancelled_caller_leaves_a_store_that_works(store: Store) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.transact(add(1))
    assert await store.transact(numbers) == []
    await store.transact(add(2))
    assert await store.transact(numbers) == [2]


async def test_a_closed_store_is_an_error_of_ours(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "test.db", (TABLE,))
    await store.close()
    with pytest.raises(StorageError):
        await store.transact(numbers)


async def test_what_was_stored_survives_a_kill(tmp_path: Path) -> None:
    script = f"""
import sys, trio
from pathlib import Path
from rbee.adapters.store.sqlite import Store
async def main():
    store = await Store.open(Path(sys.argv[1]), ({TABLE!r},))
    number = 0
    while True:
        number += 1
        await store.transact(lambda c: c.execute("INSERT INTO t VALUES (?, 'y')", (number,)))
        print(number, flush=True)
trio.run(main)
"""
    with subprocess.Popen(  # noqa: ASYNC220 (no other task waits meanwhile)
        [sys.executable, "-c", script, str(tmp_path / "test.db")],
        stdout=subprocess.PIPE,
        cwd=__file__.partition("/tests/")[0],
    ) as child:
        assert child.stdout is not None
        last = [int(child.stdout.readline()) for _ in range(20)][-1]
        child.kill()
    store = await Store.open(tmp_path / "test.db", (TABLE,))
    found = await store.transact(numbers)
    await store.close()
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= last


# The hive's tables.


def worker(name: str, **changed: Any) -> WorkerRecord:
    spec = WorkerSpec("builtin:bee-stories", "/m", "cpu", 0, "ram", 4, None, 1)
    return WorkerRecord(name, spec, "serving", 0.0, **changed)


async def test_a_workers_row_is_replaced_and_deleted(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "models.db", tables.MIGRATIONS)
    me = process.Identity(17, 18, "boot")
    await store.transact(lambda c: rows.save(c, worker("a", url="http://x", idle_since=5.0), me))
    await store.transact(lambda c: rows.save(c, worker("a", url="http://y", slots_busy=1), me))
    assert await store.transact(
        lambda c: c.execute("SELECT url, state, slots_total, slots_available, idle_since FROM workers").fetchall()
    ) == [("http://y", "busy", 4, 3, None)]
    spec = WorkerSpec("builtin:bee-stories", "", "cpu", 0, "ram", 4, None, 1)
    known = rows.LastKnownWorker("a", "http://y", spec, me)
    assert await store.transact(rows.last_known) == [known]
    await store.transact(lambda c: rows.delete(c, "a"))
    await store.transact(lambda c: rows.delete(c, "a"))
    assert await store.transact(rows.last_known) == []
    await store.close()


async def test_only_workers_that_still_run_survive(tmp_path: Path) -> None:
    sleep = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    store = await Store.open(tmp_path / "models.db", tables.MIGRATIONS)
    left_over, bystander = subprocess.Popen(sleep), subprocess.Popen(sleep)  # noqa: ASYNC220
    with left_over, bystander:
        try:
            mine = process.identify(left_over.pid)
            other = process.identify(bystander.pid)
            assert mine is not None
            assert other is not None
            recycled = process.Identity(other.pid, other.started_at - 1, other.boot_id)
            await store.transact(lambda c: rows.save(c, worker("a", url="http://x"), mine))
            await store.transact(lambda c: rows.save(c, worker("b", url="http://x"), recycled))
            await store.transact(lambda c: rows.save(c, worker("c"), process.Identity(2**22 + 1, 1, "boot")))
            found = rows.compare(await store.transact(rows.last_known), process.is_running)
            assert [(row.id, row.identity) for row in found.surviving] == [("a", mine)]
            assert found.gone == ["b", "c"]
            assert process.is_running(mine)
            assert process.is_running(other)
        finally:
            left_over.kill()
            bystander.kill()
    await store.close()


async def test_a_folder_in_the_place_of_the_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "test.db").mkdir()
    with pytest.raises(StorageError, match=r"test\.db cannot be opened") as caught:
        await Store.open(tmp_path / "test.db", (TABLE,))
    assert caught.value.hint == "test.db is not as rbee made it: move it away, and a new one is made"
