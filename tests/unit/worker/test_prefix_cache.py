"""Requests that use what others have computed, over a back-end in which a wrong token shows at once."""

from __future__ import annotations

import random

import pytest
import trio

from rbee.errors import AllSlotsBusyError, CancelledError, RbeeError
from rbee.worker.engine.common_prefix import common, packed
from tests.kit.engine_bench import Bench, read, running
from tests.kit.markov import HistoryBackend, history_next
from tests.kit.prefix_dict import PrefixDict

VOCABULARY = HistoryBackend().vocabulary
BLOCK = 16


def text_of(prompt: str, limit: int) -> str:
    """Return what follows a prompt."""
    tokens, text = VOCABULARY.tokenize(prompt), ""
    while len(text) < limit and not VOCABULARY.is_end(token := history_next(tokens)):
        tokens.append(token)
        text += VOCABULARY.piece(token).decode()
    return text


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 1000])
def test_what_two_prompts_have_in_common_is_counted(length: int) -> None:
    one = list(range(length))
    assert common(packed([*one, 5001, 7]), packed([*one, 5002, 7])) == length
    assert common(packed(one), packed([*one, 5])) == length
    assert common(packed(one), packed(one)) == length


async def answered(bench: Bench, prompt: str, limit: int = 5, **options: object) -> int:
    """Run a job, whose text must be right; returns how many tokens of its prompt were known."""
    text, ended = await read(bench.start(prompt, limit, **options))  # type: ignore[arg-type]
    assert text == text_of(prompt, limit)
    return ended.cached


STORY = "Onceuponatimetherewasabeethatlivedinahiveonahill" * 4


async def test_a_prompt_is_computed_once() -> None:
    bench = Bench(HistoryBackend(spare=4))
    async with running(bench):
        assert await answered(bench, STORY) == 0
        computed = bench.backend.computed
        assert await answered(bench, STORY) == len(STORY)  # of one token more, the begin token
        assert bench.backend.computed - computed < 10
        assert await answered(bench, STORY + text_of(STORY, 5) + "andthen") >= len(STORY) + 5
        assert await answered(bench, STORY[:50] + "x") == 51
        assert await answered(bench, "x" + STORY) == 0


async def test_a_request_waits_for_another_that_computes_its_beginning() -> None:
    bench = Bench(HistoryBackend(spare=4, batch=16))
    cached: list[int] = []

    async def one(number: int) -> None:
        cached.append(await answered(bench, f"{STORY}{number}"))

    async with running(bench) as nursery:
        for number in range(3):
            nursery.start_soon(one, number)
    assert sorted(cached) == [0, len(STORY) + 1, len(STORY) + 1]


async def test_who_is_waited_for_may_be_cancelled() -> None:
    bench = Bench(HistoryBackend(spare=4, batch=16))

    async def one(number: int) -> None:
        assert await answered(bench, f"{STORY}{number}") >= 0

    async with running(bench) as nursery:
        first = bench.start(STORY, 5)
        nursery.start_soon(one, 1)
        nursery.start_soon(one, 2)
        await first.cancel()


async def test_what_one_key_has_computed_is_not_used_for_another() -> None:
    bench = Bench(HistoryBackend(spare=4))
    async with running(bench):
        assert await answered(bench, STORY, salt=b"one") == 0
        assert await answered(bench, STORY, salt=b"two") == 0
        assert await answered(bench, STORY) == 0
        assert await answered(bench, STORY, salt=b"two") == len(STORY)


async def test_a_request_may_go_without() -> None:
    bench = Bench(HistoryBackend(spare=4))
    async with running(bench):
        assert await answered(bench, STORY, uses_cache=False) == 0
        assert await answered(bench, STORY) == 0
        assert await answered(bench, STORY, uses_cache=False) == 0


async def test_a_prompt_that_is_scored_is_computed_where_it_is() -> None:
    bench = Bench(HistoryBackend(spare=4))
    async with running(bench):
        await answered(bench, STORY)
        assert await answered(bench, STORY, scored=True) == 0


