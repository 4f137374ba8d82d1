"""Chooses the number of compute threads from the processors and the size of the model."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

from rbee.adapters.hardware import cgroups

BYTES_PER_THREAD: Final = 32_000_000
"""Weights that are worth one more thread.

Threads meet at a barrier after each operation, some hundred times a token, and spin there. With less to do between two
barriers a second thread gains nothing on an idle machine; and on a busy one, all that wait for a thread that another
program displaced spin for milliseconds: a model of 6 MB then wrote 2 tokens a second instead of hundreds.
"""


def compute_threads(weights: int) -> int:
    """Return how many threads a model of `weights` bytes is worth, at most one for each core that this process may use.

    Two threads on one core wait for the same arithmetic units, and threads beyond a container's share are stopped in
    the middle of a step while the others spin.
    """
    allowed = os.sched_getaffinity(0)
    cores = len({_siblings(processor) for processor in allowed})
    return max(1, min(cores, cgroups.processors() or cores, math.ceil(weights / BYTES_PER_THREAD)))


def at_most(threads: int) -> int:
    """Return `threads`, or the number of processors that this process may use where that is less.

    Threads without a processor keep those that have one waiting at each barrier: a thousand of them on two processors
    never finish a step.
    """
    available = len(os.sched_getaffinity(0))
    return min(threads, available, cgroups.processors() or available)


def _siblings(processor: int) -> str:
    """Return a name for the core that a processor belongs to."""
    path = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return str(processor)
