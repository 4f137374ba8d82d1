"""Shared downloads: their callers, their watchers, their ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from rbee.errors import CancelledError, DownloadFailedError, DrainingError, InternalError, ModelNotFoundError
from rbee.hive.models.downloads import REMEMBERED_SECONDS, Downloads
from rbee.wire import model_ref
from rbee.wire.models import ModelRow
from rbee.wire.progress import Complete, Downloading, DownloadState, Failed, Retrying

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio.testing import MockClock

    from rbee.wire.model_copy import Source
    from rbee.wire.model_ref import ModelRef
    from rbee.wire.progress import ProgressEvent

M = model_ref.parse("hf:bees/model")
STEP = Downloading(bytes_downloaded=4, bytes_total=10, speed_mbps=1)
ROW = ModelRow(
    id="m",
    model_ref=str(M),
    provider="hf",
    reference="bees/model",
    variant="Q4_K_M",
    local_path="/m.gguf",
    size_bytes=10,
    sha256=None,
    downloaded_at_unix=1,
    last_used_unix=None,
)


class Hub:
    """Stands for the hub: each download reports one step, then waits for `let_go`, or fails."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0
        self.let_go = trio.Event()
        self.failure: Exception | None = None

    async def fetch(
        self, ref: ModelRef, report: Callable[[ProgressEvent], None], sources: Sequence[Source]
    ) -> ModelRow:
        self.begun += 1
        report(STEP)
        try:
            await self.let_go.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        return ROW


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
async def downloads(hub: Hub, nursery: trio.Nursery) -> Downloads:
    found = Downloads(hub.fetch)
    await nursery.start(found.run)
    return found


async def test_callers_share_a_download_and_late_ones_get_its_progress(downloads: Downloads, hub: Hub) -> None:
    early: list[ProgressEvent] = []
    late: list[ProgressEvent] = []
    got: list[ModelRow] = []

    async def ask(told: list[ProgressEvent]) -> None:
        got.append(await downloads.get(M, told.append))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, early)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, late)
        await trio.testing.wait_all_tasks_blocked()
        hub.let_go.set()
    assert got == [ROW, ROW]
    assert early == late == [STEP, Complete(local_path="/m.gguf")]
    assert hub.begun == 1


async def test_each_change_of_a_downloads_state_is_notified(
    downloads: Downloads, hub: Hub, nursery: trio.Nursery
) -> None:
    assert downloads.states() == []
    changed = downloads.changed.next
    begun = downloads.begin(M)
    assert changed.is_set()
    asking = DownloadState(download_id=begun.id, model_ref=str(M), stage="asking")
    assert downloads.states() == [asking]
    await trio.testing.wait_all_tasks_blocked()
    steps = {"bytes_downloaded": 4, "bytes_total": 10}
    assert downloads.states() == [msgspec.structs.replace(asking, stage="downloading", speed_mbps=1, **steps)]
    changed = downloads.changed.next
    begun.report(Retrying(attempt=2, attempts=6, delay_ms=100, message="it was lost"))
    assert changed.is_set()
    retrying = msgspec.structs.replace(asking, stage="retrying", message="it was lost", **steps)
    assert downloads.states() == [retrying], "how far it had come is told still"
    hub.failure = DownloadFailedError("it could not be fetched")
    hub.let_go.set()
    with pytest.raises(DownloadFailedError):
        await begun.outcome.wait()
    failed = msgspec.structs.replace(retrying, stage="error", message="it could not be fetched", code="DOWNLOAD_FAILED")
    assert downloads.states() == [failed]
    assert failed.is_over


async def test_a_download_is_cancelled_with_its_last_caller(downloads: Downloads, hub: Hub) -> None:
    scopes = [trio.CancelScope(), trio.CancelScope()]

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            await downloads.get(M, lambda _: None)

    async with trio.open_nursery() as nursery:
        for scope in scopes:
            nursery.start_soon(ask, scope)
        await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert hub.cancelled == 0
        scopes[1].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert hub.cancelled == 1
        hub.let_go.set()
        assert await downloads.get(M, lambda _: None) == ROW
        assert hub.begun == 2, "after its end the next one begins anew"


async def test_each_caller_gets_a_copy_of_the_error(downloads: Downloads, hub: Hub) -> None:
    hub.failure = DownloadFailedError("lost", attempts=6)
    hub.let_go.set()
    caught: list[DownloadFailedError] = []

    async def ask() -> None:
        with pytest.raises(DownloadFailedError) as failure:
            await downloads.get(M, lambda _: None)
        caught.append(failure.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert caught[0] is not caught[1]
    assert [error.details for error in caught] == [{"attempts": 6}] * 2


async def test_a_detached_download_goes_on_until_it_is_given_up(downloads: Downloads, hub: Hub) -> None:
    begun = downloads.begin(M)
    assert downloads.begin(M) is begun
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(0):
        await downloads.get(M, lambda _: None)
    await trio.testing.wait_all_tasks_blocked()
    assert hub.cancelled == 0
    downloads.give_up(begun.id)
    downloads.give_up(begun.id)
    with pytest.raises(CancelledError):
        await begun.outcome.wait()
    assert hub.cancelled == 1
    assert isinstance(begun.last, Failed)
    assert begun.last.code == "CANCELLED"


async def test_an_ended_download_is_known_for_ten_minutes(
    downloads: Downloads, hub: Hub, autojump_clock: MockClock
) -> None:
    hub.let_go.set()
    begun = downloads.begin(M)
    assert await begun.outcome.wait() == ROW
    await trio.sleep(REMEMBERED_SECONDS - 1)
    told: list[ProgressEvent] = []
    with downloads.known(begun.id).watched(told.append):
        pass
    assert told == [Complete(local_path="/m.gguf")]
    await trio.sleep(2)
    with pytest.raises(ModelNotFoundError):
        downloads.known(begun.id)
    assert REMEMBERED_SECONDS == 600


async def test_a_stopping_hive_begins_no_download(downloads: Downloads, hub: Hub) -> None:
    begun = downloads.begin(M)
    await trio.testing.wait_all_tasks_blocked()
    downloads.stop()
    with pytest.raises(DrainingError):
        await begun.outcome.wait()
    with pytest.raises(DrainingError):
        await downloads.get(M, lambda _: None)


@pytest.mark.parametrize(
    "failure",
    [
        TypeError("Unknown scheme for proxy URL"),
        OSError(24, "Too many open files"),
        ExceptionGroup("", [MemoryError()]),
        UnicodeEncodeError("ascii", "\xfc", 0, 1, "x"),
        RecursionError(),
    ],
)
async def test_what_nobody_foresaw_ends_one_download_alone(downloads: Downloads, hub: Hub, failure: Exception) -> None:
    failing = downloads.begin(M)
    await trio.testing.wait_all_tasks_blocked()
    hub.failure = failure
    hub.let_go.set()
    with pytest.raises(InternalError, match="the download of hf:bees/model failed unexpectedly"):
        await failing.outcome.wait()
    assert isinstance(failing.last, Failed)
    assert failing.last.code == "INTERNAL_ERROR"
    hub.failure = None
    assert await downloads.get(M, lambda _: None) == ROW


async def test_a_watcher_that_fails_takes_nothing_from_the_others(downloads: Downloads, hub: Hub) -> None:
    def fail(_: ProgressEvent) -> None:
        raise KeyError("x")

    seen: list[ProgressEvent] = []
    hub.let_go.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(downloads.get, M, fail)
        nursery.start_soon(downloads.get, M, seen.append)
    assert seen == [STEP, Complete(local_path="/m.gguf")]
