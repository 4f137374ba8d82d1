"""The loops over logits in C do what the same loops in Python would."""

from __future__ import annotations

import ctypes
import math
import random

import pytest

from rbee.worker.llama.logits import TokenMask, highest, log_sum_exp

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
