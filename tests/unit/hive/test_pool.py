"""The life of workers: what happened goes in, what to do comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rbee.adapters.config import Timeouts
from rbee.errors import (
    DrainingError,
    LoadingTimeoutError,
    OutOfMemoryError,
    RbeeError,
    SpawnFailedError,
    SpawnTimeoutError,
    WorkerNotFoundError,
)
from rbee.hive.workers import view
from rbee.hive.workers.effects import (
    AskToEnd,
    CheckHealth,
    Delete,
    Effect,
    Follow,
    Kill,
    Launch,
    Reply,
    Save,
    Terminate,
)
from rbee.hive.workers.pool import Pool
from rbee.hive.workers.record import ProcessExit, WorkerRecord, WorkerSpec
from rbee.wire.worker import WorkerStatus

URL = "http://127.0.0.1:8001"
GB = 1_000_000_000
SPEC = WorkerSpec("builtin:bee-stories", "/m.gguf", "cpu", 0, "ram", 4, 512, 3 * GB)
PHASES = ["starting", "loading", "serving", "busy", "failed", "ending"]


def status(state: str, busy: int = 0, total: int = 4, **more: Any) -> WorkerStatus:
    return WorkerStatus(state=state, slots_total=total, slots_available=total - busy, **more)  # type: ignore[arg-type]


def kinds(effects: list[Effect]) -> list[type]:
    return [type(effect) for effect in effects]


def at(phase: str, now: float = 0.0, pool: Pool | None = None, worker_id: str = "w") -> tuple[Pool, WorkerRecord]:
    """Return a pool with one worker that has come this far at the time `now`."""
    pool = pool or Pool(Timeouts())
    pool.spawn(worker_id, SPEC, 100 * GB, now)
    worker = pool.workers[worker_id]
    pool.launched(worker_id, 17)
    if phase == "starting":
        return pool, worker
    pool.called_back(worker_id, URL, now)
    match phase:
        case "serving":
            pool.status(worker_id, status("idle"), now, 1000.0)
        case "busy":
            pool.status(worker_id, status("busy", 1), now, 1000.0)
        case "failed":
            pool.status(worker_id, status("failed"), now, 1000.0)
        case "ending":
            pool.status(worker_id, status("idle"), now, 1000.0)
            pool.end(worker_id, now)
        case _:
            assert phase == "loading"
    return pool, worker


# The whole life.


def test_the_life_of_a_worker() -> None:
    pool = Pool(Timeouts())
    effects = pool.spawn("w", SPEC, 100 * GB, 0)
    worker = pool.workers["w"]
    assert effects == [Launch(worker)]
    assert (worker.state, worker.slots_available, worker.pid) == ("loading", 0, None)

    assert pool.launched("w", 17) == [Save(worker)]
    assert (worker.state, worker.pid) == ("loading", 17)

    assert pool.called_back("w", URL, 1) == [Save(worker), Reply(worker, None), Follow(worker)]
    assert (worker.state, worker.slots_available, worker.url) == ("loading", 0, URL)

    assert pool.status("w", status("loading", layers_loaded=3, layers_total=8), 2, 1000) == []
    assert (worker.layers, worker.last_health_at) == ((3, 8), 1000)

    assert pool.status("w", status("idle"), 3, 1001) == [Save(worker)]
    assert (worker.state, worker.slots_available, worker.idle_since) == ("idle", 4, 1001)

    assert pool.status("w", status("busy", 2), 4, 1002) == [Save(worker)]
    assert (worker.state, worker.slots_available, worker.idle_since) == ("busy", 2, None)

    assert pool.status("w", status("idle"), 5, 1003) == [Save(worker)]
    assert (worker.state, worker.slots_available, worker.idle_since) == ("idle", 4, 1003)

    assert pool.end("w", 6) == [Save(worker), AskToEnd(worker)]
    assert (worker.state, worker.slots_available, worker.idle_since) == ("draining", 0, 1003)

    assert pool.exited("w", ProcessExit("exit code 0")) == [Delete(worker, None)]
    assert pool.workers == {}
    assert pool.due() is None


def test_a_health_report_does_not_move_the_idle_time() -> None:
    pool, worker = at("serving")
    assert pool.status("w", status("idle"), 50, 1050) == []
    assert (worker.idle_since, worker.last_health_at) == (1000, 1050)


def test_a_report_that_changes_nothing_is_not_stored() -> None:
    pool, _ = at("busy")
    assert pool.status("w", status("busy", 1), 1, 1001) == []
    assert kinds(pool.status("w", status("busy", 2), 2, 1002)) == [Save]


# Deadlines.


def test_a_worker_that_does_not_call_back_in_time_is_killed() -> None:
    pool, worker = at("starting")
    assert pool.due() == 30
    assert pool.tick(29.9) == []
    assert pool.tick(30) == [Kill(worker)]
    assert worker.state == "draining"
    answer, forget = pool.exited("w", ProcessExit("SIGKILL"))
    assert isinstance(answer, Reply)
    assert isinstance(answer.error, SpawnTimeoutError)
    assert "30 s" in answer.error.message
    assert forget == Delete(worker, answer.error.message)


def test_a_launch_that_hangs_is_answered_once_it_ends() -> None:
    pool = Pool(Timeouts())
    pool.spawn("w", SPEC, 100 * GB, 0)
    worker = pool.workers["w"]
    assert pool.tick(30) == [], "there is no process yet"
    assert pool.launched("w", 17) == [Save(worker), Terminate(worker)]
    assert pool.tick(40) == [Kill(worker)]
    answer = pool.exited("w", ProcessExit("SIGKILL"))[0]
    assert isinstance(answer, Reply)
    assert isinstance(answer.error, SpawnTimeoutError)


def test_a_model_that_does_not_load_in_time_ends_its_worker() -> None:
    pool, worker = at("loading", now=10)
    pool.status("w", status("loading", layers_loaded=3, layers_total=8), 20, 1000)
    assert worker.deadline == 310
    assert pool.tick(310) == [Kill(worker)]
    assert isinstance(worker.error, LoadingTimeoutError)
    assert worker.error.details == {"elapsed_s": 300, "state": "loading", "layers_loaded": 3, "layers_total": 8}
    assert worker.error.message == "the model was not loaded within 300 s: state loading, 3 of 8 layers"
    assert pool.exited("w", ProcessExit("SIGKILL")) == [Delete(worker, worker.error.message)]


def test_an_idle_worker_is_ended_at_its_time() -> None:
    pool, worker = at("serving")
    pool.limits = Timeouts(health_interval=1e9)
    worker.next_check = None
    assert pool.due() == 300
    assert pool.tick(299.9) == []
    assert kinds(pool.tick(300)) == [Save, AskToEnd]
    assert worker.state == "draining"


@pytest.mark.parametrize("keep", [0, 10, 7200, 315_360_000])
def test_a_request_may_say_how_long_the_worker_stays_after_the_last_one(keep: float) -> None:
    pool, worker = at("busy")
    pool.limits = Timeouts(health_interval=1e9)
    worker.next_check = None
    pool.status("w", status("busy", 1, keep_s=keep), 5, 1005)
    assert pool.due() is None
    pool.status("w", status("idle", keep_s=keep), 100, 1100)
    assert pool.due() == 100 + keep
    assert view.workers(pool).workers[0].idle_until == 1100 + keep
    assert pool.tick(100 + keep - 0.1) == []
    assert kinds(pool.tick(100 + keep)) == [Save, AskToEnd]


def test_until_when_a_worker_stays_is_shown_while_it_is_idle() -> None:
    pool, _ = at("serving")
    assert view.workers(pool).workers[0].idle_until == 1300
    pool.status("w", status("busy", 1), 10, 1010)
    assert view.workers(pool).workers[0].idle_until is None
    pool.status("w", status("idle"), 20, 1020)
    assert view.workers(pool).workers[0].idle_until == 1320


def test_health_checks_do_not_keep_an_idle_worker() -> None:
    pool, worker = at("serving")
    for now in range(30, 300, 30):
        assert pool.tick(now) == [CheckHealth(worker)]
        assert pool.tick(now + 1) == [], "one check at a time"
        pool.checked("w", is_alive=True, now=now + 1, unix=1000 + now)
        worker.next_check = now + 30
    assert worker.last_health_at == 1270
    assert worker.idle_since == 1000
    assert kinds(pool.tick(300)) == [Save, AskToEnd]


def test_a_busy_worker_is_never_idle() -> None:
    pool, worker = at("busy")
    worker.next_check = None
    assert pool.due() is None
    assert pool.tick(1e9) == []


def test_three_failed_checks_in_a_row_end_a_worker() -> None:
    pool, worker = at("busy")
    for number, now in enumerate((30, 65), 1):
        assert pool.tick(now) == [CheckHealth(worker)]
        assert kinds(pool.checked("w", is_alive=False, now=now + 5, unix=0)) == [Save]
        assert (worker.state, worker.slots_available, worker.failed_checks) == ("unhealthy", 0, number)
    assert pool.tick(100) == [CheckHealth(worker)]
    assert kinds(pool.checked("w", is_alive=False, now=105, unix=0)) == [Save, Terminate]
    assert kinds(pool.tick(115)) == [Kill]
    (forget,) = pool.exited("w", ProcessExit("SIGKILL"))
    assert isinstance(forget, Delete)
    assert "3 health checks" in (forget.reason or "")


def test_a_worker_that_answers_again_is_well_again() -> None:
    pool, worker = at("serving")
    for alive, state in ((False, "unhealthy"), (False, "unhealthy"), (True, "idle"), (False, "unhealthy")):
        pool.checked("w", is_alive=alive, now=0, unix=1)
        assert worker.state == state
    assert worker.phase == "serving"


def test_an_adopted_worker_is_asked_at_once_and_followed() -> None:
    pool = Pool(Timeouts())
    assert kinds(pool.adopt("w", SPEC, URL, 17, 5)) == [Follow]
    worker = pool.workers["w"]
    assert pool.tick(5) == [CheckHealth(worker)]
    pool.checked("w", is_alive=True, now=5, unix=1000)
    pool.status("w", status("busy", 3), 6, 1001)
    assert (worker.state, worker.slots_available) == ("busy", 1)
    assert pool.exited("w", ProcessExit("gone")) == [Delete(worker, "gone")]


def test_an_adopted_worker_that_had_not_called_back_is_ended() -> None:
    pool = Pool(Timeouts())
    (effect,) = pool.adopt("w", SPEC, None, 17, 5)
    assert isinstance(effect, Terminate)
    assert pool.workers["w"].state == "draining"
    assert pool.called_back("w", URL, 6) == [], "it gets no error, and SIGTERM comes"
    assert kinds(pool.tick(15)) == [Kill]
    assert kinds(pool.exited("w", ProcessExit("SIGKILL"))) == [Reply, Delete]


def test_a_failed_load_is_shown_for_a_while() -> None:
    pool, worker = at("failed")
    assert (worker.state, worker.slots_available) == ("unhealthy", 0)
    assert pool.due() == 10
    assert kinds(pool.tick(10)) == [Save, AskToEnd]
    assert kinds(pool.tick(20)) == [Kill]


@pytest.mark.parametrize("phase", ["loading", "serving", "busy"])
def test_the_reason_of_a_failure_is_logged_when_the_worker_has_gone(phase: str) -> None:
    pool, worker = at(phase)
    pool.status("w", status("failed", error={"code": "MODEL_LOAD_FAILED", "message": "m.gguf is corrupt"}), 1, 1001.0)
    assert (worker.state, worker.slots_available) == ("unhealthy", 0)
    pool.tick(11)
    assert pool.exited("w", ProcessExit("exit code 0")) == [Delete(worker, "m.gguf is corrupt")]


@pytest.mark.parametrize("phase", ["loading", "serving", "busy"])
def test_a_worker_that_somebody_else_ends_takes_no_more_and_is_no_crash(phase: str) -> None:
    pool, worker = at(phase)
    assert kinds(pool.status("w", status("draining"), 1, 1001.0)) == [Save]
    assert (worker.state, worker.slots_available, pool.due()) == ("draining", 0, 41)
    assert pool.end("w", 2) == []
    assert pool.exited("w", ProcessExit("exit code 0")) == [Delete(worker, None)]


@pytest.mark.parametrize(("phase", "seconds"), [("serving", 10), ("busy", 40), ("loading", 10)])
def test_a_worker_that_does_not_end_is_killed(phase: str, seconds: float) -> None:
    pool, worker = at(phase)
    pool.end("w", 0)
    assert pool.due() == seconds
    assert pool.tick(seconds - 0.1) == []
    assert pool.tick(seconds) == [Kill(worker)]


def test_killing_is_repeated_until_it_is_gone() -> None:
    pool, worker = at("ending")
    assert pool.tick(10) == [Kill(worker)]
    assert pool.tick(10) == []
    assert pool.tick(20) == [Kill(worker)]


def test_only_the_overdue_ones_are_touched() -> None:
    pool, _ = at("starting", 0, worker_id="a")
    _, later = at("starting", 5, pool, "b")
    assert [effect.worker.id for effect in pool.tick(30)] == ["a"]
    assert later.phase == "starting"
    assert pool.due() == 35


# Failures.


def test_a_process_that_cannot_be_started_is_answered() -> None:
    pool = Pool(Timeouts())
    pool.spawn("w", SPEC, 100 * GB, 0)
    worker = pool.workers["w"]
    error = SpawnFailedError("no such program")
    assert pool.launch_failed("w", error) == [Reply(worker, error), Delete(worker, "no such program")]
    assert pool.workers == {}


def test_a_worker_that_ends_before_it_is_ready_is_answered_with_how() -> None:
    pool, worker = at("starting")
    answer, forget = pool.exited("w", ProcessExit("exit code 1"))
    assert isinstance(answer, Reply)
    assert isinstance(answer.error, SpawnFailedError)
    assert "exit code 1" in answer.error.message
    assert forget == Delete(worker, "exit code 1")


def test_the_error_that_a_worker_announced_is_the_reply() -> None:
    pool, worker = at("starting")
    said = RbeeError("no memory")
    assert pool.exited("w", ProcessExit("exit code 1"), said) == [Reply(worker, said), Delete(worker, "no memory")]


@pytest.mark.parametrize("phase", ["loading", "serving", "busy"])
def test_a_crash_is_logged_and_not_replied_again(phase: str) -> None:
    pool, worker = at(phase)
    assert pool.exited("w", ProcessExit("SIGSEGV")) == [Delete(worker, "SIGSEGV")]


def test_an_end_that_was_asked_for_is_no_crash() -> None:
    pool, worker = at("ending")
    assert pool.exited("w", ProcessExit("exit code 0")) == [Delete(worker, None)]


def test_a_start_that_was_given_up_is_answered() -> None:
    pool, worker = at("starting")
    assert pool.end("w", 1) == [Terminate(worker)]
    answer = pool.exited("w", ProcessExit("SIGTERM"))[0]
    assert isinstance(answer, Reply)
    assert isinstance(answer.error, DrainingError)
    assert answer.error.details["worker_id"] == "w"


def test_a_start_given_up_before_there_was_a_process_ends_it_when_there_is() -> None:
    pool = Pool(Timeouts())
    pool.spawn("w", SPEC, 100 * GB, 0)
    assert pool.end("w", 1) == []
    worker = pool.workers["w"]
    assert pool.launched("w", 17) == [Save(worker), Terminate(worker)]


# A worker that is there already.


@pytest.mark.parametrize(("phase", "is_enough"), [(phase, phase not in ("failed", "ending")) for phase in PHASES])
def test_a_worker_that_starts_loads_or_serves_can_be_reused(phase: str, is_enough: bool) -> None:
    pool, worker = at(phase)
    assert pool.like(SPEC) is (worker if is_enough else None)


def test_a_sick_worker_is_not_enough() -> None:
    pool, _ = at("serving")
    pool.checked("w", is_alive=False, now=1, unix=1001)
    assert pool.like(SPEC) is None


@pytest.mark.parametrize("changed", [{"model_ref": "m"}, {"backend": "cuda"}, {"device": 1}])
def test_another_model_or_device_is_not_enough(changed: dict[str, Any]) -> None:
    pool, _ = at("serving")
    assert pool.like(replace(SPEC, **changed)) is None


@pytest.mark.parametrize("size", [{"slots": 2}, {"context": 64}, {"path": ""}, {"memory": 0}])
def test_a_worker_of_another_size_is_enough(size: dict[str, Any]) -> None:
    pool, worker = at("serving")
    assert pool.like(replace(SPEC, **size)) is worker


def test_the_readiest_worker_is_taken() -> None:
    pool = Pool(Timeouts())
    for phase in ("starting", "loading", "busy", "serving"):
        _, worker = at(phase, pool=pool, worker_id=phase)
        assert pool.like(SPEC) is worker


# Strangers, and things said twice.


def test_a_stranger_is_refused() -> None:
    pool = Pool(Timeouts())
    with pytest.raises(WorkerNotFoundError):
        pool.called_back("x", URL, 0)
    with pytest.raises(WorkerNotFoundError):
        pool.end("x", 0)
    assert pool.status("x", status("idle"), 0, 0) == []
    assert pool.refused_to_end("x") == []
    assert pool.workers == {}


@pytest.mark.parametrize("phase", ["loading", "serving", "busy", "failed", "ending"])
def test_a_repeated_callback_changes_nothing(phase: str) -> None:
    pool, worker = at(phase)
    before = (worker.phase, worker.url, worker.deadline)
    assert pool.called_back("w", "http://elsewhere:1", 5) == []
    assert (worker.phase, worker.url, worker.deadline) == before


@pytest.mark.parametrize("phase", PHASES)
def test_ending_twice_asks_once(phase: str) -> None:
    pool, _ = at(phase)
    pool.end("w", 1)
    deadline = pool.due()
    assert pool.end("w", 2) == []
    assert pool.due() == deadline, "asking again does not give it more time"


def test_a_worker_that_refuses_to_end_gets_a_signal() -> None:
    pool, worker = at("ending")
    assert pool.refused_to_end("w") == [Terminate(worker)]


@pytest.mark.parametrize("state", ["loading", "idle", "busy", "draining", "failed"])
def test_an_ending_worker_stays_one_whatever_it_publishes(state: str) -> None:
    pool, worker = at("ending")
    pool.status("w", status(state, busy=1 if state == "busy" else 0), 1, 1001)
    assert (worker.state, worker.slots_available) == ("draining", 0)
    assert pool.due() == 10


# Memory.


def test_memory_of_starting_workers_is_taken_into_account() -> None:
    pool = Pool(Timeouts())
    pool.spawn("a", SPEC, 8 * GB, 0)
    pool.spawn("b", SPEC, 8 * GB, 0)
    with pytest.raises(OutOfMemoryError) as caught:
        pool.spawn("c", SPEC, 8 * GB, 0)
    assert caught.value.details == {"required": 3000, "available": 2000, "resource": "ram", "held": 6000}
    assert set(pool.workers) == {"a", "b"}


def test_a_loaded_worker_shows_in_what_is_free() -> None:
    pool, _ = at("serving")
    assert pool.reserved("ram", 0) == 0
    pool.spawn("b", SPEC, 5 * GB, 0)
    assert pool.reserved("ram", 0) == 3 * GB


def test_a_worker_that_ends_while_it_loads_still_takes_its_memory() -> None:
    pool, _ = at("loading")
    pool.end("w", 1)
    assert pool.reserved("ram", 0) == 3 * GB
    with pytest.raises(OutOfMemoryError):
        pool.spawn("b", SPEC, 5 * GB, 2)
    pool.exited("w", ProcessExit("exit code 0"))
    assert pool.reserved("ram", 0) == 0


@pytest.mark.parametrize("state", ["idle", "busy", "failed"])
def test_a_worker_whose_model_is_loaded_or_never_will_be_takes_no_more(state: str) -> None:
    pool, _ = at("loading")
    pool.status("w", status(state, 1 if state == "busy" else 0), 1, 1001)
    assert pool.reserved("ram", 0) == 0
    pool.end("w", 2)
    assert pool.reserved("ram", 0) == 0


def test_the_memory_of_an_adopted_worker_is_reserved_until_it_has_loaded() -> None:
    pool = Pool(Timeouts())
    pool.adopt("w", SPEC, URL, 17, 0)
    assert pool.reserved("ram", 0) == 3 * GB
    pool.status("w", status("idle"), 1, 1001)
    assert pool.reserved("ram", 0) == 0


def test_each_device_is_counted_by_itself() -> None:
    pool = Pool(Timeouts())
    gpu = WorkerSpec("m", "/m", "cuda", 1, "vram", 1, None, 3 * GB)
    pool.spawn("a", gpu, 4 * GB, 0)
    assert (pool.reserved("vram", 1), pool.reserved("vram", 0), pool.reserved("ram", 1)) == (3 * GB, 0, 0)
    pool.spawn("b", SPEC, 4 * GB, 0)
    with pytest.raises(OutOfMemoryError, match="VRAM"):
        pool.spawn("c", gpu, 4 * GB, 0)


@pytest.mark.parametrize("phase", PHASES)
def test_a_worker_that_is_gone_takes_nothing(phase: str) -> None:
    pool, _ = at(phase)
    pool.exited("w", ProcessExit("gone"))
    assert pool.reserved("ram", 0) == 0


# The end of the node.


def test_a_stopping_node_starts_nothing() -> None:
    pool = Pool(Timeouts())
    assert pool.stop(0) == []
    with pytest.raises(DrainingError):
        pool.spawn("w", SPEC, 100 * GB, 0)


def test_stopping_asks_all_at_once() -> None:
    pool, _ = at("starting", worker_id="a")
    at("loading", pool=pool, worker_id="b")
    at("serving", pool=pool, worker_id="c")
    at("busy", pool=pool, worker_id="d")
    at("ending", pool=pool, worker_id="e")
    at("failed", pool=pool, worker_id="f")
    effects = pool.stop(1)
    assert {effect.worker.id: type(effect) for effect in effects if not isinstance(effect, Save)} == {
        "a": Terminate,
        "b": AskToEnd,
        "c": AskToEnd,
        "d": AskToEnd,
        "f": AskToEnd,
    }
    assert pool.stop(2) == []


def test_workers_that_had_to_be_killed_at_the_end_are_kept() -> None:
    pool, _ = at("serving", worker_id="a")
    at("serving", pool=pool, worker_id="b")
    pool.end("b", 0)
    pool.tick(10)
    pool.exited("b", ProcessExit("SIGKILL"))
    assert pool.stuck == [], "before the end that is nobody's failure but the worker's"
    pool.stop(20)
    at_once = pool.tick(30)
    assert kinds(at_once) == [Kill]
    pool.exited("a", ProcessExit("SIGKILL"))
    assert [ended.worker.id for ended in pool.stuck] == ["a"]


def test_a_worker_that_ends_in_time_is_not_stuck() -> None:
    pool, _ = at("serving")
    pool.stop(0)
    pool.exited("w", ProcessExit("exit code 0"))
    assert pool.stuck == []


def test_callers_of_a_start_get_drainingerror_when_the_node_stops() -> None:
    """So that the request is taken elsewhere; the worker's own end says nothing to anybody."""
    pool, _ = at("starting")
    pool.stop(0)
    answer, _ = pool.exited("w", ProcessExit("SIGTERM (asked to end)"))
    assert isinstance(answer, Reply)
    assert isinstance(answer.error, DrainingError)


