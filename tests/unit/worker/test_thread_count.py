"""The number of compute threads follows what the machine has to give."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rbee.worker.engine.thread_count import TRIAL_SECONDS, Crew

STEP = 0.01


def run(crew: Crew, seconds: float, *, processors: float, displaced: float = 10.0) -> float:
    """Compute for a while on a machine with so many processors to itself; returns the steps taken.

    A step takes STEP divided by the threads where each has a processor, and `displaced` times as long where not.
    """
    now, steps = 0.0, 0
    while now < seconds:
        fits = crew.threads <= processors
        wall = STEP / crew.threads * (1 if fits else displaced)
        crew.observe(wall, wall * min(crew.threads, processors))
        now, steps = now + wall, steps + 1
    return steps


def test_an_idle_machine_keeps_all_threads() -> None:
    crew = Crew(8)
    run(crew, 60, processors=8)
    assert crew.threads == 8


def test_a_displaced_crew_shrinks_to_what_fits() -> None:
    crew = Crew(8)
    run(crew, 5, processors=5)
    assert crew.threads == 5


def test_one_thread_never_becomes_none() -> None:
    crew = Crew(1)
    run(crew, 5, processors=0.3)
    assert crew.threads == 1


def test_it_grows_again_when_the_machine_is_free() -> None:
    crew = Crew(4)
    run(crew, 5, processors=1)
    assert crew.threads == 1
    run(crew, 3 * TRIAL_SECONDS, processors=4)
    assert crew.threads == 4


def test_trials_on_a_busy_machine_cost_little() -> None:
    busy, alone = Crew(2), Crew(1)
    assert run(busy, 300, processors=1.4) > 0.95 * run(alone, 300, processors=1)


def test_a_trial_that_is_no_faster_ends_where_it_began() -> None:
    crew = Crew(2)
    run(crew, 1, processors=1)
    run(crew, TRIAL_SECONDS + 1, processors=1)
    assert crew.threads == 1
    assert "trial" not in repr(crew)


@given(st.integers(1, 64), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 70)), max_size=300))
def test_it_stays_within_its_bounds(most: int, steps: list[tuple[float, float]]) -> None:
    crew = Crew(most)
    for wall, cpu in steps:
        crew.observe(wall + 1e-6, cpu)
        assert 1 <= crew.threads <= most
