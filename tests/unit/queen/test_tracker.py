"""Requests can be cancelled by name, before and after they are placed."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from rbee.errors import CancelledError, DrainingError, InvalidRequestError
from rbee.queen.requests import tracker as module
from rbee.queen.requests.tracker import AssignedWorker, RequestTracker

WORKER = AssignedWorker("http://127.0.0.1:8001", "key", "local", "w")


def test_an_unknown_request_has_nothing_to_cancel() -> None:
    assert RequestTracker().cancel("x") is None


async def test_a_request_that_is_being_placed_is_cancelled() -> None:
    tracker = RequestTracker()
    ended = trio.Event()

    async def run() -> None:
        with pytest.raises(CancelledError) as caught, tracker.track("x", "local"):
            await trio.sleep_forever()
        assert caught.value.exit_code == 130
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        assert tracker.cancel("x") is None
        await ended.wait()


async def test_at_the_end_every_request_that_still_runs_is_told_so() -> None:
    tracker = RequestTracker()
    ended = []

    async def run(name: str) -> None:
        with pytest.raises(DrainingError), tracker.track(name, "local"):
            await trio.sleep_forever()
        ended.append(name)

    with tracker.track("over", "local"):
        pass
    async with trio.open_nursery() as nursery:
        for name in ("x", "y"):
            nursery.start_soon(run, name)
        await trio.testing.wait_all_tasks_blocked()
        tracker.end()
    assert sorted(ended) == ["x", "y"]


async def test_others_are_left_alone() -> None:
    tracker = RequestTracker()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            with tracker.track("y", "local"):
                await trio.sleep_forever()

        nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        tracker.cancel("x")
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        nursery.cancel_scope.cancel()


async def test_a_placed_request_gives_its_worker_even_after_its_end() -> None:
    tracker = RequestTracker()
    with tracker.track("x", "local") as tracked:
        tracked.worker = WORKER
    assert tracker.cancel("x") == WORKER
    assert tracker.cancel("x") == WORKER


async def test_two_running_requests_cannot_have_one_id() -> None:
    tracker = RequestTracker()
    with tracker.track("x", "local") as first:
        first.worker = WORKER
        with pytest.raises(InvalidRequestError) as caught, tracker.track("x", "local"):
            pytest.fail("it was taken")
        assert caught.value.details["field"] == "request_id"
        assert tracker.cancel("x") == WORKER, "the first one is still known"


async def test_an_id_may_be_used_again_after_the_end() -> None:
    tracker = RequestTracker()
    with tracker.track("x", "local") as tracked:
        tracked.worker = WORKER
    with tracker.track("x", "local"):
        assert tracker.cancel("x") is None


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    tracker = RequestTracker()
    with pytest.raises(KeyError), tracker.track("x", "local"):
        raise KeyError
    with tracker.track("x", "local"):
        pass


async def test_a_cancellation_from_outside_stays_one() -> None:
    tracker = RequestTracker()
    with trio.CancelScope() as scope:
        scope.cancel()
        with tracker.track("x", "local"):
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    with tracker.track("x", "local"):
        pass


async def test_ended_requests_are_forgotten_in_order_and_running_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_ENDED_REQUESTS", 3)
    tracker = RequestTracker()
    with tracker.track("running", "local") as running:
        running.worker = WORKER
        for number in range(6):
            with tracker.track(str(number), "local") as tracked:
                tracked.worker = WORKER._replace(worker_id=str(number))
        known = [name for name in ("running", *map(str, range(6))) if tracker.cancel(name) is not None]
    assert known == ["running", "3", "4", "5"]


async def test_a_request_that_comes_again_after_a_worker_had_it_is_known_as_such() -> None:
    tracker = RequestTracker()
    for placed, expected in ((False, False), (True, False), (True, True)):
        with tracker.track("x", "local") as tracked:
            assert tracked.was_placed is expected
            tracked.worker = WORKER if placed else None
