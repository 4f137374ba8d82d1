"""What becomes of requests, on the disk: what the next queen knows of them, and that a bad disk costs only that."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import trio

from rbee.adapters.store.sqlite import Store
from rbee.errors import StorageError
from rbee.queen.access.identity import CallerIdentity
from rbee.queen.requests.history import KEPT, TABLE, RequestHistory
from rbee.queen.requests.record import RequestRecord

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def record(request_id: str) -> RequestRecord:
    who = CallerIdentity("key", "alice", "192.0.2.9")
    one = RequestRecord(who.address, "POST /v2/tasks", None, identity=who, request_id=request_id, is_for_text=True)
    one.step("Something happened")
    one.close()
    return one


async def lived(file: Path, *names: str) -> list[str]:
    """Have a queen live in which these requests end; returns those that it knows in the end."""
    history = RequestHistory(partial(Store.open, file, (TABLE,)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.run)
        for name in names:
            history.end(record(name))
        found = [request.id for request in await history.last(10_000)]
        history.close()
    return found


async def test_the_next_queen_knows_them(tmp_path: Path) -> None:
    file = tmp_path / "requests.db"
    assert await lived(file, "a", "b") == ["a", "b"]
    assert await lived(file) == ["a", "b"]
    assert await lived(file, "c") == ["a", "b", "c"], "also those that ended before the file was read"


async def test_the_file_stays_small(tmp_path: Path) -> None:
    file = tmp_path / "requests.db"
    names = [f"{number:08}" for number in range(KEPT + 100)]
    await lived(file, *names[:600])
    assert await lived(file, *names[600:]) == names[100:]
    assert await lived(file, "last") == [*names[101:], "last"]
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM requests").fetchone() == (KEPT,)


async def test_a_damaged_story_is_left_out_and_a_damaged_file_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "requests.db"
    await lived(file, "a", "b", "c")
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE requests SET story = '{' WHERE number = 2")
    assert await lived(file, "d") == ["a", "c", "d"]
    for path in tmp_path.iterdir():  # noqa: ASYNC240 (a moment)
        path.write_bytes(b"x" * 5000)
    assert await lived(file, "e") == ["e"]
    assert await lived(file) == ["e"]


async def test_without_a_file_it_works_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "requests.db"
    file.mkdir()
    assert await lived(file, "a", "b") == ["a", "b"]
    assert "forgotten when the queen ends" in caplog.text


async def test_a_disk_that_is_full_for_a_while_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = await Store.open(tmp_path / "requests.db", (TABLE,))
    transact, is_full = store.transact, True

    async def maybe(work: object) -> object:
        if is_full:
            raise StorageError("the disk is full")
        return await transact(work)

    async def opened() -> Store:
        return store

    monkeypatch.setattr("rbee.queen.requests.history.WRITE_SECONDS", 0.01)
    history = RequestHistory(opened)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(history.run)
        await history.last(1)
        monkeypatch.setattr(store, "transact", maybe)
        history.end(record("a"))
        await trio.sleep(0.1)
        history.end(record("b"))
        await trio.sleep(0.1)
        is_full = False
        history.close()
    assert caplog.text.count("the disk is full") == 1
    await store.close()
    assert await lived(tmp_path / "requests.db") == ["a", "b"]
