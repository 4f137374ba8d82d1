"""What a node's scheduler decides: each event in, the effects out, at a time of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rbee.errors import (
    AllSlotsBusyError,
    AlreadyRunningError,
    CancelledError,
    ConnectionTimeoutError,
    DrainingError,
    RbeeError,
    SshFailedError,
)
from rbee.narrower_errors import LineFullError, WorkerDrainingError
from rbee.queen.hives.mirror import HiveMirror
from rbee.queen.scheduling.choose_worker import Wanted
from rbee.queen.scheduling.effects import (
    AnswerHive,
    AnswerPlace,
    CancelStart,
    EnsureHive,
    ListWorkers,
    ReportProgress,
    StartWorker,
)
from rbee.queen.scheduling.hive_start import SUCCESSION_SECONDS
from rbee.queen.scheduling.place_request import HiveRequest, Placed, PlaceRequest
from rbee.queen.scheduling.reservations import RESERVED_SECONDS
from rbee.queen.scheduling.scheduler import LOST_SECONDS, NodeScheduler
from rbee.wire.common import Narration
from rbee.wire.hive import SpawnReply, WorkerList, WorkerRow
from rbee.wire.progress import Downloading

if TYPE_CHECKING:
    from rbee.queen.scheduling.effects import Effect

URL = "http://127.0.0.1:9200"
WARM = Wanted("warm", None, None)
COLD = Wanted("cold", None, None)
REPLY = SpawnReply(worker_id="new", url="http://127.0.0.1:8001", state="loading", api_key="k")
STEP = Downloading(bytes_downloaded=4, bytes_total=10, speed_mbps=1)
SENTENCE = Narration(actor="rbee-hive", action="start", target="m", human="Starting")


def request(wanted: Wanted = WARM, wait: float = 0) -> PlaceRequest:
    return PlaceRequest(wanted, wait, lambda _: None, lambda _: None)


def hive_request() -> HiveRequest:
    return HiveRequest(lambda _: None, lambda _: None)


def row(busy: int = 0, worker_id: str = "w", model: str = "warm", total: int = 2, **changed: Any) -> WorkerRow:
    values: dict[str, Any] = {
        "id": worker_id,
        "url": f"http://127.0.0.1:8001/{worker_id}",
        "model_ref": model,
        "backend": "cpu",
        "device": 0,
        "state": "busy" if busy else "idle",
        "slots_total": total,
        "slots_available": total - busy,
        "pid": 1,
    }
    return WorkerRow(**(values | changed))


class Lab:
    """A scheduler, its mirror, and a clock that the test sets."""

    def __init__(self, *rows: WorkerRow, is_live: bool = True, max_waiting: int = 10) -> None:
        self.mirror = HiveMirror()
        self.scheduler = NodeScheduler("attic", self.mirror, max_waiting)
        self.now = 100.0
        if is_live:
            self.show(*rows)

    def show(self, *rows: WorkerRow) -> list[Effect]:
        """The hive's event stream shows that these are its workers."""
        self.mirror.on_hive_event(WorkerList(workers=list(rows)))
        return self.scheduler.tick(self.now)

    def lose(self) -> list[Effect]:
        self.mirror.on_hive_event(None)
        return [*self.scheduler.on_hive_lost(self.now), *self.scheduler.tick(self.now)]

    def ask(self, wanted: Wanted = WARM, wait: float = 0) -> tuple[PlaceRequest, list[Effect]]:
        found = request(wanted, wait)
        return found, self.does("on_request", found)

    def does(self, event: str, *arguments: Any) -> list[Effect]:
        """Have something happen, and what is due then."""
        effects: list[Effect] = getattr(self.scheduler, event)(*arguments, self.now)
        return effects + self.scheduler.tick(self.now)

    def passes(self, seconds: float) -> list[Effect]:
        self.now += seconds
        return self.scheduler.tick(self.now)


def answers(effects: list[Effect]) -> list[tuple[object, object]]:
    """Return who gets which worker, URL or kind of error."""
    found: list[tuple[object, object]] = []
    for effect in effects:
        if isinstance(effect, AnswerPlace | AnswerHive):
            result: object = effect.result
            if isinstance(effect.result, Placed):
                result = effect.result.worker_id
            elif isinstance(effect.result, RbeeError):
                result = type(effect.result)
            found.append((effect.request, result))
    return found


def words(effects: list[Effect]) -> list[str]:
    return [effect.event.human for effect in effects if isinstance(effect, ReportProgress)]  # type: ignore[union-attr]


