"""What changes wakes everyone who follows it."""

from __future__ import annotations

import trio
import trio.testing

from rbee.concurrency.changed import Changed


async def test_everyone_who_waits_is_woken(nursery: trio.Nursery) -> None:
    changed, woken = Changed(), list[int]()

    async def follow(number: int) -> None:
        await changed.next.wait()
        woken.append(number)

    for number in range(3):
        nursery.start_soon(follow, number)
    await trio.testing.wait_all_tasks_blocked()
    assert woken == []
    changed.notify()
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(woken) == [0, 1, 2]


async def test_a_change_between_the_look_and_the_wait_is_not_missed() -> None:
    changed = Changed()
    event = changed.next
    changed.notify()
    with trio.fail_after(1):
        await event.wait()
    assert not changed.next.is_set()
