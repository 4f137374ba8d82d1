"""Requests can be cancelled by name, before and after they are placed."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from rbee.errors import CancelledError, DrainingError, InvalidRequestError
from rbee.queen.requests import tracker as module
from rbee.queen.requests.tracker import Tasks

WORKER = ("http://127.0.0.1:8001", "key")


def test_an_unknown_request_has_nothing_to_cancel() -> None:
    assert Tasks().cancel("x") is None


async def test_a_request_that_is_being_placed_is_cancelled() -> None:
    tasks = Tasks()
    ended = trio.Event()

    async def run() -> None:
        with pytest.raises(CancelledError) as caught, tasks.track("x"):
            await trio.sleep_forever()
        assert caught.value.exit_code == 130
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        assert tasks.cancel("x") is None
        await ended.wait()


async def test_at_the_end_every_request_that_still_runs_is_told_so() -> None:
    tasks = Tasks()
    ended = []

    async def run(name: str) -> None:
        with pytest.raises(DrainingError), tasks.track(name):
            await trio.sleep_forever()
        ended.append(name)

    with tasks.track("over"):
        pass
    async with trio.open_nursery() as nursery:
        for name in ("x", "y"):
            nursery.start_soon(run, name)
        await trio.testing.wait_all_tasks_blocked()
        tasks.end()
    assert sorted(ended) == ["x", "y"]


async def test_others_are_left_alone() -> None:
    tasks = Tasks()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with tasks.track("y"):
                await trio.sleep_forever()

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        tasks.cancel("x")
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        nursery.cancel_scope.cancel()


async def test_a_placed_request_gives_its_worker_even_after_its_end() -> None:
    tasks = Tasks()
    with tasks.track("x") as task:
        task.worker = WORKER
    assert tasks.cancel("x") == WORKER
    assert tasks.cancel("x") == WORKER


async def test_two_running_requests_cannot_have_one_id() -> None:
    tasks = Tasks()
    with tasks.track("x") as first:
        first.worker = WORKER
        with pytest.raises(InvalidRequestError) as caught, tasks.track("x"):
            pytest.fail("it was taken")
        assert caught.value.details["field"] == "request_id"
        assert tasks.cancel("x") == WORKER, "the first one is still known"


async def test_an_id_may_be_used_again_after_the_end() -> None:
    tasks = Tasks()
    with tasks.track("x") as task:
        task.worker = WORKER
    with tasks.track("x"):
        assert tasks.cancel("x") is None


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    tasks = Tasks()
    with pytest.raises(KeyError), tasks.track("x"):
        raise KeyError
    with tasks.track("x"):
        pass


async def test_a_cancellation_from_outside_stays_one() -> None:
    tasks = Tasks()
    with trio.CancelScope() as scope:
        scope.cancel()
        with tasks.track("x"):
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    with tasks.track("x"):
        pass


async def test_ended_requests_are_forgotten_in_order_and_running_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    tasks = Tasks()
    with tasks.track("running") as running:
        running.worker = WORKER
        for number in range(6):
            with tasks.track(str(number)) as task:
                task.worker = (str(number), "")
        known = [name for name in ("running", *map(str, range(6))) if tasks.cancel(name) is not None]
    assert known == ["running", "3", "4", "5"]