# From memory.


@pytest.mark.parametrize("busy", [0, 1, 2])
def test_what_the_mirror_shows_is_answered_at_once_and_nothing_is_asked(busy: int) -> None:
    lab = Lab(row(busy))
    asked, effects = lab.ask()
    assert answers(effects) == [(asked, "w")]
    assert words(effects) == [f"A worker with warm runs on attic already ({'busy' if busy else 'idle'})"]
    assert len(effects) == 2


def test_while_a_hive_is_started_warm_workers_are_given_out_and_who_gives_up_is_forgotten() -> None:
    lab = Lab(row())
    cold, effects = lab.ask(COLD)
    assert effects == [EnsureHive(cold)]
    warm, effects = lab.ask()
    assert answers(effects) == [(warm, "w")]
    assert lab.does("on_given_up", cold) == []
    assert lab.does("on_hive_up", URL) == [], "nobody waits for a worker any more, and none is started"


def test_while_a_worker_starts_warm_ones_are_given_out_and_free_slots_too() -> None:
    lab = Lab(row(1, total=1))
    cold, _ = lab.ask(COLD)
    assert lab.does("on_hive_up", URL) == [StartWorker(URL, cold)]
    waits, effects = lab.ask(wait=60)
    assert answers(effects) == []
    assert answers(lab.show(row(total=1))) == [(waits, "w")]
    assert answers(lab.does("on_started", COLD, REPLY)) == [(cold, "new")]


def test_a_slot_is_not_given_to_a_newcomer_before_those_who_wait() -> None:
    lab = Lab(row(2))
    old, _ = lab.ask(wait=60)
    # Both have come in, and the event that shows the slot has not been handled yet.
    lab.mirror.on_hive_event(row(1))
    new, effects = lab.ask(wait=60)
    assert answers(effects) == [(old, "w")]
    assert answers(lab.passes(RESERVED_SECONDS)) == [(new, "w")]


def test_a_slot_that_is_given_from_memory_is_reserved() -> None:
    lab = Lab(row(1))
    lab.ask()
    _, effects = lab.ask(wait=60)
    assert answers(effects) == []
    assert words(effects) == ["Waiting for a slot, next in line (at most 60 s)"]


# The hive.


def test_a_hive_is_started_once_for_all_who_need_it() -> None:
    lab = Lab(is_live=False)
    first, effects = lab.ask(COLD)
    assert effects == [EnsureHive(first)]
    second, effects = lab.ask(WARM)
    third = hive_request()
    assert effects == lab.does("on_hive_request", third) == []
    assert lab.does("on_hive_progress", SENTENCE) == [ReportProgress(one, SENTENCE) for one in (first, second, third)]
    effects = lab.does("on_hive_up", URL)
    assert effects == [AnswerHive(third, URL), ListWorkers(URL, [first, second])]
    effects = lab.does("on_workers_listed", [first, second], URL, [row()])
    assert StartWorker(URL, first) in effects
    assert answers(effects) == [(second, "w")]


def test_why_a_hive_does_not_start_is_the_answer_to_all_and_the_next_request_tries_again() -> None:
    lab = Lab(is_live=False)
    first, _ = lab.ask()
    second = hive_request()
    lab.does("on_hive_request", second)
    effects = lab.does("on_hive_failed", SshFailedError("no route"))
    assert answers(effects) == [(first, SshFailedError), (second, SshFailedError)]
    third, effects = lab.ask()
    assert effects == [EnsureHive(third)]


def test_a_hive_that_somebody_else_starts_is_waited_for_by_all() -> None:
    lab = Lab(is_live=False)
    first, _ = lab.ask()
    effects = lab.does("on_hive_failed", AlreadyRunningError("one runs"))
    assert words(effects) == ["A hive starts or ends there already; waiting for it"]
    second, effects = lab.ask()
    assert effects == []
    assert lab.passes(0.1) == [EnsureHive(first)]
    effects = lab.does("on_hive_failed", AlreadyRunningError("one runs"))
    assert [effect.request for effect in effects if isinstance(effect, ReportProgress)] == [second], "once to each"
    assert lab.passes(0.19) == []
    assert lab.passes(0.02) == [EnsureHive(first)]
    assert lab.does("on_hive_up", URL) == [ListWorkers(URL, [first, second])]


