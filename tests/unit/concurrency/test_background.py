"""Tasks beside a block of code."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from rbee.concurrency.background import call_when, cancel_when, open_background


async def test_the_tasks_end_with_the_block() -> None:
    ended: list[str] = []

    async def run() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("task")

    with trio.fail_after(1):
        async with open_background() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
    assert ended == ["task"]


async def test_what_the_block_raises_comes_unwrapped() -> None:
    async def fail_beside_a_task() -> None:
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        await fail_beside_a_task()


async def test_what_a_task_raises_comes_in_a_group_and_ends_the_block() -> None:
    async def fail() -> None:
        raise KeyError("x")

    async def wait_beside_it() -> None:
        async with open_background() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()

    with trio.fail_after(1), pytest.raises(BaseExceptionGroup) as raised:
        await wait_beside_it()
    assert raised.group_contains(KeyError)


async def test_a_block_is_cancelled_from_outside() -> None:
    with trio.move_on_after(0) as scope:
        async with open_background() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_an_event_cancels_the_block(autojump_clock: trio.testing.MockClock) -> None:
    event, began = trio.Event(), trio.current_time()
    async with open_background() as nursery:
        nursery.start_soon(_set_later, event)
        async with cancel_when(event) as scope:
            await trio.sleep(10)
    assert scope.cancelled_caught
    assert trio.current_time() - began == 1


async def test_a_block_that_ends_first_is_not_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    event = trio.Event()
    async with cancel_when(event) as scope:
        await trio.sleep(10)
    assert not scope.cancelled_caught


async def test_what_a_block_raises_that_an_event_may_cancel_comes_unwrapped() -> None:
    with pytest.raises(KeyError):
        async with cancel_when(trio.Event()):
            raise KeyError("x")


async def test_an_event_calls(autojump_clock: trio.testing.MockClock) -> None:
    event, calls = trio.Event(), list[int]()
    async with open_background() as nursery:
        nursery.start_soon(call_when, event, lambda: calls.append(1))
        nursery.start_soon(_set_later, event)
        await trio.sleep(2)
    assert calls == [1]


async def _set_later(event: trio.Event) -> None:
    await trio.sleep(1)
    event.set()