async def test_a_request_with_a_seed_takes_whole_steps_alone() -> None:
    """Those were computed as it would compute them, so that its text is the same to the last bit."""
    bench = Bench(HistoryBackend(spare=4, batch=64))
    async with running(bench):
        assert await answered(bench, STORY, seed=1) == 0
        assert await answered(bench, STORY, seed=1) == 64 * (len(STORY) // 64)
        # These were computed in another way, beside another request.
        await answered(bench, STORY[:100])
        assert await answered(bench, STORY[:100] + "y" * 100, seed=1) == 64


async def test_what_is_kept_gives_way_to_requests() -> None:
    bench = Bench(HistoryBackend(spare=4, room=300))
    async with running(bench):
        for number in range(8):
            assert await answered(bench, f"{number}" + STORY) == 0


async def test_the_copy_that_was_used_least_recently_goes_first() -> None:
    bench = Bench(HistoryBackend(spare=2))
    async with running(bench):
        for name in "abacab":
            await answered(bench, name + STORY)
        assert await answered(bench, "b" + STORY) == len(STORY) + 1
        assert await answered(bench, "c" + STORY) == 0


@pytest.mark.parametrize("can_cut", [True, False])
async def test_what_has_left_the_memory_comes_from_the_store(*, can_cut: bool) -> None:
    store = PrefixDict(BLOCK if can_cut else None)
    for turn in range(2):
        bench = Bench(HistoryBackend(spare=2 if can_cut else 0, can_cut=can_cut), store)
        async with running(bench):
            known = await answered(bench, STORY + "!")
            assert (known > len(STORY) - BLOCK) == (turn > 0)
            while bench.engine.stepper.prefixes.has_unsaved:  # noqa: ASYNC110 (of the engine's thread)
                await trio.sleep(0.001)


async def store_of_story() -> PrefixDict:
    """Return a store that has all whole blocks of the story."""
    store = PrefixDict(BLOCK)
    bench = Bench(HistoryBackend(spare=2), store)
    async with running(bench):
        await answered(bench, STORY)
        while bench.engine.stepper.prefixes.has_unsaved:  # noqa: ASYNC110 (of the engine's thread)
            await trio.sleep(0.001)
    return store


async def test_what_the_store_has_is_restored_once_for_those_that_come_together() -> None:
    store = await store_of_story()
    bench = Bench(HistoryBackend(spare=4), store)
    cached: list[int] = []

    async def one(number: int) -> None:
        cached.append(await answered(bench, f"{STORY}{number}"))

    async with running(bench) as nursery:
        for number in range(3):
            nursery.start_soon(one, number)
    blocks = (len(STORY) + 1) // BLOCK
    assert bench.backend.restores == blocks
    assert sorted(cached) == [blocks * BLOCK, len(STORY) + 1, len(STORY) + 1]


async def test_nobody_waits_for_one_that_is_scored_and_read_in_small_steps() -> None:
    bench = Bench(HistoryBackend(spare=4, batch=64))
    async with running(bench):
        jobs = [bench.start(STORY, 5, scored=scored) for scored in (True, False)]
        known = [(await read(job))[1].cached for job in jobs]
    assert known[0] == 0
    assert known[1] < len(STORY) // 2


async def test_what_cannot_be_put_back_is_computed() -> None:
    store = await store_of_story()
    bench = Bench(HistoryBackend(spare=2), store)

    def fail(*_: object) -> None:
        raise MemoryError

    bench.backend.restore = fail  # type: ignore[method-assign,assignment]
    async with running(bench):
        assert await answered(bench, STORY) == 0


async def test_a_model_that_cannot_be_cut_is_saved_where_prompts_part() -> None:
    bench = Bench(HistoryBackend(can_cut=False), PrefixDict(None))
    async with running(bench):
        assert await answered(bench, STORY + "?" * 60) == 0
        assert await answered(bench, STORY + "." * 60) == 0  # it only becomes clear here that they part
        assert await answered(bench, STORY + ":" * 60) == len(STORY) + 1


async def test_what_the_store_lost_is_computed() -> None:
    store = PrefixDict(BLOCK)
    bench = Bench(HistoryBackend(spare=2), store)
    async with running(bench):
        await answered(bench, STORY)
    store.lose_from = 64
    bench = Bench(HistoryBackend(spare=2), store)
    async with running(bench):
        assert await answered(bench, STORY) == 64


@pytest.mark.parametrize("number", range(6))
async def test_no_token_is_ever_wrong(number: int, pytestconfig: pytest.Config) -> None:
    """Trees of prompts, with forks, cancels, evictions, crashes and restores, in a memory with too little room."""
    chance = random.Random(number)
    can_cut = number % 3 != 2
    store = PrefixDict(BLOCK if can_cut else None) if number % 2 else None
    known = ["M"]
    count = 0

    async def one(bench: Bench) -> None:
        nonlocal count
        limit, how = chance.randint(1, 40), chance.choice(["read"] * 6 + ["cancel", "leave", "silent"])
        salt, uses_cache = chance.choice([b"", b"", b"other"]), chance.random() < 0.9
        while True:
            base = chance.choice(known)
            prompt = base[: chance.randint(len(base) // 2, len(base))][:290]
            prompt += "".join(chance.choices("abcXYZ", k=chance.randint(1, 40)))
            try:
                seed = chance.choice([None, None, 1])
                job = bench.start(prompt, limit, salt=salt, uses_cache=uses_cache, seed=seed)
                break
            except AllSlotsBusyError:
                await bench.status.changed.wait()
        expected = text_of(prompt, limit)
        with trio.CancelScope() as leaving:
            async with trio.open_nursery() as nursery:

                async def disturb() -> None:
                    await trio.sleep(chance.random() * 0.01)
                    if how == "cancel":
                        await job.cancel()
                    elif how == "leave":
                        leaving.cancel()
                    elif how == "silent":
                        bench.slots.set_silent(job, True)
                        await trio.sleep(chance.random() * 0.01)
                        bench.slots.set_silent(job, False)

                if how != "read":
                    nursery.start_soon(disturb)
                text, ended = await read(job)
                nursery.cancel_scope.cancel()
            count += len(text)
            if isinstance(ended.outcome, RbeeError):
                assert isinstance(ended.outcome, CancelledError)
                assert expected.startswith(text)
            else:
                assert text == expected
            known.append(prompt + text)
            del known[:-40]

    while count < (20_000 if pytestconfig.getoption("full") else 1_000):
        room = chance.choice([380, 700, 5000])
        backend = HistoryBackend(room=room, batch=32, can_cut=can_cut, spare=8 * can_cut, length=370)
        bench = Bench(backend, store)
        async with running(bench) as nursery:
            for _ in range(60):
                nursery.start_soon(one, bench)


class _Refusing(HistoryBackend):
    """Fails in a copy, as a library may."""

    def copy(self, source: int, target: int, length: int) -> bool:
        return False


async def test_where_no_copy_can_be_had_all_is_computed() -> None:
    bench = Bench(_Refusing(spare=2))
    async with running(bench):
        assert await answered(bench, STORY) == 0
        assert await answered(bench, STORY) == 0


async def test_a_failed_request_leaves_nothing_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(HistoryBackend(spare=2))
    piece = type(bench.backend.vocabulary).piece

    def failing(self: object, token: int, **options: bool) -> bytes:
        raise ValueError("on purpose")

    async with running(bench):
        monkeypatch.setattr(type(bench.backend.vocabulary), "piece", failing)
        _, ended = await read(bench.start(STORY, 5))
        assert isinstance(ended.outcome, RbeeError)
        monkeypatch.setattr(type(bench.backend.vocabulary), "piece", piece)
        assert await answered(bench, STORY) == 0
