"""Who waits for a worker that is being started, and what of it goes on when nobody does."""

from __future__ import annotations

import pytest

from rbee.queen.scheduling.shared_start import Starting
from rbee.wire.common import Narration
from rbee.wire.download import Complete, Downloading, Retrying, Verifying
from rbee.wire.progress import Progress, ProgressEvent

STEP = Downloading(bytes_downloaded=4, bytes_total=10, speed_mbps=1)
SENTENCE = Narration(actor="rbee-hive", action="start", target="m", human="Starting a worker")


class Waiter:
    def __init__(self) -> None:
        self.told: list[ProgressEvent] = []

    def report(self, message: ProgressEvent) -> None:
        self.told.append(message)


class Start:
    def __init__(self) -> None:
        self.stops = 0
        self.first = Waiter()
        self.start = Starting(self.first, self.stop)

    def stop(self) -> None:
        self.stops += 1


def test_all_are_told_and_who_comes_late_learns_how_far_it_is() -> None:
    found = Start()
    found.start.report(SENTENCE)
    found.start.report(STEP)
    late = Waiter()
    found.start.join(late)
    assert late.told == [STEP]
    found.start.report(SENTENCE)
    assert late.told == [STEP, SENTENCE]
    assert found.first.told == [SENTENCE, STEP, SENTENCE]


@pytest.mark.parametrize("last", [STEP, Verifying(), Retrying(attempt=2, attempts=6, delay_ms=100, message="lost")])
def test_a_download_ends_with_the_last_who_waits(last: ProgressEvent) -> None:
    found, other = Start(), Waiter()
    found.start.join(other)
    found.start.report(last)
    found.start.leave(found.first)
    assert found.stops == 0
    found.start.leave(other)
    assert found.stops == 1


def test_a_download_that_nobody_waits_for_any_more_ends_as_it_begins() -> None:
    found = Start()
    found.start.leave(found.first)
    assert found.stops == 0, "it may be a worker that starts"
    found.start.report(STEP)
    assert found.stops == 1


@pytest.mark.parametrize("last", [Complete(local_path="/m.gguf"), Progress(stage="copying"), SENTENCE])
def test_a_worker_that_starts_is_there_for_the_next_request(last: ProgressEvent) -> None:
    found = Start()
    found.start.report(last)
    found.start.leave(found.first)
    assert found.stops == 0


def test_who_does_not_wait_may_leave() -> None:
    found = Start()
    found.start.leave(Waiter())
    assert found.start.waiting == [found.first]
