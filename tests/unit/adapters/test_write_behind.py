"""Rows are written in the background: the latest of each, and in the end all of them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from rbee.adapters.store import write_behind
from rbee.adapters.store.write_behind import WriteBehind
from rbee.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import pytest
    from trio.testing import MockClock


class Disk:
    """Takes rows, or is full; `tried` counts what it was asked to take."""

    def __init__(self) -> None:
        self.rows: dict[str, int | None] = {}
        self.is_full = False
        self.refuses: set[str] = set()
        self.tried = 0
        self.gate: trio.Event | None = None

    async def transact(self, work: Callable[[Any], Any]) -> None:
        self.tried += 1
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        key, value = work(None)
        if self.is_full or key in self.refuses:
            raise StorageError("test.db: the disk is full", hint="free some")
        self.rows[key] = value


def row(key: str, value: int) -> Callable[[Any], tuple[str, int]]:
    return lambda _: (key, value)


@asynccontextmanager
async def written_to(disk: Disk) -> AsyncIterator[WriteBehind]:
    async with written_by(disk.transact) as found:
        yield found


@asynccontextmanager
async def written_by(transact: Callable[[Any], Awaitable[Any]]) -> AsyncIterator[WriteBehind]:
    found = WriteBehind(transact)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        yield found
        found.close()


async def test_each_row_is_written(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with written_to(disk) as found:
        found.put("a", row("a", 1))
        await trio.testing.wait_all_tasks_blocked()
        assert disk.rows == {"a": 1}
        found.put("b", row("b", 1))
        found.put("a", row("a", 2))
        await trio.testing.wait_all_tasks_blocked()
        assert disk.rows == {"a": 2, "b": 1}
        found.put("c", row("c", 1))
    assert disk.rows == {"a": 2, "b": 1, "c": 1}


async def test_only_the_latest_of_a_row_is_written(autojump_clock: MockClock) -> None:
    disk = Disk()
    async with written_to(disk) as found:
        for number in range(1000):
            found.put("a", row("a", number))
    assert disk.rows == {"a": 999}
    assert disk.tried == 1


async def test_what_changes_while_it_is_written_is_written_again(autojump_clock: MockClock) -> None:
    disk = Disk()
    disk.gate = trio.Event()
    async with written_to(disk) as found:
        found.put("a", row("a", 1))
        await trio.testing.wait_all_tasks_blocked()
        found.put("a", row("a", 2))
        disk.gate.set()
    assert disk.rows == {"a": 2}
    assert disk.tried == 2


async def test_a_full_disk_is_tried_again_and_told_twice(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    disk = Disk()
    disk.is_full = True
    async with written_to(disk) as found:
        for minute in range(60):
            found.put("a", row("a", minute))
            found.put(str(minute % 3), row(str(minute % 3), minute))
            await trio.sleep(60)
        assert disk.rows == {}
        assert disk.tried <= 4 * (3600 / write_behind.RETRY_SECONDS + 1)
        assert caplog.messages == ["test.db: the disk is full; it is tried again every 5 s (free some)"]
        disk.is_full = False
        await trio.sleep(write_behind.RETRY_SECONDS + 0.1)
        assert disk.rows == {"a": 59, "0": 57, "1": 58, "2": 59}
        assert caplog.messages[1:] == ["the registry is written again"]
        tried = disk.tried
        await trio.sleep(3600)
        assert disk.tried == tried


async def test_a_row_that_is_refused_holds_up_no_other(autojump_clock: MockClock) -> None:
    disk = Disk()
    disk.refuses = {"a"}
    async with written_to(disk) as found:
        found.put("a", row("a", 1))
        found.put("b", row("b", 1))
        await trio.sleep(1)
        assert disk.rows == {"b": 1}


async def test_a_full_disk_does_not_hold_up_the_end(autojump_clock: MockClock) -> None:
    disk = Disk()
    disk.is_full = True
    began = trio.current_time()
    async with written_to(disk) as found:
        found.put("a", row("a", 1))
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() == began
    assert disk.tried == 2


async def test_what_is_no_error_of_ours_is_logged_once_and_tried_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[float] = []

    async def fail(_: Any) -> None:
        tried.append(trio.current_time())
        if len(tried) < 4:
            raise ZeroDivisionError

    async with written_by(fail) as found:
        found.put("a", row("a", 1))
        await trio.sleep(60)
    assert len(tried) == 4
    assert [record.message for record in caplog.records if record.exc_info] == ["writing a row failed unexpectedly"]
