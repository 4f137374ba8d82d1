"""Which waiting request gets which slot, and that no slot is given twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from rbee.queen.hives.mirror import HiveMirror
from rbee.queen.scheduling.choose_worker import Wanted
from rbee.queen.scheduling.reservations import RESERVED_SECONDS, Reservations
from rbee.queen.scheduling.slot_queue import UNKNOWN_PACE, SlotQueue, Turn
from rbee.wire.hive import WorkerGone, WorkerList, WorkerRow

if TYPE_CHECKING:
    from rbee.wire.hive import HiveEvent

REF = "builtin:bee-stories"
ANY = Wanted(REF, None, None)


class Waiter(NamedTuple):
    name: str
    wanted: Wanted = ANY
    caller: str = "local"
    is_batch: bool = False
    waits_since: float = 0.0
    prompt: None = None
    known: int = 0


def row(state: str = "idle", busy: int = 0, total: int = 2, **changed: Any) -> WorkerRow:
    values: dict[str, Any] = {
        "id": "w",
        "url": "http://127.0.0.1:8001",
        "model_ref": REF,
        "backend": "cpu",
        "device": 0,
        "state": state,
        "slots_total": total,
        "slots_available": total - busy if state in ("idle", "busy") else 0,
        "pid": 1,
    }
    return WorkerRow(**(values | changed))


class Queue(SlotQueue):
    """A queue with the mirror that it looks at."""

    def __init__(self, limit: int) -> None:
        self.mirror = HiveMirror()
        super().__init__(limit, self.mirror)

    def see(self, event: HiveEvent | None, now: float) -> None:
        """Show an event of the hive; nobody waits whose turn could come with it."""
        waiters, self.waiters = self.waiters, []
        self.mirror.on_hive_event(event)
        assert self.turns(now) == []
        self.waiters = waiters


def waiting(*names: str, limit: int = 10) -> Queue:
    queue = Queue(limit)
    queue.waiters += [Waiter(name) for name in names]
    return queue


def turns(queue: Queue, now: float, *rows: WorkerRow) -> list[Turn]:
    """Show the queue that these are the workers there are, and return whose turn it is."""
    queue.see(WorkerList(workers=list(rows)), now)
    return queue.turns(now)


def test_a_slot_goes_to_who_waits_longest() -> None:
    queue = waiting("a", "b", "c")
    assert turns(queue, 0, row("busy", 2)) == []
    one = row("busy", 1)
    assert turns(queue, 0, one) == [Turn(Waiter("a"), one)]
    assert [waiter.name for waiter in queue.waiters] == ["b", "c"]


def test_a_slot_is_not_given_twice_before_it_is_seen_to_be_taken() -> None:
    queue = waiting("a", "b")
    one = row("busy", 1)
    assert len(turns(queue, 0, one)) == 1
    assert turns(queue, RESERVED_SECONDS / 2, one) == []


def test_what_was_reserved_of_a_worker_is_void_once_it_is_known_to_be_gone() -> None:
    reservations = Reservations()
    here, gone = row("loading"), row("loading", id="gone")
    reservations.make(here, 0)
    reservations.make(gone, 0)
    reservations.update({"w": here}, 0)
    assert (reservations.free(here, 0), reservations.free(gone, 0)) == (1, 2)


def test_a_request_is_awaited_until_its_slot_is_seen_taken_or_it_has_ended() -> None:
    reservations = Reservations()
    reservations.make(row(), 0, finished=3)
    reservations.make(row(), 0, finished=3)
    assert reservations.awaited({"w": 3}) == reservations.awaited({"w": 4}) == ["w"]
    assert reservations.awaited({"w": 5}) == [], "both were so short that nobody saw them"
    reservations.update({"w": row("busy", 2)}, 0.1)
    assert reservations.awaited({"w": 3}) == []


def test_a_slot_that_was_taken_is_reserved_no_longer() -> None:
    queue = waiting("a", "b", "c")
    free, full = row("busy", 1), row("busy", 2)
    turns(queue, 0, free)
    queue.see(full, 0.1)
    assert [turn.waiter.name for turn in turns(queue, 0.2, free)] == ["b"]


def test_a_reservation_that_is_not_taken_up_lapses() -> None:
    queue = waiting("a", "b")
    one = row("busy", 1)
    turns(queue, 0, one)
    assert queue.reservations.due() == RESERVED_SECONDS
    assert [turn.waiter.name for turn in turns(queue, RESERVED_SECONDS, one)] == ["b"]


def test_the_slots_of_a_worker_that_loads_are_reserved_until_it_has_loaded() -> None:
    queue = waiting("a", "b", "c")
    loading = row("loading")
    assert [turn.waiter.name for turn in turns(queue, 0, loading)] == ["a", "b"]
    assert turns(queue, 1000, loading) == []
    assert queue.reservations.due() is None
    idle = row("idle")
    assert turns(queue, 1000, idle) == []
    assert queue.reservations.due() == 1000 + RESERVED_SECONDS


def test_a_slot_of_a_worker_that_is_named_but_never_shown_is_not_reserved_for_ever() -> None:
    """It may start and end between two events of a stream that is late."""
    queue = waiting()
    queue.see(WorkerList(workers=[]), 0)
    queue.reserve(row("loading", id="never shown"), Waiter("a"), 0)
    assert queue.reservations.due() == RESERVED_SECONDS
    queue.turns(RESERVED_SECONDS)
    assert queue.reservations.due() is None


def test_a_slot_that_was_reserved_before_its_worker_was_shown_stays_reserved_while_that_loads() -> None:
    queue = waiting("a")
    queue.see(WorkerList(workers=[]), 0)
    queue.reserve(row("loading", total=1), Waiter("b"), 0)
    assert turns(queue, RESERVED_SECONDS / 2, row("loading", total=1)) == []
    assert turns(queue, 1000, row("loading", total=1)) == []


def test_who_waits_for_a_worker_that_has_gone_is_placed_anew() -> None:
    queue = waiting("a")
    assert turns(queue, 0, row("draining")) == [Turn(Waiter("a"), None)]
    assert queue.waiters == []


def test_nobody_waits_behind_a_request_for_another_model() -> None:
    queue = waiting()
    queue.waiters += [Waiter("other", Wanted("file:/other.gguf", None, None)), Waiter("a")]
    rows = [row("busy", 2, id="x", model_ref="file:/other.gguf"), row("idle")]
    assert [turn.waiter.name for turn in turns(queue, 0, *rows)] == ["a"]


def test_nobody_is_placed_while_nothing_is_known_of_the_workers() -> None:
    queue = waiting("a")
    assert queue.turns(0) == []
    queue.see(WorkerList(workers=[row()]), 0)
    queue.see(None, 0)
    assert queue.turns(0) == []
    assert turns(queue, 0, row()) == [Turn(Waiter("a"), row())]


def test_a_worker_that_has_gone_gets_no_turn() -> None:
    queue = waiting("a")
    queue.see(WorkerList(workers=[row()]), 0)
    queue.see(WorkerGone(id="w"), 0)
    assert queue.turns(0) == [Turn(Waiter("a"), None)]


def test_the_queue_is_bounded() -> None:
    assert not waiting("a", limit=2).is_full("local")
    assert waiting("a", "b", limit=2).is_full("local")
    assert waiting(limit=0).is_full("local")


def test_one_caller_cannot_take_every_place_in_line() -> None:
    queue = waiting(*map(str, range(10)), limit=10)
    for number in range(5):
        assert queue.is_full("local")
        assert not queue.is_full("other"), "it has less than its half"
        queue.waiters.append(Waiter(f"other {number}", caller="other"))
    assert queue.is_full("other")
    for number in range(100):
        if queue.is_full(f"caller {number}"):
            break
        queue.waiters.append(Waiter("one of many", caller=f"caller {number}"))
    assert len(queue.waiters) == 2 * queue.limit


def test_who_finds_the_line_full_is_told_when_to_ask_again_by_the_pace_of_the_turns() -> None:
    queue = waiting(*map(str, range(60)), limit=60)
    assert queue.retry_after(REF) == UNKNOWN_PACE * 6, "nothing is known of its pace"
    for number in range(20):
        queue.see(row("busy", 2), 2.0 * number)
        (turn,) = turns(queue, 2.0 * number, row("busy", 1))
        queue.waiters.append(turn.waiter)
        queue.reservations.update({}, 2.0 * number)
    assert queue.retry_after(REF) == 2 * 6
    assert queue.retry_after("another") == UNKNOWN_PACE * 6
    queue.waiters.clear()
    assert queue.retry_after(REF) == 2


def test_what_is_gone_is_forgotten() -> None:
    reservations = Reservations()
    reservations.make(row(), 0)
    reservations.update({}, 0)
    assert reservations.free(row(), 0) == 2
    assert reservations.due() is None


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("turns"), st.floats(0, 0.4)),
            st.tuples(st.just("arrive"), st.just(0.0)),
            st.tuples(st.just("end"), st.just(0.0)),
        ),
        max_size=60,
    )
)
def test_no_more_requests_are_sent_than_there_are_slots(steps: list[tuple[str, float]]) -> None:
    """Each request that was sent arrives within the time of a reservation, and is seen at once."""
    queue = waiting(*map(str, range(50)))
    now, on_the_way, busy = 0.0, [], 0
    queue.see(WorkerList(workers=[row("idle", total=3)]), now)

    def show() -> None:
        queue.see(row("busy" if busy else "idle", busy, total=3), now)

    for step, passes in steps:
        now += passes
        while on_the_way and (step == "arrive" or on_the_way[0] + RESERVED_SECONDS <= now + 0.5):
            on_the_way.pop(0)
            busy += 1
            show()
            if step == "arrive":
                break
        if step == "end" and busy:
            busy -= 1
            show()
        on_the_way += [now for _ in queue.turns(now)]
        assert busy + len(on_the_way) <= 3
