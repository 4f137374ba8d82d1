"""A disk that never answers keeps no more than a few threads."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from rbee.adapters.files import silent_disk


async def test_a_disk_that_says_nothing_takes_no_thread_of_the_hive(autojump_clock: trio.testing.MockClock) -> None:
    answers = threading.Event()
    began = trio.current_time()

    async def give_up() -> None:
        with trio.move_on_after(2):
            await silent_disk.look(answers.wait)

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(give_up)
        assert trio.current_time() - began == pytest.approx(2)
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    finally:
        answers.set()
    assert await silent_disk.look(lambda: "it answers again")
