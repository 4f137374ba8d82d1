"""Looks at, and forbids, tokens of one row of logits, in C: a vocabulary has up to some 200,000 (build/logits.c)."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from rbee.worker.llama.gguf_file import libraries

Row = Any
"""A pointer to as many C floats as the vocabulary has tokens."""


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(libraries() / "librbee_logits.so"))
    library.rbee_log_sum_exp.restype = ctypes.c_double
    return library


class TokenMask:
    """Which tokens are allowed: `address` is where others write a bit for each token, in words of 32 bits."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self._words = (ctypes.c_uint32 * ((tokens + 31) // 32))()
        self.address = ctypes.addressof(self._words)
        self.size = ctypes.sizeof(self._words)

    def allows(self, token: int) -> bool:
        return bool(self._words[token // 32] >> token % 32 & 1)

    def allow(self, token: int) -> None:
        self._words[token // 32] |= 1 << token % 32

    def apply(self, row: Row) -> None:
        """Give each token that is not allowed the logit of what cannot come."""
        _library().rbee_mask_logits(row, self._tokens, self._words)


def log_sum_exp(row: Row, tokens: int) -> float:
    """Return what, taken from a token's logit, leaves the logarithm of its probability."""
    value: float = _library().rbee_log_sum_exp(row, tokens)
    return value


def highest(row: Row, tokens: int, wanted: int) -> list[int]:
    """Return the `wanted` tokens that are the likeliest, the likeliest first; fewer where there are no more."""
    found = (ctypes.c_int32 * max(wanted, 1))()
    return found[: _library().rbee_highest_logits(row, tokens, wanted, found)]
