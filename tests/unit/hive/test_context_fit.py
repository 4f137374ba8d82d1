"""How long a context a model gets, from the memory and from what it was trained for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rbee.errors import ModelLoadFailedError
from rbee.hive.workers import context_fit
from rbee.hive.workers.context_fit import SHARE, Wish, fit, fitted, longest, longest_of, shortened
from rbee.hive.workers.preflight import memory_needed
from rbee.hive.workers.record import WorkerSpec
from rbee.wire.gguf import ModelHeader

if TYPE_CHECKING:
    from typing import Literal

    from rbee.wire.common import CacheType

GB = 10**9
KIB = 1024
SMALL = (112 * KIB, 131_072, 2 * GB)
"""Llama-3.2-3B in Q4_K_M: bytes for each token, tokens that it was trained with, bytes of the file."""
MIDDLE = (144 * KIB, 40_960, 5 * GB)
"""Qwen3-8B."""
TINY = (22 * KIB, 2048, 640 * 10**6)
"""TinyLlama."""


def header(per_token: int, trained: int | None, *, head: int = 128, can: bool | None = None) -> ModelHeader:
    return ModelHeader(
        architecture="bee",
        parameters=1,
        tensor_bytes=1,
        context_length=trained,
        cache_per_token=per_token,
        key_length=head,
        value_length=head,
        can_quantise_cache=can,
    )


@pytest.mark.parametrize(
    ("model", "memory", "kv", "tokens", "most"),
    [
        (TINY, 8 * GB, "f16", 2048, 2048),
        (SMALL, 4 * GB, "q8_0", 4096, 16_384),
        (SMALL, 8 * GB, "q8_0", 5120, 20_480),
        (SMALL, 16 * GB, "q8_0", 13_312, 53_248),
        (SMALL, 32 * GB, "f16", 15_360, 61_440),
        (SMALL, 64 * GB, "f16", 32_768, 131_072),
        (MIDDLE, 8 * GB, "q8_0", 4096, 16_384),
        (MIDDLE, 32 * GB, "f16", 10_240, 40_960),
        (MIDDLE, 64 * GB, "f16", 16_384, 40_960),
        (MIDDLE, 512 * GB, "f16", 16_384, 40_960),
    ],
)
def test_a_context_is_as_long_as_the_memory_is_good_for(
    model: tuple[int, int, int], memory: int, kv: CacheType, tokens: int, most: int
) -> None:
    per_token, trained, size = model
    found = fit(header(per_token, trained), size, 4, memory, Wish())
    assert (found.tokens, found.kv, longest(found.tokens, 4, trained)) == (tokens, kv, most)
    assert found.is_chosen
    if tokens > context_fit.SURE:
        of_context = (header(per_token, trained).kv_bytes_per_token(kv) or 0) * 4 * tokens
        assert of_context <= SHARE * (memory - memory_needed(size, 0, 0)), "so several models fit"


@pytest.mark.parametrize("slots", [1, 3, 4, 64])
@pytest.mark.parametrize("trained", [16, 4095, 4097, 10_000, 131_072, None])
def test_it_is_never_longer_than_what_the_model_was_trained_for(slots: int, trained: int | None) -> None:
    found = fit(header(KIB, trained), GB, slots, 1000 * GB, Wish())
    assert found.tokens <= (trained or context_fit.SURE)
    assert longest(found.tokens, slots, trained) == (trained or context_fit.SURE), "one alone has all of it"


@pytest.mark.parametrize(
    ("asked", "configured", "trained", "tokens"),
    [
        (None, 200, 8192, 200),
        (None, 8192, 8192, 8192),
        (None, 99_999, None, 99_999),
        (100, 99_999, 8192, 100),
        (8192, 100, 8192, 8192),
        (99_999, None, 8192, 99_999),
    ],
)
def test_what_is_asked_for_or_else_set_is_had(
    asked: int | None, configured: int | None, trained: int | None, tokens: int
) -> None:
    found = fit(header(KIB, trained), GB, 4, 64 * GB, Wish(asked, configured))
    assert (found.tokens, found.is_chosen, found.note) == (tokens, False, None)


@pytest.mark.parametrize(("configured", "trained"), [(99_999, 8192), (8193, 8192), (1 << 24, 16), (4096, 512)])
def test_no_model_gets_more_than_it_was_trained_for_by_the_settings(configured: int, trained: int) -> None:
    found = fit(header(KIB, trained), GB, 4, 64 * GB, Wish(configured=configured))
    assert found.tokens == trained
    assert found.note == (
        f"`context` under [worker] is {configured} tokens; this model was trained with {trained}, and gets these"
    )


def test_fewer_bits_are_taken_by_themselves_where_a_wish_does_not_fit_otherwise() -> None:
    wish = Wish(configured=32_768)
    assert fit(header(112 * KIB, 131_072), 2 * GB, 4, 16 * GB, wish).kv == "q8_0"
    assert fit(header(112 * KIB, 131_072), 2 * GB, 4, 32 * GB, wish).kv == "f16"


@pytest.mark.parametrize(("head", "can"), [(80, None), (128, False)])
def test_a_model_of_odd_heads_keeps_16_bits_and_is_refused_others(head: int, *, can: bool | None) -> None:
    odd = header(112 * KIB, 131_072, head=head, can=can)
    assert fit(odd, 2 * GB, 4, 4 * GB, Wish()).kv == "f16"
    for kv in _QUANTISED:
        with pytest.raises(ModelLoadFailedError, match=f"`kv` under .worker. is {kv}.*{head}") as caught:
            fit(odd, 2 * GB, 4, 64 * GB, Wish(kv=kv))
        assert '"f16"' in (caught.value.hint or "")


_QUANTISED: tuple[Literal["q8_0", "q4_0"], ...] = ("q8_0", "q4_0")


def test_the_settings_say_how_it_is_kept() -> None:
    found = [fit(header(112 * KIB, 131_072), 2 * GB, 4, 32 * GB, Wish(kv=kv)) for kv in ("f16", *_QUANTISED)]
    assert [one.kv for one in found] == ["f16", "q8_0", "q4_0"]
    assert [one.tokens for one in found] == [15_360, 29_696, 32_768]
    each = [header(64 * KIB, None).kv_bytes_per_token(kv) for kv in ("f16", *_QUANTISED)]
    assert each == [64 * KIB, 34 * KIB, 18 * KIB]


@pytest.mark.parametrize(
    ("memory", "wished", "kv", "most"),
    [
        (8 * GB, 1000, "q8_0", 20_480),
        (8 * GB, 32_768, "f16", 32_768),
        (8 * GB, 60_000, "q8_0", 60_160),
        (8 * GB, 131_072, "q8_0", 91_904),
        (8 * GB, 1 << 24, "q8_0", 91_904),
        (64 * GB, 1 << 24, "f16", 131_072),
    ],
)
def test_a_wish_for_a_long_request_is_honoured_as_far_as_the_memory_goes(
    memory: int, wished: int, kv: CacheType, most: int
) -> None:
    per_token, trained, size = SMALL
    found = fit(header(per_token, trained), size, 4, memory, Wish(longest=wished))
    assert (found.kv, longest(found.tokens, 4, trained), found.wished) == (kv, most, min(wished, trained))
    assert found.is_chosen, "so it is shortened rather than refused"


def test_a_wish_makes_more_of_what_is_set_and_never_less() -> None:
    model = header(22 * KIB, 131_072)
    assert fit(model, GB, 4, 64 * GB, Wish(configured=64, longest=200)) == (64, "f16", False, None, 200, 0)
    assert fit(model, GB, 4, 64 * GB, Wish(configured=64, longest=400)) == (128, "f16", True, None, 400, 64)


def test_what_is_set_is_not_shortened_for_lack_of_memory_though_a_wish_has_made_more_of_it() -> None:
    wished = replace(spec(128), is_elastic=True, least=64)
    assert context_fit.shortened(wished, 16).context == 64
    assert context_fit.fitted(wished, wished.memory - wished.cache_per_token * 100, 16) == wished
    assert context_fit.fitted(wished, wished.memory - wished.cache_per_token * 60, 16).context == 64


def test_a_worker_serves_a_wish_where_it_has_room_or_none_could_have_more() -> None:
    def wishing(tokens: int | None, context: int) -> WorkerSpec:
        return replace(spec(context), wished=tokens)

    small, large = spec(4096), spec(12_288)  # of 16,384 and 49,152 tokens for one
    for known, wished, found, is_enough in (
        (small, None, 12_288, True),
        (small, 16_384, 4096, True),
        (small, 16_385, 4160, False),
        (large, 16_385, 4160, True),
        (large, 50_000, 12_500, False),
        (large, 50_000, 12_000, True),
        (replace(small, context=None), 50_000, 12_500, True),
    ):
        assert context_fit.is_long_enough(known, wishing(wished, found)) is is_enough


def spec(context: int, *, is_elastic: bool = True) -> WorkerSpec:
    """A model of 1 GB, each token of which takes 100 KB over its four slots."""
    place = ("m", "/m", "cpu", 0, "ram")
    per_token, trained = 100_000, 50_000
    memory = GB + per_token * context
    return WorkerSpec(*place, 4, context, memory, per_token, trained=trained, is_elastic=is_elastic)


def test_a_context_is_shortened_where_the_memory_is_taken() -> None:
    wanted = spec(16_384)
    assert fitted(wanted, wanted.memory, 4096) is wanted
    short = fitted(wanted, GB + 100_000 * 7000, 4096)
    assert (short.context, short.memory) == (6144, GB + 100_000 * 6144)
    assert longest_of(short) == 24_576
    assert fitted(wanted, GB + 100_000 * 4000, 4096) is wanted, "rather than so short a one it waits for room"
    assert fitted(wanted, GB + 100_000 * 1000, 256).context == 960
    assert fitted(wanted, GB + 100_000 * 200, 256) is wanted, "and is refused with its numbers"
    assert shortened(wanted, 4096).memory == GB + 100_000 * 4096


def test_what_was_asked_for_is_not_shortened() -> None:
    wanted = spec(16_384, is_elastic=False)
    assert fitted(wanted, GB, 256) is wanted
    assert shortened(wanted, 4096) is wanted


def test_the_sentence_has_both_numbers() -> None:
    assert context_fit.in_words(spec(4096)) == (
        "a request may have 16384 tokens, and each of 4 at once is sure of 4096; the context takes 409 MB in f16"
    )
    assert context_fit.in_words(spec(50_000)) == "a request may have 50000 tokens; the context takes 5000 MB in f16"
