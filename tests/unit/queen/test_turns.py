"""Whose turn it is: slots go round callers, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from rbee.queen.scheduling.choose_worker import Wanted
from rbee.queen.scheduling.place_request import PlaceRequest
from rbee.queen.scheduling.turns import MAX_REMEMBERED, OVERDUE_SECONDS, PREFIX_SECONDS, CallerTurns

WAIT = 600.0


def request(caller: str, since: float = 0.0, model: str = "m", *, is_batch: bool = False) -> PlaceRequest:
    wanted = Wanted(model, None, None)
    found = PlaceRequest(wanted, WAIT, lambda _: None, lambda _: None, caller=caller, is_batch=is_batch)
    found.waits_until = since + WAIT
    return found


class Lab:
    """A line, at a time of the test's own."""

    def __init__(self) -> None:
        self.turns = CallerTurns()
        self.line: list[PlaceRequest] = []
        self.now = 0.0

    def come(self, caller: str, count: int = 1, model: str = "m", *, is_batch: bool = False) -> None:
        self.line += [request(caller, self.now, model, is_batch=is_batch) for _ in range(count)]

    def callers(self) -> str:
        return "".join(one.caller for one in self.turns.order(self.line, self.now))

    def give(self, count: int = 1) -> str:
        """Give so many slots, one after the other; returns to whom."""
        found = ""
        for _ in range(count):
            first = self.turns.order(self.line, self.now)[0]
            self.line.remove(first)
            self.turns.note(first, self.now)
            found += first.caller
        return found


def test_one_caller_alone_is_served_in_the_order_in_which_it_came() -> None:
    turns = CallerTurns()
    first, second, third = (request("a", since) for since in (1.0, 2.0, 3.0))
    assert turns.order([third, first, second], 4) == [first, second, third]


def test_of_one_caller_those_go_first_of_which_workers_have_read_most() -> None:
    turns = CallerTurns()
    first, second, third = (request("a", since) for since in (1.0, 2.0, 3.0))
    second.known, third.known = 500, 4000
    assert turns.order([first, second, third], 4) == [third, second, first]


def test_one_of_which_nothing_was_read_waits_ten_seconds_more_at_most() -> None:
    turns = CallerTurns()
    first, second, third = (request("a", since) for since in (1.0, 2.0, 8.0))
    third.known = 4000
    assert turns.order([first, second, third], 1 + PREFIX_SECONDS) == [first, third, second]


def test_what_was_read_of_ones_prompt_takes_nobody_elses_turn() -> None:
    turns = CallerTurns()
    mine, other = request("a", 1), request("b", 2)
    other.known = 4000
    assert turns.order([mine, other], 3) == [mine, other]


def test_a_caller_with_one_request_is_next_however_many_another_has() -> None:
    lab = Lab()
    lab.come("a", 50)
    lab.give(10)
    lab.come("b")
    assert lab.callers()[:3] == "baa"
    assert lab.give(2) == "ba"


def test_slots_go_round_the_callers_that_wait() -> None:
    lab = Lab()
    lab.come("a", 5)
    lab.come("b", 3)
    lab.come("c", 1)
    assert lab.callers() == "abcababaa"
    assert lab.give(9) == "abcababaa"


def test_one_that_comes_again_and_again_gets_every_second_turn() -> None:
    lab = Lab()
    lab.come("a", 6)
    found = ""
    for _ in range(6):
        lab.come("b")
        found += lab.give()
    assert found == "ababab"


def test_turns_for_another_model_do_not_count() -> None:
    lab = Lab()
    lab.come("a", 3, model="other")
    lab.give(3)
    lab.come("a")
    lab.come("b")
    assert lab.callers() == "ab"


def test_those_that_have_just_come_do_not_go_first_for_ever() -> None:
    lab = Lab()
    lab.come("a", 2)
    lab.give()
    given = ""
    while lab.now < OVERDUE_SECONDS + 2:
        lab.come(chr(200 + int(lab.now)))  # somebody new each second
        given += lab.give()
        lab.now += 1
    assert given.index("a") == OVERDUE_SECONDS
    assert "a" not in given[int(OVERDUE_SECONDS) + 1 :]


def test_what_nobody_waits_for_lets_all_others_go_first_until_it_is_overdue() -> None:
    lab = Lab()
    lab.come("b", 3, is_batch=True)
    lab.come("c", 1, is_batch=True)
    lab.now = 1
    lab.come("a", 2)
    lab.come("c")
    assert lab.callers() == "acabcbb"
    lab.now = OVERDUE_SECONDS
    assert lab.callers() == "bcacabb", "one of each caller is overdue"
    assert lab.give(2) == "bc"
    assert lab.callers() == "acabb"


def test_one_that_was_placed_in_vain_has_its_place_again() -> None:
    lab = Lab()
    lab.come("a", 2)
    lab.now = 5
    again = request("a", lab.now)
    again.since = -1.0
    lab.line.append(again)
    assert lab.turns.order(lab.line, lab.now)[0] is again


def test_what_is_remembered_is_bounded() -> None:
    turns = CallerTurns()
    for number in range(2 * MAX_REMEMBERED):
        turns.note(request(str(number)), 0)
    assert len(turns._last) == MAX_REMEMBERED


class Came(NamedTuple):
    caller: str
    count: int


@given(
    st.lists(
        st.one_of(st.builds(Came, st.sampled_from("abcd"), st.integers(1, 8)), st.integers(1, 5), st.floats(0.1, 90.0)),
        max_size=40,
    )
)
def test_the_place_that_is_told_is_right_and_nobody_gets_two_turns_before_another(
    steps: list[Came | int | float],
) -> None:
    """Unless somebody comes, or gets overdue meanwhile, those go first who are said to go first."""
    lab = Lab()
    for step in steps:
        if isinstance(step, Came):
            lab.come(step.caller, step.count)
        elif isinstance(step, int):
            told, waiting = lab.callers(), {one.caller for one in lab.line}
            given = lab.give(min(step, len(lab.line)))
            assert told.startswith(given)
            for caller in waiting:
                others = Counter(given[: given.index(caller)] if caller in given else given)
                assert all(turns == 1 for turns in others.values()), "each other caller has one turn before it"
        else:
            lab.now += step
