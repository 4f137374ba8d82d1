"""The loops over logits in C do what the same loops in Python would."""

from __future__ import annotations

import ctypes
import math
import random

import pytest

from rbee.worker.llama import library
from rbee.worker.llama.logits import Chooser, TokenMask, highest, likeliest, log_sum_exp

SIZES = [1, 31, 32, 33, 64, 1000]


def row(*logits: float) -> ctypes.Array[ctypes.c_float]:
    return (ctypes.c_float * len(logits))(*logits)


def some(count: int) -> ctypes.Array[ctypes.c_float]:
    draw = random.Random(count)
    return row(*(draw.uniform(-20, 20) for _ in range(count)))


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_what_a_mask_does_not_allow_cannot_come(count: int, share: float) -> None:
    draw = random.Random(f"{count}{share}")
    allowed = [draw.random() < share for _ in range(count)]
    mask = TokenMask(count)
    bits = sum(1 << token for token, is_allowed in enumerate(allowed) if is_allowed)
    ctypes.memmove(mask.address, bits.to_bytes(mask.size, "little"), mask.size)
    logits = some(count + 1)  # the one behind is another row's
    expected = [logit if allowed[token] else -math.inf for token, logit in enumerate(logits[:count])]
    mask.apply(logits)
    assert logits[:count] == expected
    assert math.isfinite(logits[count])
    assert [mask.allows(token) for token in range(count)] == allowed


@pytest.mark.parametrize("count", SIZES)
def test_probabilities_add_up_to_one(count: int) -> None:
    logits = some(count)
    norm = log_sum_exp(logits, count)
    assert sum(math.exp(logit - norm) for logit in logits) == pytest.approx(1, abs=1e-5)


def test_the_norm_of_large_and_of_forbidden_logits() -> None:
    assert log_sum_exp(row(1e30, -1e30), 2) == pytest.approx(1e30)
    assert log_sum_exp(row(-math.inf, 3.0, -math.inf), 3) == 3.0
    assert log_sum_exp(row(-math.inf, -math.inf), 2) == -math.inf


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("wanted", [0, 1, 5, 20])
def test_the_likeliest_tokens(count: int, wanted: int) -> None:
    logits = some(count)
    expected = sorted(range(count), key=lambda token: -logits[token])[:wanted]
    assert highest(logits, count, wanted) == expected


def test_of_equal_tokens_the_first_comes_first_and_what_is_no_number_never() -> None:
    assert highest(row(2.0, math.nan, 5.0, 5.0, 2.0, -math.inf), 6, 4) == [2, 3, 0, 4]
    assert highest(row(math.nan, math.nan), 2, 2) == []


@pytest.mark.parametrize("count", SIZES)
def test_the_likeliest_token_is_the_first_of_equals(count: int) -> None:
    draw = random.Random(count)
    logits = row(*(draw.randint(-3, 3) for _ in range(count)))
    assert likeliest(logits, count) == list(logits).index(max(logits))
    logits[0] = math.nan
    assert likeliest(logits, count) == (list(logits).index(max(logits[1:])) if count > 1 else -1)
    assert likeliest(row(*[math.nan] * count), count) == likeliest(row(*[-math.inf] * count), count) == -1


class Candidates(ctypes.Structure):
    """`struct llama_token_data_array` (llama.h)."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("selected", ctypes.c_int64),
        ("is_sorted", ctypes.c_bool),
    )


class Candidate(ctypes.Structure):
    """`struct llama_token_data`."""

    _fields_ = (("token", ctypes.c_int32), ("logit", ctypes.c_float), ("probability", ctypes.c_float))


@pytest.mark.parametrize("wanted", [1, 40, 256])
@pytest.mark.parametrize("allowed", [1.0, 0.01])
def test_a_chain_chooses_what_it_would_of_the_whole_vocabulary(wanted: int, allowed: float) -> None:
    llama = library.load()
    lib = llama.functions

    def chain() -> int:
        found = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for sampler in (
            lib.llama_sampler_init_top_k(wanted),
            lib.llama_sampler_init_top_p(0.95, 1),
            lib.llama_sampler_init_min_p(0.01, 1),
            lib.llama_sampler_init_temp(1.5),
            lib.llama_sampler_init_dist(7),
        ):
            lib.llama_sampler_chain_add(found, sampler)
        return found

    whole, part = chain(), chain()
    apply = llama.libllama.llama_sampler_apply
    apply.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    chooser = Chooser(llama.libllama, part, wanted)
    draw = random.Random(wanted)
    seen = set()
    for count in (1, 63, 64, 5000) * 10:
        logits = row(*(draw.gauss(0, 3) if draw.random() < allowed else -math.inf for _ in range(count)))
        logits[draw.randrange(count)] = 1.0
        every = (Candidate * count)(*((token, logit, 0.0) for token, logit in enumerate(logits)))
        candidates = Candidates(ctypes.addressof(every), count, -1, False)
        apply(whole, ctypes.byref(candidates))
        chosen = chooser.choose(logits, count)
        assert chosen == every[candidates.selected].token
        seen.add(chosen)
    assert len(seen) > 8
    assert chooser.choose(row(*[math.nan] * 70), 70) == -1
    lib.llama_sampler_free(whole)
    lib.llama_sampler_free(part)
