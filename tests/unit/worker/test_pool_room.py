"""Several requests in one pool, each of which may be as long as all of it: who waits, and what is computed anew."""

from __future__ import annotations

import itertools
import threading
from string import ascii_letters

import pytest
import trio

from tests.kit import models
from tests.kit.engine_bench import Bench, read, running
from tests.kit.markov import HistoryBackend, history_next

POOL = 400


class Talk:
    """An engine of four slots, each of which may use all of the pool, and what its requests take at least."""

    def __init__(self) -> None:
        self.backend = HistoryBackend(slots=4, length=POOL, room=POOL, batch=32, spare=8)
        self.bench = Bench(self.backend, guesses=False)
        self.needed = 0
        self._names = map("".join, itertools.product(ascii_letters, repeat=2))

    def prompt(self, length: int, count: int) -> str:
        """Return a prompt that is followed by so many letters; no two begin alike."""
        for name in self._names:
            prompt = name + "x" * (length - 2)
            if len(text_of(prompt, count)) == count:
                self.needed += length + count
                return prompt
        raise AssertionError

    async def ask(self, prompt: str, count: int) -> None:
        assert (await read(self.bench.start(prompt, count)))[0] == text_of(prompt, count)


def text_of(prompt: str, count: int) -> str:
    tokens = [models.BEGIN, *map(models.byte, prompt.encode())]
    text = ""
    while len(text) < count and (token := history_next(tokens)) != models.END:
        tokens.append(token)
        text += chr(token - models.byte(0))
    return text


async def test_long_requests_take_their_turns_and_nothing_is_computed_twice() -> None:
    talk = Talk()
    async with running(talk.bench) as nursery:
        for _ in range(4):
            nursery.start_soon(talk.ask, talk.prompt(250, 60), 60)
    assert talk.backend.computed <= talk.needed + 4


@pytest.mark.parametrize("first", [0, 160])
async def test_beside_many_short_requests_a_long_one_is_served_and_not_read_again_and_again(first: int) -> None:
    """It is read while they come, or waits for the one before it; those that came later make way."""
    talk = Talk()
    ended = []

    async def long(name: str, prompt: str, count: int) -> None:
        await talk.ask(prompt, count)
        ended.append(name)

    async def shorts(prompts: list[str]) -> None:
        for prompt in prompts:
            await long("short", prompt, 20)

    async with running(talk.bench) as nursery:
        if first:
            nursery.start_soon(long, "first", talk.prompt(first, 200), 200)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(long, "long", talk.prompt(250, 60), 60)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            nursery.start_soon(shorts, [talk.prompt(30, 20) for _ in range(30)])
    assert ended.count("short") == 60
    assert ended.index("long") < 50, "it has not waited for all of them"
    # Not once more the 250 tokens of the long one; of the short ones one or two may have been read twice.
    assert talk.backend.computed <= talk.needed + 100


async def test_one_for_which_there_is_no_room_takes_nothing_from_what_is_kept() -> None:
    talk = Talk()
    kept = talk.prompt(60, 10)
    is_reached, is_asked = threading.Event(), threading.Event()

    def before_decode(number: int) -> None:
        if number == 100:  # by now the third would have been read
            is_reached.set()
            assert is_asked.wait(10)

    talk.backend.before_decode = before_decode
    async with running(talk.bench) as nursery:
        await talk.ask(kept, 10)
        nursery.start_soon(talk.ask, talk.prompt(200, 100), 100)
        await trio.testing.wait_all_tasks_blocked()  # trio begins tasks in any order
        nursery.start_soon(talk.ask, talk.prompt(210, 5), 5)
        await trio.to_thread.run_sync(is_reached.wait, 10)
        again = talk.bench.start(kept, 10)
        is_asked.set()
        assert (await read(again))[1].cached >= 60
