"""Compute threads that wait for one that has no processor sleep (build/patch_barrier.py)."""

from __future__ import annotations

import os
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from rbee.worker.engine.backend import BatchPart
from rbee.worker.llama import header
from rbee.worker.llama.context import Context
from rbee.worker.llama.model import Model
from tests.kit.models import make

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKENS = 20


@pytest.fixture
def one_processor() -> Iterator[None]:
    """What computes in here has one processor: while a thread runs, the others have none."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


def processor_seconds(model: Model, threads: int) -> float:
    """Return the processor time of `TOKENS` tokens; that of other programs is not in it."""
    with closing(Context(model, slots=1, length=128, threads=threads)) as context:
        context.decode([BatchPart(0, [5, 6, 7], 0, True)])
        started = time.process_time()
        for number in range(TOKENS):
            context.decode([BatchPart(0, [8], 3 + number, True)])
        return time.process_time() - started


@pytest.mark.usefixtures("one_processor")
def test_threads_that_wait_for_a_displaced_one_leave_it_the_processor(tmp_path: Path) -> None:
    path = make(tmp_path / "m.gguf", random=True, layers=4)
    with closing(Model(path, header.read(path))) as model:
        alone = processor_seconds(model, 1)
        # Sleeping, it takes 3 times as much; spinning through the other's time slices, some thousand times.
        assert processor_seconds(model, 2) < 50 * alone
