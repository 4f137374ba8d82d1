"""What the engine decodes next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rbee.worker.engine.batching import MIN_CHUNK, Chunk, Pending, PrefillPace, plan


def decoding(sequence: int) -> Pending:
    return Pending(sequence, 1, True)


def prompt(sequence: int, tokens: int) -> Pending:
    return Pending(sequence, tokens, False)


def test_nothing_pending_is_an_empty_step() -> None:
    assert plan([], batch=512, prefill_limit=64) == []


def test_a_lone_prompt_gets_the_whole_batch() -> None:
    assert plan([prompt(0, 2000)], batch=512, prefill_limit=32) == [Chunk(0, 512, False)]


def test_a_short_prompt_is_decoded_at_once() -> None:
    assert plan([prompt(3, 7)], batch=512, prefill_limit=32) == [Chunk(3, 7, True)]


def test_prompts_are_bounded_while_no_sequence_decodes() -> None:
    step = plan([prompt(0, 2000), prompt(1, 10)], batch=512, prefill_limit=500, prompt_limit=64)
    assert step == [Chunk(0, 54, False), Chunk(1, 10, True)]


def test_the_bound_of_prompts_alone_is_not_that_beside_decoding_ones() -> None:
    assert plan([decoding(0), prompt(1, 900)], batch=512, prefill_limit=100, prompt_limit=64)[1] == Chunk(1, 100, False)


def test_decoding_sequences_come_first() -> None:
    step = plan([prompt(0, 900), decoding(1), decoding(2)], batch=512, prefill_limit=100)
    assert step == [Chunk(1, 1, True), Chunk(2, 1, True), Chunk(0, 100, False)]


def test_a_prompt_is_bounded_while_others_decode() -> None:
    assert plan([decoding(0), prompt(1, 900)], batch=512, prefill_limit=32)[1] == Chunk(1, 32, False)


def test_the_batch_bounds_even_a_generous_limit() -> None:
    assert sum(chunk.tokens for chunk in plan([decoding(0), prompt(1, 900)], batch=64, prefill_limit=512)) == 64


def test_a_short_prompt_passes_a_long_one_that_came_before() -> None:
    step = plan([prompt(0, 5000), prompt(1, 10)], batch=512, prefill_limit=32)
    assert step == [Chunk(0, 502, False), Chunk(1, 10, True)]


def test_the_oldest_prompt_keeps_half_while_short_ones_come() -> None:
    step = plan([prompt(0, 5000), prompt(1, 300), prompt(2, 300)], batch=512, prefill_limit=32)
    assert step == [Chunk(0, 256, False), Chunk(1, 256, False)]


def test_equal_prompts_go_in_order_of_arrival() -> None:
    step = plan([prompt(5, 400), prompt(2, 400)], batch=512, prefill_limit=32)
    assert step == [Chunk(5, 400, True), Chunk(2, 112, False)]


def test_more_decoding_sequences_than_the_batch_holds() -> None:
    step = plan([decoding(n) for n in range(10)], batch=4, prefill_limit=32)
    assert step == [Chunk(n, 1, True) for n in range(4)]


def test_a_sequence_without_tokens_is_left_out() -> None:
    assert plan([prompt(0, 0), decoding(1)], batch=8, prefill_limit=8) == [Chunk(1, 1, True)]


def test_the_pace_starts_careful() -> None:
    assert PrefillPace(512).limit() == MIN_CHUNK


def test_the_pace_follows_what_was_measured() -> None:
    pace = PrefillPace(512)
    pace.observe(512, 512 * 0.2 / 40.5)
    assert pace.limit() == 40


def test_a_longer_pause_reads_more_of_prompts() -> None:
    pace = PrefillPace(512, longest_pause=0.6)
    pace.observe(512, 512 * 0.2 / 40.7)
    assert pace.limit() == 81


def test_the_pace_never_leaves_its_bounds() -> None:
    fast, slow = PrefillPace(512), PrefillPace(512)
    fast.observe(512, 0.001)
    slow.observe(512, 512.0)
    assert (fast.limit(), slow.limit()) == (512, MIN_CHUNK)


def test_small_steps_say_nothing_about_the_pace() -> None:
    pace = PrefillPace(512)
    pace.observe(1, 0.05)
    pace.observe(100, 0.0)
    assert pace.limit() == MIN_CHUNK


@st.composite
def pendings(draw: st.DrawFn) -> list[Pending]:
    kinds = draw(st.lists(st.one_of(st.none(), st.integers(1, 3000)), max_size=12))
    scored = draw(st.sets(st.integers(0, 11)))
    return [decoding(n) if tokens is None else Pending(n, tokens, False, n in scored) for n, tokens in enumerate(kinds)]


@given(pendings(), st.integers(1, 600), st.integers(1, 600))
def test_every_step_is_valid_and_makes_progress(pending: list[Pending], batch: int, limit: int) -> None:
    step = plan(pending, batch=batch, prefill_limit=limit, scored_limit=8)
    waiting = {item.sequence: item for item in pending}
    assert sum(chunk.tokens for chunk in step if waiting[chunk.sequence].is_scored) <= 8
    assert len({chunk.sequence for chunk in step}) == len(step)
    assert sum(chunk.tokens for chunk in step) <= batch
    assert bool(step) == bool(pending)
    for chunk in step:
        item = waiting[chunk.sequence]
        assert 1 <= chunk.tokens <= item.tokens
        assert chunk.is_last == (chunk.tokens == item.tokens)
    started = {chunk.sequence for chunk in step}
    decoders = [item.sequence for item in pending if item.is_decoding]
    assert started.issuperset(decoders[:batch])
    prompts = [item for item in pending if not item.is_decoding]
    if decoders:
        assert sum(chunk.tokens for chunk in step if not waiting[chunk.sequence].is_decoding) <= limit
    if prompts and len(decoders) < batch:
        assert prompts[0].sequence in started


@given(pendings(), st.integers(16, 600), st.integers(8, 600))
def test_repeated_steps_finish_every_prompt(pending: list[Pending], batch: int, limit: int) -> None:
    for _ in range(5_000):
        if not any(not item.is_decoding and item.tokens for item in pending):
            break
        taken = {
            chunk.sequence: chunk.tokens for chunk in plan(pending, batch=batch, prefill_limit=limit, scored_limit=64)
        }
        pending = [
            item if item.is_decoding else item._replace(tokens=item.tokens - taken.get(item.sequence, 0))
            for item in pending
        ]
    else:
        raise AssertionError("a prompt starves")
