"""What the queen knows of a hive's workers, event by event."""

from __future__ import annotations

import msgspec
import pytest

from rbee.queen.hives.mirror import REMEMBERED_ENDS, HiveMirror
from rbee.wire.hive import EndedWorker, WorkerGone, WorkerList, WorkerRow
from rbee.wire.progress import DownloadState
from rbee.wire.worker import EndedRequest


def row(name: str, free: int = 4) -> WorkerRow:
    return WorkerRow(
        id=name, url="http://x:1", model_ref="m", backend="cpu", device=0, state="busy", slots_total=4,
        slots_available=free, pid=1,
    )  # fmt: skip


def ended(name: str) -> EndedWorker:
    return EndedWorker(
        id=name, model_ref="m", backend="cpu", device=0, pid=1, reason="SIGSEGV", ended_at=0, log="l", last_lines=[]
    )


@pytest.fixture
def mirror() -> HiveMirror:
    found = HiveMirror()
    found.on_hive_event(WorkerList(workers=[row("a"), row("b")]))
    return found


def test_it_is_live_from_the_whole_state_until_the_stream_is_lost(mirror: HiveMirror) -> None:
    assert not HiveMirror().is_live
    assert (mirror.is_live, list(mirror.rows)) == (True, ["a", "b"])
    assert mirror.on_hive_event(None) == [WorkerGone(id="a"), WorkerGone(id="b")]
    assert (mirror.is_live, mirror.rows) == (False, {})
    assert mirror.on_hive_event(WorkerList(workers=[])) == []
    assert mirror.is_live


def test_what_has_changed_is_said_and_what_has_not_is_not(mirror: HiveMirror) -> None:
    assert mirror.on_hive_event(row("a")) == []
    assert mirror.on_hive_event(row("a", 3)) == [row("a", 3)]
    assert mirror.on_hive_event(row("new")) == [row("new")]
    assert mirror.on_hive_event(WorkerList(workers=[row("a", 3), row("b", 2)])) == [WorkerGone(id="new"), row("b", 2)]
    gone = WorkerGone(id="a", ended=ended("a"))
    assert mirror.on_hive_event(gone) == [gone]
    assert mirror.on_hive_event(WorkerGone(id="never there")) == []
    assert mirror.on_hive_event(DownloadState(download_id="d", model_ref="m", stage="downloading")) == []
    assert mirror.rows == {"b": row("b", 2)}


def test_a_worker_that_is_merely_seen_once_more_has_not_changed(mirror: HiveMirror) -> None:
    seen = msgspec.structs.replace(row("a"), last_health_at=5.0, idle_since=4.0)
    assert mirror.on_hive_event(seen) == []
    assert mirror.rows["a"] == seen
    assert mirror.on_hive_event(msgspec.structs.replace(seen, slots_available=3)) == [mirror.rows["a"]]


def test_how_workers_ended_outlives_the_hive(mirror: HiveMirror) -> None:
    mirror.on_hive_event(WorkerGone(id="a", ended=ended("a")))
    mirror.on_hive_event(WorkerGone(id="b"))
    mirror.on_hive_event(None)
    mirror.on_hive_event(WorkerList(workers=[], ended=[ended("before")]))
    assert mirror.ended == {"a": ended("a"), "b": None, "before": ended("before")}


def test_only_the_last_ends_are_remembered() -> None:
    mirror = HiveMirror()
    for number in range(REMEMBERED_ENDS + 1):
        mirror.on_hive_event(WorkerGone(id=str(number)))
    assert "0" not in mirror.ended
    assert "1" in mirror.ended


def test_requests_that_have_ended_are_counted_while_their_worker_is_there() -> None:
    found = HiveMirror()
    found.on_hive_event(WorkerList(workers=[row("a"), row("b")]))
    for name in ("a", "a", "b", "gone"):
        assert found.on_hive_event(EndedRequest(request_id="r", worker_id=name, duration_ms=1.0, end="stop")) == []
    assert found.finished == {"a": 2, "b": 1}
    found.on_hive_event(WorkerGone(id="b"))
    assert found.finished == {"a": 2}
    found.on_hive_event(WorkerList(workers=[row("c")]))
    assert not found.finished
