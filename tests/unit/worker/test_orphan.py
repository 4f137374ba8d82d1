"""A worker ends by itself when nobody needs it, and never while somebody does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

from rbee.worker.status.orphan import end_when_orphaned
from rbee.worker.status.status import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PATIENCE = 120.0


async def ended_after(act: Callable[[Status], Awaitable[None]]) -> float:
    """Return when the worker ended while `act` did things to its status."""
    status, ended = Status(2), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_when_orphaned, status, PATIENCE, ended.set)
        nursery.start_soon(act, status)
        await ended.wait()
        nursery.cancel_scope.cancel()
    return trio.current_time()


async def test_nobody_ever_came(autojump_clock: trio.testing.MockClock) -> None:
    async def nothing(_: Status) -> None:
        pass

    assert await ended_after(nothing) == PATIENCE


async def test_a_follower_keeps_it(autojump_clock: trio.testing.MockClock) -> None:
    async def follow(status: Status) -> None:
        await trio.sleep(100)
        with status.followed():
            await trio.sleep(1000)

    assert await ended_after(follow) == 1100 + PATIENCE


async def test_a_hive_that_comes_back_in_time_saves_it(autojump_clock: trio.testing.MockClock) -> None:
    async def crash(status: Status) -> None:
        for _ in range(5):
            with status.followed():
                await trio.sleep(10)
            await trio.sleep(PATIENCE - 1)

    assert await ended_after(crash) == 5 * (10 + PATIENCE - 1) + 1


async def test_a_request_keeps_it_without_a_hive(autojump_clock: trio.testing.MockClock) -> None:
    async def work(status: Status) -> None:
        status.set_busy(1, 1)
        await trio.sleep(500)
        status.set_busy(0, 0)

    assert await ended_after(work) == 500 + PATIENCE
