"""Locks by key: one holder at a time, and nothing is left of those that nobody has."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rbee.concurrency.keyed_locks import KeyedLocks


async def test_one_at_a_time_for_each_key(autojump_clock: trio.testing.MockClock) -> None:
    locks: KeyedLocks[str] = KeyedLocks()
    order: list[str] = []

    async def work(key: str, name: str) -> None:
        async with locks.hold(key):
            order.append(f"{name} begins")
            await trio.sleep(1)
            order.append(f"{name} ends")

    async with trio.open_nursery() as nursery:
        for name in ("1", "2", "3"):
            nursery.start_soon(work, "a", name)
            await wait_all_tasks_blocked()
        nursery.start_soon(work, "b", "4")
        await wait_all_tasks_blocked()
        assert (locks.is_held("a"), locks.is_held("b"), locks.is_held("c"), len(locks)) == (True, True, False, 2)
    of_a = [words for words in order if not words.startswith("4")]
    assert of_a == [f"{name} {what}" for name in "123" for what in ("begins", "ends")]
    assert order.index("4 begins") < order.index("2 begins")
    assert len(locks) == 0


async def test_one_that_waits_and_goes_leaves_the_lock_to_its_holder() -> None:
    locks: KeyedLocks[str] = KeyedLocks()
    async with locks.hold("a"):
        with trio.move_on_after(0):
            async with locks.hold("a"):
                pytest.fail("two hold it")
        assert locks.is_held("a")
        with trio.move_on_after(0):
            async with locks.hold("b"):
                pytest.fail("it was cancelled before")
    assert len(locks) == 0


async def test_a_failure_within_leaves_nothing() -> None:
    locks: KeyedLocks[int] = KeyedLocks()
    for number in range(1000):
        with pytest.raises(ZeroDivisionError):
            async with locks.hold(number):
                _ = 1 / 0
    assert len(locks) == 0
