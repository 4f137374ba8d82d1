"""Who waits for a worker that is being started, and what of it goes on when nobody does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rbee.queen.hives.mirror import HiveMirror
from rbee.queen.scheduling.choose_worker import Wanted
from rbee.queen.scheduling.effects import CancelStart, EnsureHive, ListWorkers, ReportProgress, StartWorker
from rbee.queen.scheduling.place_request import PlaceRequest
from rbee.queen.scheduling.scheduler import NodeScheduler
from rbee.wire.common import Narration
from rbee.wire.progress import Complete, Downloading, Progress, ProgressEvent, Retrying, Verifying

if TYPE_CHECKING:
    from rbee.queen.scheduling.effects import Effect

STEP = Downloading(bytes_downloaded=4, bytes_total=10, speed_mbps=1)
SENTENCE = Narration(actor="rbee-hive", action="start", target="m", human="Starting a worker")
WANTED = Wanted("m", None, None)
URL = "http://127.0.0.1:9200"


def request() -> PlaceRequest:
    return PlaceRequest(WANTED, 0, lambda _: None, lambda _: None)


class Start:
    """A start of a worker that is under way, for `first`."""

    def __init__(self) -> None:
        self.scheduler = NodeScheduler("local", HiveMirror(), 10)
        self.first = request()
        self.stops = 0
        self.told: list[tuple[PlaceRequest, ProgressEvent]] = []
        assert self.scheduler.on_request(self.first, 0) == [EnsureHive(self.first)]
        assert self.scheduler.on_hive_up(URL, 0) == [ListWorkers(URL, [self.first])]
        assert self.scheduler.on_workers_listed([self.first], URL, [], 0) == [StartWorker(URL, self.first)]

    def join(self) -> PlaceRequest:
        found = request()
        self._take(self.scheduler.on_request(found, 0))
        return found

    def leave(self, waiter: PlaceRequest) -> None:
        self._take(self.scheduler.on_given_up(waiter, 0))

    def report(self, event: ProgressEvent) -> None:
        self._take(self.scheduler.on_start_progress(WANTED, event, 0))

    def told_to(self, waiter: PlaceRequest) -> list[ProgressEvent]:
        return [event for found, event in self.told if found is waiter]

    def _take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, CancelStart):
                assert effect.wanted == WANTED
                self.stops += 1
            else:
                assert isinstance(effect, ReportProgress)
                assert isinstance(effect.request, PlaceRequest)
                self.told.append((effect.request, effect.event))


def test_all_are_told_and_who_comes_late_learns_how_far_it_is() -> None:
    start = Start()
    start.report(SENTENCE)
    start.report(STEP)
    late = start.join()
    assert start.told_to(late) == [STEP]
    start.report(SENTENCE)
    assert start.told_to(late) == [STEP, SENTENCE]
    assert start.told_to(start.first) == [SENTENCE, STEP, SENTENCE]


@pytest.mark.parametrize("last", [STEP, Verifying(), Retrying(attempt=2, attempts=6, delay_ms=100, message="lost")])
def test_a_download_ends_with_the_last_who_waits(last: ProgressEvent) -> None:
    start = Start()
    other = start.join()
    start.report(last)
    start.leave(start.first)
    assert start.stops == 0
    start.leave(other)
    assert start.stops == 1


def test_a_download_that_nobody_waits_for_any_more_ends_as_it_begins() -> None:
    start = Start()
    start.leave(start.first)
    assert start.stops == 0, "it may be a worker that starts"
    start.report(STEP)
    assert start.stops == 1


@pytest.mark.parametrize("last", [Complete(local_path="/m.gguf"), Progress(stage="copying"), SENTENCE])
def test_a_worker_that_starts_is_there_for_the_next_request(last: ProgressEvent) -> None:
    start = Start()
    start.report(last)
    start.leave(start.first)
    assert start.stops == 0


def test_who_does_not_wait_may_leave() -> None:
    start = Start()
    start.leave(request())
    start.report(SENTENCE)
    assert [waiter for waiter, _ in start.told] == [start.first]
