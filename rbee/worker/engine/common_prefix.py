"""Compares runs of tokens, packed into bytes so that the comparison is memory's own speed (PURE)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKEN_BYTES: Final = array("i").itemsize
_FIRST_LOOK: Final = 8
"""Tokens that are compared first: most prompts that differ do so soon."""


def packed(tokens: Sequence[int]) -> bytes:
    """Return tokens as `common` compares them."""
    return array("i", tokens).tobytes()


def unpacked(data: bytes) -> array[int]:
    """Return the tokens that `packed` was given."""
    return array("i", data)


def common(one: bytes, other: bytes) -> int:
    """Return with how many tokens both begin."""
    most = min(len(one), len(other)) // TOKEN_BYTES
    low, high = 0, min(_FIRST_LOOK, most)
    while one[low * TOKEN_BYTES : high * TOKEN_BYTES] == other[low * TOKEN_BYTES : high * TOKEN_BYTES]:
        if high == most:
            return most
        low, high = high, min(2 * high, most)
    # Equal up to `low`, and not up to `high`.
    while high - low > 1:
        middle = (low + high) // 2
        if one[low * TOKEN_BYTES : middle * TOKEN_BYTES] == other[low * TOKEN_BYTES : middle * TOKEN_BYTES]:
            low = middle
        else:
            high = middle
    return low
