"""Looks at, forbids and chooses tokens of one row of logits, in C: some vocabularies have 200,000 (build/logits.c)."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from rbee.worker.llama.gguf_file import libraries

if TYPE_CHECKING:
    from rbee.worker.llama.functions import SamplerHandle

Row = Any
"""A pointer to as many C floats as the vocabulary has tokens."""


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(libraries() / "librbee_logits.so"))
    library.rbee_log_sum_exp.restype = ctypes.c_double
    library.rbee_choose.argtypes = (
        *(ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32),
        *(ctypes.c_void_p, ctypes.c_void_p),
    )
    return library


class _Candidate(ctypes.Structure):
    """`struct llama_token_data` (llama.h)."""

    _fields_ = (("token", ctypes.c_int32), ("logit", ctypes.c_float), ("probability", ctypes.c_float))


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


def likeliest(row: Row, tokens: int) -> int:
    """Return the token with the highest logit, of equals the first one; -1 where no logit is a number."""
    token: int = _library().rbee_likeliest(row, tokens)
    return token


class Chooser:
    """Chooses tokens with a chain of llama.cpp's samplers that begins with the `wanted` highest logits."""

    MOST: Final = 256
    """The highest `wanted`: above it llama.cpp's own way is as fast."""

    def __init__(self, libllama: ctypes.CDLL, chain: SamplerHandle, wanted: int) -> None:
        """The chain stays the caller's, who frees it after this object's last use."""
        assert 0 < wanted <= self.MOST
        self._apply = ctypes.cast(libllama.llama_sampler_apply, ctypes.c_void_p)
        self._chain = chain
        self._wanted = wanted
        self._room = (_Candidate * wanted)()

    def choose(self, row: Row, tokens: int) -> int:
        """Return the chain's choice; -1 where no logit is a number."""
        wanted = min(self._wanted, tokens)
        token: int = _library().rbee_choose(row, tokens, self._room, wanted, self._apply, self._chain)
        return token