def test_each_waits_as_long_for_a_hive_that_somebody_else_starts() -> None:
    lab = Lab(is_live=False)
    first, _ = lab.ask()
    lab.passes(SUCCESSION_SECONDS / 2)
    second, _ = lab.ask()
    lab.passes(SUCCESSION_SECONDS / 2)
    assert answers(lab.does("on_hive_failed", AlreadyRunningError("one runs"))) == [(first, AlreadyRunningError)]
    assert lab.passes(1) == [EnsureHive(second)]
    lab.passes(SUCCESSION_SECONDS / 2)
    assert answers(lab.does("on_hive_failed", AlreadyRunningError("one runs"))) == [(second, AlreadyRunningError)]
    assert lab.scheduler.due() is None


def test_nobody_looks_for_a_hive_any_more_that_nobody_waits_for() -> None:
    lab = Lab(is_live=False)
    asked, _ = lab.ask()
    lab.does("on_hive_failed", AlreadyRunningError("one runs"))
    lab.does("on_given_up", asked)
    assert lab.passes(10) == []
    assert lab.scheduler.due() is None
    again, effects = lab.ask()
    assert effects == [EnsureHive(again)]


@pytest.mark.parametrize("error", [ConnectionTimeoutError("gone"), DrainingError("the hive is shutting down")])
def test_who_meets_a_hive_that_ends_is_served_by_the_next(error: RbeeError) -> None:
    lab = Lab(is_live=False)
    asked, _ = lab.ask(COLD)
    lab.does("on_hive_up", URL)
    effects = lab.does("on_list_failed", [asked], error)
    assert EnsureHive(asked) in effects, "at once, the first time"
    told = ["The hive is shutting down; the next one takes the request once it has ended"]
    assert words(effects) == (told if isinstance(error, DrainingError) else [])
    lab.does("on_hive_up", URL)
    assert lab.does("on_workers_listed", [asked], URL, []) == [StartWorker(URL, asked)]
    lab.now += 0.1
    assert lab.does("on_started", COLD, error) == []
    assert lab.passes(0.05) == []
    assert lab.passes(0.1) == [EnsureHive(asked)]
    lab.does("on_hive_up", URL)
    effects = lab.does("on_workers_listed", [asked], URL, [row(model="cold")])
    assert answers(effects) == [(asked, "w")]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(ConnectionTimeoutError("gone"), LOST_SECONDS), (DrainingError("it shuts down"), SUCCESSION_SECONDS)],
)
def test_the_next_hive_is_not_waited_for_for_ever(error: RbeeError, seconds: float) -> None:
    lab = Lab(is_live=False)
    asked, _ = lab.ask(COLD)
    lab.does("on_hive_up", URL)
    lab.does("on_list_failed", [asked], error)
    lab.now += seconds
    lab.does("on_hive_up", URL)
    assert answers(lab.does("on_list_failed", [asked], error)) == [(asked, type(error))]


def test_a_hive_that_was_never_there_is_not_waited_for() -> None:
    lab = Lab(is_live=False)
    asked, _ = lab.ask()
    error = ConnectionTimeoutError("no answer")
    assert answers(lab.does("on_hive_failed", error)) == [(asked, ConnectionTimeoutError)]


# The start of a worker.


def test_a_worker_is_started_once_for_all_who_want_it_and_not_for_who_has_left() -> None:
    lab = Lab()
    first, _ = lab.ask(COLD)
    left, _ = lab.ask(COLD)
    second, _ = lab.ask(COLD)
    lab.does("on_given_up", left)
    assert lab.does("on_hive_up", URL) == [StartWorker(URL, first)]
    third, effects = lab.ask(COLD)
    assert effects == []
    assert answers(lab.does("on_started", COLD, REPLY)) == [(one, "new") for one in (first, second, third)]


def test_who_comes_while_an_unwanted_download_ends_has_it_started_anew() -> None:
    lab = Lab()
    first, _ = lab.ask(COLD)
    lab.does("on_hive_up", URL)
    lab.does("on_start_progress", COLD, STEP)
    assert lab.does("on_given_up", first) == [CancelStart(COLD)]
    second, effects = lab.ask(COLD)
    assert effects == [ReportProgress(second, STEP)]
    assert lab.does("on_started", COLD, CancelledError("nobody waits")) == [EnsureHive(second)]
    assert lab.does("on_hive_up", URL) == [StartWorker(URL, second)]


