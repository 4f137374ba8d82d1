"""How a hive shows its workers, and the events that a change causes."""

from __future__ import annotations

from typing import Any

from rbee.adapters.config import Timeouts
from rbee.hive.workers import view
from rbee.hive.workers.pool import MAX_ENDED_WORKERS, Pool
from rbee.hive.workers.record import ProcessExit, WorkerSpec
from rbee.wire import hive as wire
from rbee.wire.worker import WorkerStatus

SPEC = WorkerSpec("builtin:bee-stories", "/m.gguf", "cpu", 0, "ram", 4, 512, 1)


def pool(*names: str) -> Pool:
    """Return a pool whose workers serve."""
    made = Pool(Timeouts())
    for name in names:
        made.spawn(name, SPEC, 1000, 0)
        made.launched(name, 17)
        made.called_back(name, f"http://127.0.0.1:8001/{name}", 0)
        made.status(name, WorkerStatus(state="idle", slots_total=4, slots_available=4), 0, 100)
    return made


def changes(before: wire.WorkerList | None, now: wire.WorkerList) -> list[tuple[str, Any]]:
    return list(view.changes(before, now))


def test_a_new_follower_gets_the_whole_state() -> None:
    now = view.workers(pool("a", "b"))
    assert [row.id for row in now.workers] == ["a", "b"]
    assert changes(None, now) == [("state", now)]


def test_only_changed_workers_are_sent_again() -> None:
    made = pool("a", "b")
    before = view.workers(made)
    assert changes(before, view.workers(made)) == []
    made.status("b", WorkerStatus(state="busy", slots_total=4, slots_available=3), 1, 101)
    now = view.workers(made)
    assert changes(before, now) == [("worker", now.workers[1])]


def test_a_new_worker_and_one_that_is_gone_are_sent() -> None:
    made = pool("a")
    before = view.workers(made)
    made.spawn("b", SPEC, 1000, 0)
    made.end("a", 1)
    made.exited("a", ProcessExit("exit code 0"))
    now = view.workers(made)
    assert changes(before, now) == [("worker", now.workers[0]), ("gone", wire.WorkerGone(id="a"))]


def test_why_a_worker_ended_is_sent_unless_its_end_was_requested() -> None:
    made = pool("a", "b")
    before = view.workers(made)
    made.end("a", 1)
    made.exited("a", ProcessExit("exit code 0"))
    made.exited("b", ProcessExit("SIGILL", 7.0, "worker-b.log", ("the last line",)))
    now = view.workers(made)
    (ended,) = now.ended
    assert (ended.id, ended.reason, ended.ended_at) == ("b", "SIGILL", 7.0)
    assert (ended.log, ended.last_lines) == ("worker-b.log", ["the last line"])
    assert changes(before, now) == [
        ("gone", wire.WorkerGone(id="a")),
        ("gone", wire.WorkerGone(id="b", ended=ended)),
    ]


def test_the_oldest_reasons_are_forgotten() -> None:
    made = pool(*map(str, range(MAX_ENDED_WORKERS + 5)))
    for name in list(made.workers):
        made.exited(name, ProcessExit("SIGKILL"))
    assert [ended.id for ended in view.workers(made).ended] == [
        str(number) for number in range(5, MAX_ENDED_WORKERS + 5)
    ]
