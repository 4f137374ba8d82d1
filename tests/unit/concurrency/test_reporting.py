"""What a piece of work reports is passed on while it runs."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from rbee.concurrency.reporting import with_reports
from rbee.errors import WorkerFailedError

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_the_result_comes_after_every_report_in_order() -> None:
    taken: list[int] = []

    async def emit(number: int) -> None:
        await trio.lowlevel.checkpoint()
        taken.append(number)

    async def work(report: Callable[[int], None]) -> str:
        for number in range(100):
            report(number)
        return "done"

    assert await with_reports(emit, work) == "done"
    assert taken == list(range(100))


async def test_a_report_is_out_while_the_work_goes_on() -> None:
    out = trio.Event()

    async def emit(_: str) -> None:
        out.set()

    async def work(report: Callable[[str], None]) -> None:
        report("begun")
        await out.wait()

    with trio.fail_after(1):
        await with_reports(emit, work)


async def test_an_error_comes_out_as_it_is_and_after_the_reports() -> None:
    taken: list[str] = []

    async def emit(message: str) -> None:
        taken.append(message)

    async def work(report: Callable[[str], None]) -> None:
        report("begun")
        raise WorkerFailedError("no")

    with pytest.raises(WorkerFailedError):
        await with_reports(emit, work)
    assert taken == ["begun"]


async def test_the_work_goes_on_where_nobody_takes_its_reports_and_may_report_after_its_end() -> None:
    late: list[Callable[[str], None]] = []

    async def emit(_: str) -> None:
        raise trio.BrokenResourceError

    async def work(report: Callable[[str], None]) -> str:
        late.append(report)
        report("one")
        await trio.testing.wait_all_tasks_blocked()
        report("two")
        return "done"

    assert await with_reports(emit, work) == "done"
    late[0]("three")


async def test_reports_that_nobody_takes_are_not_kept() -> None:
    class Report:
        pass

    async def emit(_: Report) -> None:
        raise trio.BrokenResourceError

    async def work(report: Callable[[Report], None]) -> Report | None:
        report(Report())
        await trio.testing.wait_all_tasks_blocked()
        late = Report()
        kept = weakref.ref(late)
        report(late)
        del late
        return kept()

    assert await with_reports(emit, work) is None