def test_who_would_wait_for_a_slot_is_not_sent_to_a_new_worker_past_others() -> None:
    lab = Lab()
    asked, _ = lab.ask(COLD, wait=60)
    lab.does("on_hive_up", URL)
    assert lab.does("on_started", COLD, REPLY) == [EnsureHive(asked)]
    assert lab.does("on_hive_up", URL) == [ListWorkers(URL, [asked])], "the mirror may be late"
    rows = [row(model="cold", worker_id="new", total=1)]
    assert answers(lab.does("on_workers_listed", [asked], URL, rows)) == [(asked, "new")]


def test_a_worker_alone_that_is_told_to_end_leaves_no_successor() -> None:
    lab = Lab()
    asked, _ = lab.ask(COLD)
    lab.does("on_hive_up", URL)
    error = WorkerDrainingError("the worker was told to end before it was ready", worker_id="w")
    effects = lab.does("on_started", COLD, error)
    assert answers(effects) == [(asked, type(error))]
    assert error.details["node"] == "attic"


# Waiting.


def test_the_wait_for_a_slot_ends_in_time_and_the_line_is_bounded() -> None:
    lab = Lab(row(2), max_waiting=1)
    first, _ = lab.ask(wait=7)
    second, effects = lab.ask(wait=7)
    assert answers(effects) == [(second, LineFullError)]
    assert lab.scheduler.due() == 107
    assert lab.passes(6.9) == []
    (effect,) = lab.passes(0.1)
    assert isinstance(effect, AnswerPlace)
    assert (effect.request, str(effect.result)) == (first, "no slot got free within the 7 s that the request waited")
    assert lab.scheduler.due() is None


def test_the_wait_goes_on_where_the_hive_is_lost() -> None:
    lab = Lab(row(2))
    asked, _ = lab.ask(wait=7)
    assert lab.lose() == [EnsureHive(asked)]
    lab.does("on_hive_up", URL)
    effects = lab.does("on_workers_listed", [asked], URL, [row(2)])
    assert words(effects) == ["Waiting for a slot, next in line (at most 7 s)"]
    lab.now += 3
    assert lab.show(row(2)) == []
    assert answers(lab.passes(4)) == [(asked, AllSlotsBusyError)], "7 s after it began"


def test_while_a_hive_is_started_for_those_who_wait_no_time_runs_out() -> None:
    lab = Lab(row(2))
    asked, _ = lab.ask(wait=7)
    lab.lose()
    assert lab.passes(100) == []
    lab.does("on_hive_up", URL)
    assert answers(lab.does("on_workers_listed", [asked], URL, [row(1)])) == [(asked, "w")]


def test_those_whose_workers_have_gone_ask_with_pauses() -> None:
    lab = Lab(row(2))
    asked, _ = lab.ask(wait=600)
    effects, asks = lab.show(), 0
    for _ in range(1000):
        if effects == [EnsureHive(asked)]:
            asks += 1
            assert lab.does("on_hive_up", URL) == [ListWorkers(URL, [asked])]
            lab.does("on_workers_listed", [asked], URL, [row(2)])  # its events are late
        else:
            assert effects == []
        effects = lab.passes(0.01)
    assert 5 <= asks <= 20


# The end.


def test_everybody_is_told_when_the_queen_ends_wherever_they_wait() -> None:
    lab = Lab(row(2))
    in_line, _ = lab.ask(wait=60)
    starting, _ = lab.ask(COLD)
    lab.does("on_hive_up", URL)
    other = hive_request()
    lab.does("on_hive_request", other)
    paused, _ = lab.ask(Wanted("third", None, None))
    lab.does("on_hive_up", URL)
    lab.does("on_started", Wanted("third", None, None), ConnectionTimeoutError("gone"))
    given_up, _ = lab.ask(COLD)
    lab.does("on_given_up", given_up)
    lab.does("on_hive_up", URL)
    effects = lab.scheduler.on_stop(lab.now)
    assert {found for found, _ in answers(effects)} == {in_line, starting, paused}
    assert {kind for _, kind in answers(effects)} == {DrainingError}
    assert lab.scheduler.on_stop(lab.now) == []


def test_nobody_who_has_left_is_answered_whatever_comes_of_what_was_done_for_them() -> None:
    lab = Lab(is_live=False)
    asked, _ = lab.ask(COLD, wait=5)
    lab.does("on_hive_up", URL)
    lab.does("on_given_up", asked)
    assert lab.does("on_workers_listed", [asked], URL, []) == []
    assert lab.does("on_list_failed", [asked], DrainingError("it ends")) == []
    assert lab.scheduler.due() is None
