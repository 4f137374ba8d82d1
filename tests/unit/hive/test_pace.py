"""How often followers of a hive get the progress of its downloads."""

from __future__ import annotations

import math
from typing import Any

from rbee.hive.models.pace import PROGRESS_SECONDS, ProgressThrottle
from rbee.wire.progress import DownloadState


def state(name: str = "a", stage: Any = "downloading", done: int = 0) -> DownloadState:
    return DownloadState(download_id=name, model_ref="hf:bees/m", stage=stage, bytes_downloaded=done, bytes_total=100)


def test_the_beginning_and_the_end_are_published_at_once() -> None:
    pace = ProgressThrottle([])
    assert pace.take([state(stage="asking")], 10) == ([state(stage="asking")], math.inf)
    assert pace.take([state(stage="complete")], 10.001) == ([state(stage="complete")], math.inf)
    assert pace.take([state(stage="complete")], 20) == ([], math.inf)


def test_progress_is_published_once_a_second_in_its_latest_state() -> None:
    pace = ProgressThrottle([])
    pace.take([state(done=0)], 10)
    told = []
    for step in range(1, 100):
        now = 10 + step / 10
        ready, again = pace.take([state(done=step)], now)
        told += [(now, one.bytes_downloaded) for one in ready]
        assert ready or now < again <= now + PROGRESS_SECONDS
    assert [done for _, done in told] == list(range(10, 100, 10))


def test_the_last_of_many_changes_is_published_though_none_follows() -> None:
    pace = ProgressThrottle([])
    pace.take([state(done=0)], 10)
    assert pace.take([state(stage="verifying", done=100)], 10.2) == ([], 11)
    assert pace.take([state(stage="verifying", done=100)], 11) == ([state(stage="verifying", done=100)], math.inf)


def test_each_download_has_a_pace_of_its_own() -> None:
    pace = ProgressThrottle([])
    pace.take([state("a")], 10)
    assert pace.take([state("a", done=1), state("b")], 10.5) == ([state("b")], 11)
    assert pace.take([state("a", done=1), state("b", done=1)], 11) == ([state("a", done=1)], 11.5)


def test_only_downloads_that_run_are_published_to_a_new_follower() -> None:
    before = [state("old", "complete"), state("failed", "error"), state("runs")]
    pace = ProgressThrottle(before)
    assert pace.take(before, 10) == ([state("runs")], math.inf)


def test_a_download_that_began_and_ended_between_two_calls_is_published() -> None:
    assert ProgressThrottle([]).take([state(stage="error")], 10) == ([state(stage="error")], math.inf)
