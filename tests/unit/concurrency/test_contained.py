"""What nobody foresaw ends the one thing that it happens in."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

import pytest
import trio

from rbee.concurrency.contained import FIRST_PAUSE, LAST_PAUSE, STEADY_SECONDS, as_error, contained, keep_running
from rbee.errors import CancelledError, InternalError, RbeeError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock


def group(exceptions: Sequence[Exception]) -> ExceptionGroup[Exception]:
    return ExceptionGroup("", exceptions)


@pytest.mark.parametrize(
    "failure",
    [
        ZeroDivisionError("x"),
        OSError(24, "too many open files"),
        MemoryError(),
        RecursionError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
        trio.BrokenResourceError(),
        StopAsyncIteration(),
        group([KeyError("x")]),
        group([StorageError("x"), group([KeyError("x")])]),
    ],
)
def test_what_is_no_error_of_ours_becomes_one_and_is_logged(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[RbeeError] = []
    with contained("the thing", taken.append):
        raise failure
    (error,) = taken
    assert type(error) is InternalError
    assert error.message == "the thing failed unexpectedly; the daemon's log says more"
    assert [record.exc_info is not None for record in caplog.records] == [True]


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: group([group([error])])])
def test_an_error_of_ours_stays_what_it_is(wrap: object, caplog: pytest.LogCaptureFixture) -> None:
    assert callable(wrap)
    error = StorageError("the disk is full")
    taken: list[RbeeError] = []
    with contained("the thing", taken.append):
        raise wrap(error)
    assert taken == [error]
    assert as_error(wrap(error), "the thing") is error
    assert not caplog.records


def test_where_nobody_waits_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        with contained("the thing"):
            raise StorageError("the disk is full")
        with contained("the thing"):
            raise KeyError("x")
    assert [record.getMessage() for record in caplog.records] == [
        "the thing failed: the disk is full",
        "the thing failed unexpectedly",
    ]


async def test_a_cancellation_passes_and_what_came_with_it_does_not(caplog: pytest.LogCaptureFixture) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("x")

    taken: list[RbeeError] = []
    with trio.move_on_after(0.01) as scope, contained("the thing", taken.append):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert [type(error) for error in taken] == [InternalError]


async def test_a_cancellation_alone_is_no_error() -> None:
    with trio.move_on_after(0.01) as scope, contained("the thing", lambda _: pytest.fail("none")):
        await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_service_runs_again_after_pauses_that_grow(autojump_clock: MockClock) -> None:
    began: list[float] = []

    async def serve() -> None:
        began.append(trio.current_time())
        if len(began) < 12:
            raise KeyError("x")

    await keep_running("the service", serve)
    pauses = [after - before for before, after in itertools.pairwise(began)]
    assert pauses[:3] == pytest.approx([FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE])
    assert pauses[-1] == pytest.approx(LAST_PAUSE)
    assert len(began) == 12


async def test_a_service_that_ran_well_begins_with_the_first_pause(autojump_clock: MockClock) -> None:
    began: list[float] = []

    async def serve() -> None:
        began.append(trio.current_time())
        await trio.sleep(2 * STEADY_SECONDS)
        if len(began) < 4:
            raise CancelledError("x")

    await keep_running("the service", serve)
    assert [b - a for a, b in itertools.pairwise(began)] == pytest.approx([2 * STEADY_SECONDS + FIRST_PAUSE] * 3)
