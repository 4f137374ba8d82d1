"""Guesses of a text's next tokens, and when they are made."""

from __future__ import annotations

import random

from rbee.worker.engine.draft import LOOKBACK, PLAIN_EVERY, Drafter, Speculation
from tests.kit.engine_bench import Bench, read, running
from tests.kit.markov import MarkovBackend


def drafter_after(tokens: list[int], more: list[int]) -> Drafter:
    drafter = Drafter(tokens)
    for token in more:
        tokens.append(token)
        drafter.saw()
    return drafter


def test_a_text_that_repeats_its_prompt_is_guessed() -> None:
    prompt = list(range(100, 160))
    drafter = drafter_after([*prompt], prompt[:LOOKBACK])
    assert list(drafter.guess(5)) == prompt[LOOKBACK : LOOKBACK + 5]
    drafter = drafter_after([*prompt], prompt[:30])
    assert drafter.rate > 0.9
    assert list(drafter.guess(3)) == prompt[30:33]


def test_after_a_change_it_goes_on_where_the_text_does() -> None:
    prompt = list(range(100, 160))
    drafter = drafter_after([*prompt], [*prompt[:10], 7, *prompt[11 : 11 + LOOKBACK]])
    assert list(drafter.guess(2)) == prompt[11 + LOOKBACK : 13 + LOOKBACK]


def test_what_was_never_there_is_not_guessed() -> None:
    drafter = drafter_after(list(range(50)), list(range(100, 130)))
    assert list(drafter.guess(5)) == []
    assert list(Drafter([1]).guess(5)) == []


def test_a_text_that_goes_on_otherwise_is_guessed_less() -> None:
    chance = random.Random(1)
    drafter = drafter_after([], [chance.randrange(3) for _ in range(600)])
    assert drafter.rate < 0.6


def test_guesses_are_made_where_they_pay() -> None:
    speculation = Speculation()
    assert not speculation.may_guess(1)  # nothing is known of what a step costs
    speculation.observe(1, 0, 0.010)
    assert speculation.may_guess(1)
    assert 3 <= speculation.length(1, 0.95, 7) <= 7
    assert speculation.length(1, 0.3, 7) == 0
    for _ in range(40):
        speculation.observe(1, 7, 0.010 + 7 * 0.010)  # each costs as much as a step
    assert speculation.length(1, 0.95, 7) == 0
    # It was a busy moment, perhaps: after some time it is tried anew.
    for _ in range(400):
        speculation.observe(1, 0, 0.010)
    assert speculation.length(1, 0.95, 7) > 0


def test_with_many_sequences_one_guess_helps_one_of_them() -> None:
    speculation = Speculation()
    for sequences in (1, 8):
        speculation.observe(sequences, 0, 0.010 * sequences**0.5)
    assert speculation.length(1, 0.9, 7) > 0
    assert speculation.length(8, 0.9, 7) == 0


def test_now_and_then_a_step_is_made_without() -> None:
    speculation = Speculation()
    speculation.observe(1, 0, 0.010)
    assert [speculation.may_guess(1) for _ in range(2 * PLAIN_EVERY)].count(False) == 2


async def test_a_text_of_guesses_is_the_same_in_fewer_steps() -> None:
    """The chain goes round: A to Z, and the digits with a bee."""
    steps = {}
    for guesses in (False, True):
        bench = Bench(MarkovBackend(), guesses=guesses)
        bench.engine.stepper.speculation.observe(1, 0, 1.0)  # so slow that guessing pays, which a chain of bytes is not
        bench.engine.stepper.speculation.observe = lambda *_: None  # type: ignore[method-assign]
        async with running(bench):
            texts = [(await read(bench.start(prompt, 200)))[0] for prompt in ("A", "7")]
        steps[guesses] = bench.backend.decodes
        assert texts[0] == "BCDEFGHIJKLMNOPQRSTUVWXYZA" * 7 + "BCDEFGHIJKLMNOPQRS"
        assert texts[1].startswith("89🐝0123456789🐝0")
    assert steps[False] == 400
    assert steps[True] < 200


async def test_a_text_with_a_seed_is_not_guessed() -> None:
    bench = Bench(MarkovBackend())
    bench.engine.stepper.speculation.observe(1, 0, 1.0)
    async with running(bench):
        await read(bench.start("A", 200, seed=1))
    assert bench.backend.decodes == 200
    assert bench.engine.stepper.speculation.guessed == 0
