"""The number of compute threads follows what the machine has to give."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rbee.worker.engine.thread_count import (
    LONGEST_TRIAL_SECONDS,
    PROMPT_SECONDS,
    TRIAL_SECONDS,
    WINDOW_STEPS,
    ThreadCount,
)

STEP = 0.01


def run(count: ThreadCount, seconds: float, *, processors: float, displaced: float = 10.0) -> float:
    """Compute for a while on a machine with so many processors to itself; returns the steps taken.

    A step takes STEP divided by the threads where each has a processor, and `displaced` times as long where not.
    """
    now, steps = 0.0, 0
    while now < seconds:
        fits = count.threads <= processors
        wall = STEP / count.threads * (1 if fits else displaced)
        count.observe(wall, wall * min(count.threads, processors))
        now, steps = now + wall, steps + 1
    return steps


def test_an_idle_machine_keeps_all_threads() -> None:
    count = ThreadCount(8)
    run(count, 60, processors=8)
    assert count.threads == 8


def test_displaced_threads_shrink_to_what_fits() -> None:
    count = ThreadCount(8)
    run(count, 5, processors=5)
    assert count.threads == 5


def test_it_takes_ten_steps_at_most() -> None:
    count = ThreadCount(2)
    for _ in range(WINDOW_STEPS):
        count.observe(STEP, STEP)
    assert WINDOW_STEPS <= 10
    assert count.threads == 1


def test_one_time_slice_of_another_program_takes_no_thread() -> None:
    count = ThreadCount(2)
    count.observe(3 * STEP, 4 * STEP)
    for _ in range(WINDOW_STEPS):
        count.observe(STEP, 2 * STEP)
    assert count.threads == 2


def test_prompts_show_that_others_have_displaced_threads() -> None:
    count = ThreadCount(4)
    count.observe_prompt(PROMPT_SECONDS, 4 * PROMPT_SECONDS)
    assert count.threads == 4
    count.observe_prompt(PROMPT_SECONDS / 2, PROMPT_SECONDS)
    assert count.threads == 4, "so short a time says nothing"
    count.observe_prompt(PROMPT_SECONDS / 2, PROMPT_SECONDS)
    assert count.threads == 2


def test_one_thread_never_becomes_none() -> None:
    count = ThreadCount(1)
    run(count, 5, processors=0.3)
    assert count.threads == 1


def test_it_grows_again_when_the_machine_is_free() -> None:
    count = ThreadCount(4)
    run(count, 5, processors=1)
    assert count.threads == 1
    run(count, 1.5 * LONGEST_TRIAL_SECONDS, processors=4)
    assert count.threads == 4


def test_trials_on_a_busy_machine_cost_little() -> None:
    busy, alone = ThreadCount(2), ThreadCount(1)
    assert run(busy, 300, processors=1.4) > 0.95 * run(alone, 300, processors=1)


def test_a_trial_that_is_no_faster_ends_where_it_began() -> None:
    count = ThreadCount(2)
    run(count, 1, processors=1)
    run(count, TRIAL_SECONDS + 1, processors=1)
    assert count.threads == 1
    assert "trial" not in repr(count)


@given(st.integers(1, 64), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 70)), max_size=300))
def test_it_stays_within_its_bounds(most: int, steps: list[tuple[float, float]]) -> None:
    count = ThreadCount(most)
    for wall, cpu in steps:
        count.observe(wall + 1e-6, cpu)
        assert 1 <= count.threads <= most
