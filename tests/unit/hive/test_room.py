"""Which idle workers make room for a model that does not fit beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rbee.adapters.config import Timeouts
from rbee.errors import OutOfMemoryError
from rbee.hive.workers.effects import AskToEnd, AskToLeave, Save
from rbee.hive.workers.pool import Pool
from rbee.hive.workers.record import REST_SECONDS, WorkerRecord, WorkerSpec
from rbee.hive.workers.room import Room, find_room
from rbee.wire.common import FOREVER
from rbee.wire.hive import Space
from rbee.wire.worker import EndedRequest, WorkerStatus

GB = 1_000_000_000
NEW = WorkerSpec("new", "/new.gguf", "cpu", 0, "ram", 4, 512, 5 * GB)


def worker(name: str, gigabytes: int, idle_from: float | None = 0.0, **changed: Any) -> WorkerRecord:
    spec = replace(NEW, model_ref=name, memory=gigabytes * GB)
    values: dict[str, Any] = {"phase": "serving", "slots_busy": int(idle_from is None)}
    return WorkerRecord(name, spec, since=0.0, idle_from=idle_from, **(values | changed))


def leaving(free: int, *workers: WorkerRecord) -> list[str]:
    return [one.id for one in find_room(workers, NEW, free * GB, 100).leaving]


def test_where_there_is_room_nobody_leaves() -> None:
    assert find_room([worker("a", 9)], NEW, 5 * GB, 100) == Room([], is_there=True)


def test_the_longest_idle_leave_first_and_no_more_than_needed() -> None:
    workers = worker("young", 3, 30.0), worker("old", 3, 10.0), worker("middle", 3, 20.0)
    assert leaving(2, *workers) == ["old"]
    assert leaving(1, *workers) == ["old", "middle"]
    assert find_room(workers, NEW, 1 * GB, 100).is_coming


def test_those_that_were_asked_to_stay_for_ever_leave_last() -> None:
    workers = worker("kept", 3, 1.0, keep=FOREVER), worker("an hour", 3, 10.0, keep=3600.0), worker("young", 3, 30.0)
    assert leaving(2, *workers) == ["an hour"]
    assert leaving(0, *workers) == ["an hour", "young"]
    assert leaving(0, *workers[:2]) == ["an hour", "kept"]


def test_none_with_a_request_leaves_and_none_in_vain() -> None:
    idle, busy = worker("idle", 1), worker("busy", 3, None)
    assert leaving(0, idle, busy) == []
    room = find_room([idle, busy], NEW, 2 * GB, 100)
    assert (room.leaving, room.is_coming, [one.id for one in room.waits_for]) == ([], True, ["busy"])
    assert find_room([idle, busy], NEW, 0, 100) == Room([]), "it never fits, and nothing is waited for"


@pytest.mark.parametrize("phase", ["starting", "loading", "failed"])
def test_what_does_not_serve_yet_makes_no_room(phase: str) -> None:
    assert leaving(0, worker("w", 9, None, phase=phase)) == []


def test_what_leaves_already_is_waited_for_before_others_are_asked() -> None:
    going, idle = worker("going", 3, None, phase="ending"), worker("idle", 3)
    assert find_room([going, idle], NEW, 2 * GB, 100) == Room([], is_coming=True)
    assert leaving(0, going, idle) == ["idle"]


@pytest.mark.parametrize("phase", ["starting", "loading"])
def test_one_that_loads_is_waited_for_as_one_with_a_request(phase: str) -> None:
    loads = worker("loads", 5, None, phase=phase, slots_busy=0)
    room = find_room([loads], NEW, 0, 100)
    assert (room.leaving, room.is_coming, room.waits_for) == ([], True, (loads,))


def test_another_device_is_of_no_use() -> None:
    card = worker("card", 9)
    card.spec = replace(card.spec, resource="vram")
    assert leaving(0, card, worker("idle", 5)) == ["idle"]


def test_one_that_has_just_loaded_or_served_stays_for_the_request_that_may_be_on_its_way() -> None:
    young = worker("young", 9, 100 - REST_SECONDS + 0.1)
    room = find_room([young], NEW, 0, 100)
    assert (room.leaving, room.is_coming, room.waits_for) == ([], True, (young,))
    assert find_room([young], NEW, 0, 100.1).leaving == [young]


def test_one_that_has_served_and_that_nobody_is_on_the_way_to_leaves_at_once() -> None:
    served = worker("served", 9, 100)
    served.has_served = True
    assert find_room([served], NEW, 0, 100, ["another"]).leaving == [served]
    assert find_room([served], NEW, 0, 100, ["served"]).waits_for == (served,), "a request is on its way to it"
    assert find_room([served], NEW, 0, 100, None).waits_for == (served,), "who asks does not know of any"
    served.is_asked_again = True
    assert find_room([served], NEW, 0, 100, []).waits_for == (served,), "a program that calls tools asks again soon"
    assert find_room([served], NEW, 0, 100 + REST_SECONDS, []).leaving == [served]
    loaded = worker("loaded", 9, 100)
    assert find_room([loaded], NEW, 0, 100, []).waits_for == (loaded,), "it was loaded for a request"


# In the pool.


def status(state: str, busy: int = 0) -> WorkerStatus:
    return WorkerStatus(state=state, slots_total=4, slots_available=4 - busy)  # type: ignore[arg-type]


def serving(pool: Pool, name: str, gigabytes: int, now: float) -> WorkerRecord:
    pool.spawn(name, replace(NEW, model_ref=name, memory=gigabytes * GB), 100 * GB, now)
    pool.launched(name, 17)
    pool.called_back(name, "http://127.0.0.1:8001", now)
    pool.status(name, status("idle"), now, 1000.0)
    return pool.workers[name]


def test_a_worker_that_has_a_request_stays_and_is_not_asked_again_at_once() -> None:
    pool = Pool(Timeouts())
    found = serving(pool, "old", 3, 0)
    room, effects = pool.make_room(NEW, 2 * GB, 10)
    assert (room.leaving, effects) == ([found], [Save(found), AskToLeave(found)])
    assert found.state == "draining", "it gets no more requests meanwhile"
    assert pool.stays("old", 11) == [Save(found)]
    assert (found.state, found.idle_from) == ("idle", 11)
    assert pool.make_room(NEW, 2 * GB, 11)[0] == Room([], is_coming=True, waits_for=(found,))
    pool.status("old", status("busy", 1), 11.5, 1000.0)
    assert pool.make_room(NEW, 2 * GB, 20)[0].waits_for == (found,)
    pool.status("old", status("idle"), 21, 1000.0)
    assert pool.make_room(NEW, 2 * GB, 21 + REST_SECONDS)[0].leaving == [found]
    assert pool.stays("nobody", 30) == []


def test_a_request_that_was_too_short_to_be_seen_counts() -> None:
    pool = Pool(Timeouts())
    found = serving(pool, "old", 3, 0)
    assert pool.make_room(NEW, 2 * GB, 1, [])[0].waits_for == (found,)
    short = status("idle")
    short.ended = [EndedRequest(request_id="r", duration_ms=9.0, end="stop")]
    pool.status("old", short, 2, 1000.0)
    assert pool.make_room(NEW, 2 * GB, 2, [])[0].leaving == [found]
    pool.stays("old", 2)
    assert pool.make_room(NEW, 2 * GB, 2, [])[0].waits_for == (found,), "a request has come, which is not seen yet"


def test_a_worker_is_asked_again_where_one_request_follows_another() -> None:
    pool = Pool(Timeouts())
    found = serving(pool, "old", 3, 0)
    ended = status("idle")
    ended.ended = [EndedRequest(request_id="r", duration_ms=2000.0, end="stop")]
    for began, is_asked_again in ((1, False), (10, False), (14, True), (18, True), (30, False)):
        pool.status("old", status("busy", 1), began, 1000.0)
        pool.status("old", status("idle"), began + 2, 1000.0)
        pool.status("old", ended, began + 2, 1000.0)
        assert (found.has_served, found.is_asked_again) == (True, is_asked_again), began
    assert pool.make_room(NEW, 2 * GB, 32, [])[0].leaving == [found]


def test_who_is_told_to_end_while_it_is_asked_to_leave_ends() -> None:
    pool = Pool(Timeouts())
    found = serving(pool, "old", 3, 0)
    pool.make_room(NEW, 2 * GB, 10)
    assert pool.end("old", 10) == [Save(found), AskToEnd(found)]
    assert pool.stays("old", 11) == []
    assert found.state == "draining"


def test_workers_take_no_more_together_than_the_settings_say() -> None:
    pool = Pool(Timeouts(), max_memory=8 * GB)
    serving(pool, "a", 4, 0)
    assert pool.left(NEW, 100 * GB) == 4 * GB
    assert pool.left(NEW, 3 * GB) == 3 * GB, "and no more than there is"
    assert pool.left(replace(NEW, resource="vram"), 100 * GB) == 100 * GB
    assert pool.memory(Space(total=100 * GB, available=50 * GB)) == Space(total=8 * GB, available=4 * GB)
    assert pool.memory(Space(total=7 * GB, available=3 * GB)) == Space(total=7 * GB, available=3 * GB)
    with pytest.raises(OutOfMemoryError) as caught:
        pool.spawn("new", NEW, 100 * GB, 1)
    words = (
        "needs 5000 MB of RAM, and 4000 MB are available, beside workers that take 4000 MB and have requests, or load; "
        "`max_memory` under [hive] allows 8000 MB to all workers"
    )
    assert str(caught.value) == f"the model {words}"
    assert caught.value.is_passing
    with pytest.raises(
        OutOfMemoryError, match=r"and 4000 MB are available; `max_memory` under .hive. allows 8000 MB"
    ) as caught:
        pool.spawn("never", replace(NEW, memory=9 * GB), 100 * GB, 1)
    assert not caught.value.is_passing
    with pytest.raises(OutOfMemoryError, match=r"and 3000 MB are available, beside [^;]*$"):
        pool.spawn("new", NEW, 3 * GB, 1)
