"""One result for everyone who waits for it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from rbee.concurrency.outcome import Outcome
from rbee.errors import InternalError, RbeeError


async def test_all_get_the_first_result(nursery: trio.Nursery) -> None:
    outcome, results = Outcome[int](), list[int]()

    async def wait() -> None:
        results.append(await outcome.wait())

    nursery.start_soon(wait)
    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert not outcome.is_settled
    outcome.settle(1)
    outcome.settle(2)
    await trio.testing.wait_all_tasks_blocked()
    assert outcome.is_settled
    assert results == [1, 1]
    assert await outcome.wait() == 1


async def test_an_error_is_raised_to_all() -> None:
    outcome, error = Outcome[int](), InternalError("x")
    outcome.settle(error)
    for _ in range(2):
        with pytest.raises(RbeeError) as raised:
            await outcome.wait()
        assert raised.value is error


async def test_no_result_can_be_the_result() -> None:
    outcome = Outcome[None]()
    outcome.settle(None)
    await outcome.wait()


async def test_a_cancelled_wait_leaves_it_as_it_is() -> None:
    outcome = Outcome[int]()
    with trio.move_on_after(0):
        await outcome.wait()
    assert not outcome.is_settled
    outcome.settle(1)
    assert await outcome.wait() == 1