def test_force_ends_the_wait_for_requests() -> None:
    pool, worker = at("busy")
    pool.stop(0)
    assert pool.due() == 40
    assert pool.force(1) == [Terminate(worker)]
    assert pool.due() == 6
    assert pool.tick(6) == [Kill(worker)]


def test_force_waits_for_a_launch_to_have_a_process() -> None:
    pool = Pool(Timeouts())
    pool.spawn("w", SPEC, 100 * GB, 0)
    pool.stop(0)
    assert pool.force(0) == []
    assert kinds(pool.launched("w", 17)) == [Save, Terminate]


def test_forcing_an_empty_node_does_nothing() -> None:
    pool = Pool(Timeouts())
    pool.stop(0)
    assert pool.force(0) == []


class Life(RuleBasedStateMachine):
    """A pool in a world that does what it asks, in any order and at any pace, or does not."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(Timeouts())
        self.now = 0.0
        self.launching: set[str] = set()
        self.running: set[str] = set()
        self.killed: set[str] = set()
        self.launched: list[str] = []
        self.answers: dict[str, int] = {}
        self.forgotten: list[str] = []
        self.followed: list[str] = []

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            name = effect.worker.id
            match effect:
                case Launch():
                    self.launched.append(name)
                    self.launching.add(name)
                case Reply():
                    self.answers[name] = self.answers.get(name, 0) + 1
                case Delete():
                    self.forgotten.append(name)
                case Follow():
                    self.followed.append(name)
                case Kill() | Terminate():
                    assert name in self.running, "a signal without a process"
                    if isinstance(effect, Kill):
                        self.killed.add(name)
                case AskToEnd():
                    assert effect.worker.url is not None
                case Save():
                    assert name in self.pool.workers

    def one(self, data: st.DataObject, of: set[str]) -> str:
        return data.draw(st.sampled_from(sorted(of)))

    @rule(memory=st.integers(1, 6), slots=st.integers(1, 4))
    def spawn(self, memory: int, slots: int) -> None:
        name = f"w{len(self.answers) + len(self.launched)}"
        spec = WorkerSpec("m", "/m", "cpu", 0, "ram", slots, None, memory)
        before = self.pool.reserved("ram", 0)
        try:
            effects = self.pool.spawn(name, spec, 10, self.now)
        except DrainingError:
            assert self.pool.is_stopping
            return
        except OutOfMemoryError:
            assert before + memory > 10
            return
        assert not self.pool.is_stopping
        assert before + memory <= 10
        self.perform(effects)

    @precondition(lambda self: self.launching)
    @rule(data=st.data(), well=st.booleans())
    def launch(self, data: st.DataObject, well: bool) -> None:
        name = self.one(data, self.launching)
        self.launching.remove(name)
        if well:
            self.running.add(name)
            self.perform(self.pool.launched(name, 1 + len(self.launched)))
        else:
            self.perform(self.pool.launch_failed(name, SpawnFailedError("x")))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def call_back(self, data: st.DataObject) -> None:
        self.perform(self.pool.called_back(self.one(data, self.running), URL, self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), state=st.sampled_from(["loading", "idle", "busy", "draining", "failed"]))
    def report(self, data: st.DataObject, state: str) -> None:
        name = self.one(data, self.running)
        worker = self.pool.workers[name]
        if worker.url is None:
            return  # nobody follows it
        busy = data.draw(st.integers(1, worker.spec.slots)) if state == "busy" else 0
        self.perform(self.pool.status(name, status(state, busy, worker.spec.slots), self.now, 1000 + self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def exit(self, data: st.DataObject) -> None:
        name = self.one(data, self.running)
        self.running.remove(name)
        self.perform(self.pool.exited(name, ProcessExit("exit code 1")))

    @precondition(lambda self: self.pool.workers)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.perform(self.pool.end(self.one(data, set(self.pool.workers)), self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        name = self.one(data, self.running)
        if self.pool.workers[name].url is not None:
            self.perform(self.pool.refused_to_end(name))

    @rule(seconds=st.sampled_from([0.1, 5, 10, 30, 300]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.pool.tick(self.now))
        assert (due := self.pool.due()) is None or due > self.now, "nothing overdue is left"

    @rule()
    def stop(self) -> None:
        self.perform(self.pool.stop(self.now))

    @precondition(lambda self: self.pool.is_stopping)
    @rule()
    def force(self) -> None:
        self.perform(self.pool.force(self.now))

    @invariant()
    def no_worker_is_launched_twice(self) -> None:
        assert len(self.launched) == len(set(self.launched))
        assert len(self.followed) == len(set(self.followed))
        assert len(self.forgotten) == len(set(self.forgotten))

    @invariant()
    def the_pool_knows_what_lives(self) -> None:
        assert set(self.pool.workers) == self.launching | self.running
        assert set(self.forgotten) == set(self.launched) - set(self.pool.workers)

    @invariant()
    def a_start_is_answered_once_and_never_forgotten(self) -> None:
        for name in self.launched:
            worker = self.pool.workers.get(name)
            answered = worker is None or worker.url is not None
            assert self.answers.get(name, 0) == (1 if answered else 0)

    @invariant()
    def slots_add_up(self) -> None:
        for worker in self.pool.workers.values():
            assert 0 <= worker.slots_available <= worker.spec.slots
            assert worker.slots_available == 0 or worker.state in ("idle", "busy")
            assert (worker.idle_since is None) or worker.state in ("idle", "draining")

    @invariant()
    def who_may_hang_has_a_deadline(self) -> None:
        for worker in self.pool.workers.values():
            assert worker.deadline is not None or worker.phase == "serving"

    def teardown(self) -> None:
        """Whatever state it is in, a stop ends everything, even workers that obey nothing but SIGKILL."""
        self.perform(self.pool.stop(self.now))
        for name in sorted(self.launching):
            self.launching.remove(name)
            self.running.add(name)
            self.perform(self.pool.launched(name, 99))
        self.killed.clear()
        self.now += 1000
        self.perform(self.pool.tick(self.now))
        assert self.killed == self.running
        for name in sorted(self.running):
            self.running.remove(name)
            self.perform(self.pool.exited(name, ProcessExit("SIGKILL")))
        assert self.pool.workers == {}
        assert self.pool.reserved("ram", 0) == 0
        assert self.pool.due() is None
        assert self.answers == dict.fromkeys(self.launched, 1)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=40)


@pytest.mark.parametrize("phase", ["starting", "loading", "serving", "busy"])
def test_an_outdated_worker_takes_no_more_requests_and_goes_when_it_is_idle(phase: str) -> None:
    pool, worker = at(phase)
    assert pool.like(SPEC) is worker
    effects = pool.outdated("w", 1)
    assert kinds(effects) == ([Save, Save, AskToEnd] if phase == "serving" else [Save])
    assert worker.state == "draining"
    assert pool.like(SPEC) is None
    assert pool.outdated("w", 2) == [], "it is told once"
    if phase == "starting":
        pool.called_back("w", URL, 2)
    if phase == "busy":
        assert pool.status("w", status("busy", 1), 100, 1.0) == []
        assert worker.phase == "serving", "what it generates is not cut, however long that takes"
        assert not pool.is_in_the_way(SPEC), "nor waited for"
    if phase != "serving":
        assert AskToEnd in kinds(pool.status("w", status("idle"), 101, 2.0))
    assert worker.phase == "ending"
    assert pool.is_in_the_way(SPEC), "its memory is wanted"
    pool.exited("w", ProcessExit("exit code 0"))
    assert not pool.is_in_the_way(SPEC)


def test_what_is_gone_or_goes_cannot_be_outdated() -> None:
    pool, _ = at("ending")
    assert AskToEnd not in kinds(pool.outdated("w", 1))
    assert pool.outdated("nobody", 1) == []
