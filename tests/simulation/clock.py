"""Runs a simulation on a clock that jumps, in the same way each time for the same seed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio
import trio.testing
from trio._core import _run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


def run(seed: int, main: Callable[[], Awaitable[None]], *instruments: trio.abc.Instrument) -> None:
    """Run `main` until it returns; no time passes but what it sleeps."""
    with _seeded(seed):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0), instruments=instruments)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Have trio order the tasks that are ready at the same time by `seed`.

    It shuffles them on purpose, so that nobody relies on an order, and has a switch, made for Hypothesis, by which the
    shuffle depends on its random generator alone. There is no public name for either. We want both halves: another
    order with each seed, and the same one when a seed is run again.
    """
    switch, state = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r.getstate()
    _run._ALLOW_DETERMINISTIC_SCHEDULING = True
    _run._r.seed(seed)
    try:
        yield
    finally:
        _run._ALLOW_DETERMINISTIC_SCHEDULING = switch
        _run._r.setstate(state)
