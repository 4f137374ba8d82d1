"""Chooses how long a context a model gets: what it was trained for, as far as the memory is good for it (PURE).

The cells of a context are one pool. Each of `slots` requests at once is sure of an equal part of it, and one alone may
use all, up to what the model was trained for. The memory of a cell is
taken when a token first stands in it, and is reckoned with from the start.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.errors import ModelLoadFailedError
from rbee.hive.workers.preflight import CONTEXT_STEP, MEGABYTE, OVERHEAD

if TYPE_CHECKING:
    from typing import Literal

    from rbee.hive.workers.record import WorkerSpec
    from rbee.wire.common import CacheType
    from rbee.wire.gguf import ModelHeader

SHARE: Final = 0.25
"""The part of what the weights leave of the machine's memory that a context takes, so that several models fit. Of all
the memory, and not of what is free: a model has the same context each time that it starts."""
SURE: Final = 4096
"""Tokens that each request is sure of wherever they fit, or those that the model was trained for."""
PLENTY: Final = 16_384
"""More than each request needs to be sure of: a longer one uses what the others leave."""
AGENT: Final = 32_768
"""A pool that programs which write programs can work with: for it, but not for more, values get fewer bits."""
STEP: Final = 1024


class ContextFit(NamedTuple):
    """Tokens that each request is sure of, and how they are kept.

    `is_chosen`: here, and not by a request or the settings, so it may be shortened. `note` says what is not as the
    settings say.
    """

    tokens: int
    kv: CacheType
    is_chosen: bool = False
    note: str | None = None
    wished: int | None = None
    least: int = 0
    """Tokens to which it may be shortened, where a request or the settings say that."""


class Wish(NamedTuple):
    """What a request asked for, and what the settings say; `longest` are the tokens that one request is to have."""

    asked: int | None = None
    configured: int | None = None
    kv: CacheType | Literal["auto"] = "auto"
    longest: int | None = None


def longest(tokens: int, slots: int, trained: int | None) -> int:
    """Return how long one request may be where each of `slots` is sure of so many tokens."""
    return max(tokens, min(trained or tokens, slots * tokens))


def fit(header: ModelHeader, file_bytes: int, slots: int, memory: int, wish: Wish) -> ContextFit:
    """Return the context of a model on a device with `memory` bytes in all. Raises ModelLoadFailedError.

    What the settings say is for all models, so a model gets no more of it than it was trained for: beyond that it
    writes nonsense, and the memory for it is wasted. Who asks for a number for this very model gets it.
    """
    left = max(0, memory - int(file_bytes * OVERHEAD))
    tokens, note = wish.asked or wish.configured, None
    trained = header.context_length
    if wish.asked is None and tokens is not None and trained is not None and tokens > trained:
        note = f"`context` under [worker] is {tokens} tokens; this model was trained with {trained}, and gets these"
        tokens = trained
    wished = None if wish.longest is None else min(wish.longest, trained or wish.longest)
    kv = wish.kv if wish.kv != "auto" else _cache_type(header, slots, left, tokens, wished)
    if not header.takes_cache_type(kv):
        raise ModelLoadFailedError(
            f"`kv` under [worker] is {kv}, and this model's context cannot be kept so: its heads have "
            f"{header.key_length} and {header.value_length} values, which are no multiples of 32",
            hint='`kv = "auto"` or `kv = "f16"` takes any model',
            reason="kv",
        )
    usual = _chosen(header, slots, left, kv) if tokens is None else tokens
    if wished is None or longest(usual, slots, trained) >= wished:
        return ContextFit(usual, kv, tokens is None, note, wished)
    least = 0 if tokens is None else tokens
    return ContextFit(max(usual, _for_one(header, slots, left, kv, wished)), kv, True, note, wished, least)


def _cache_type(header: ModelHeader, slots: int, left: int, tokens: int | None, wished: int | None) -> CacheType:
    """Return 16 bits where they suffice: the processor computes with them faster than with fewer."""
    if not header.takes_cache_type("q8_0"):
        return "f16"
    for_one = 0 if wished is None else slots * _for_one(header, slots, left, "f16", wished)
    if wished is not None and for_one < wished:
        return "q8_0"
    if tokens is not None:
        return "f16" if _bytes(header, slots, tokens, "f16") <= left else "q8_0"
    half = _chosen(header, slots, left, "f16")
    if max(slots * half, for_one) >= AGENT or half >= _wanted(header.context_length or SURE, slots):
        return "f16"
    return "q8_0"


def _chosen(header: ModelHeader, slots: int, left: int, kv: CacheType) -> int:
    trained = header.context_length or SURE
    wanted = _wanted(trained, slots)
    per_token = (header.kv_bytes_per_token(kv) or 0) * slots
    if not per_token:
        return wanted
    share = int(left * SHARE) - header.fixed_cache_bytes(slots, wanted, kv)
    return min(wanted, max(SURE, share // per_token // STEP * STEP))


def _for_one(header: ModelHeader, slots: int, left: int, kv: CacheType, wished: int) -> int:
    """Return how much each request is sure of in a pool of so many tokens, or in as large a one as there can be."""
    part = -(-wished // slots // CONTEXT_STEP) * CONTEXT_STEP
    per_token = (header.kv_bytes_per_token(kv) or 0) * slots
    if not per_token:
        return part
    fitting = (left - header.fixed_cache_bytes(slots, part, kv)) // per_token
    return max(0, min(part, fitting // CONTEXT_STEP * CONTEXT_STEP))


def _wanted(trained: int, slots: int) -> int:
    """Return how much each request is to be sure of at most: so much that one alone may be as long as any text."""
    part = -(-trained // slots // STEP) * STEP
    return min(trained, max(PLENTY, part))


def _bytes(header: ModelHeader, slots: int, tokens: int, kv: CacheType) -> int:
    return (header.kv_bytes_per_token(kv) or 0) * slots * tokens + header.fixed_cache_bytes(slots, tokens, kv)


def longest_of(spec: WorkerSpec) -> int | None:
    """Return the most tokens of one request, where that is known."""
    return None if spec.context is None else longest(spec.context, spec.slots, spec.trained)


def is_long_enough(known: WorkerSpec, spec: WorkerSpec) -> bool:
    """Whether a worker has room for what a request wished for, or for as much of it as there can be."""
    if spec.wished is None or (there := longest_of(known)) is None:
        return True
    return there >= min(spec.wished, longest_of(spec) or 0)


def fitted(spec: WorkerSpec, left: int, least: int) -> WorkerSpec:
    """Return a spec whose context fits into `left` bytes, if one of at least so many tokens does."""
    if spec.memory <= left or not spec.is_elastic or spec.context is None or not spec.cache_per_token:
        return spec
    fitting = spec.context - -(-(spec.memory - left) // spec.cache_per_token)
    step = STEP if fitting >= STEP else CONTEXT_STEP
    tokens = fitting // step * step
    if tokens < spec.least <= fitting:
        tokens = spec.least
    return shortened(spec, tokens) if tokens >= min(max(least, spec.least), spec.context) else spec


def shortened(spec: WorkerSpec, tokens: int) -> WorkerSpec:
    """Return a spec with a context of so many tokens, where it may have fewer than it has."""
    tokens = max(tokens, spec.least)
    if not spec.is_elastic or spec.context is None or spec.context <= tokens:
        return spec
    return replace(spec, context=tokens, memory=spec.memory - spec.cache_per_token * (spec.context - tokens))


def in_words(spec: WorkerSpec) -> str:
    """Return the sentence about a context, for people."""
    most, tokens = longest_of(spec), spec.context
    each = "" if most == tokens else f", and each of {spec.slots} at once is sure of {tokens}"
    taken = spec.cache_per_token * (tokens or 0) // MEGABYTE
    return f"a request may have {most} tokens{each}; the context takes {taken} MB in {spec.kv}"
