"""Decides which tokens of which sequences the engine decodes in its next step (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_CHUNK: Final = 8
"""Tokens of prompts that a step takes in any case, however slow the machine is: they cost little more than one."""
LONGEST_PAUSE: Final = 0.3
"""How long a sequence that decodes may wait for its next token because of prompts, unless the configuration says it."""
AIM: Final = 2 / 3
"""The share of the longest pause that a step aims at: the next one may be slower than the last ones were."""


class Pending(NamedTuple):
    """A sequence with `tokens` tokens that the memory does not hold yet.

    `is_decoding` says that its prompt is done and one new token waits, so a user sees every delay; `is_scored` that
    the logits of all of them are wanted; `is_whole` that the next token is sampled after the last of them.
    """

    sequence: int
    tokens: int
    is_decoding: bool
    is_scored: bool = False
    is_whole: bool = True


class Chunk(NamedTuple):
    """The next `tokens` tokens of `sequence`; `is_last` where the next token can be sampled after them."""

    sequence: int
    tokens: int
    is_last: bool


class PrefillPace:
    """How many prompt tokens fit into the time of one step, from how long earlier steps took."""

    def __init__(self, batch: int, longest_pause: float = LONGEST_PAUSE) -> None:
        self._batch = batch
        self._longest_pause = longest_pause
        self._seconds_per_token: float | None = None

    def observe(self, tokens: int, seconds: float) -> None:
        """Learn from a step that decoded `tokens` tokens; the newest steps count most."""
        if tokens < MIN_CHUNK or seconds <= 0:
            return  # so few tokens take as long as one: they say nothing about the pace of many
        measured = seconds / tokens
        known = self._seconds_per_token
        self._seconds_per_token = measured if known is None else 0.7 * known + 0.3 * measured

    def limit(self) -> int:
        """Return the prompt tokens for a step in which sequences wait for their next token."""
        if self._seconds_per_token is None:
            return min(MIN_CHUNK, self._batch)  # the first such step measures
        fitting = int(AIM * self._longest_pause / self._seconds_per_token)
        return min(max(fitting, MIN_CHUNK), self._batch)


def plan(
    pending: Sequence[Pending],
    *,
    batch: int,
    prefill_limit: int,
    prompt_limit: int | None = None,
    scored_limit: int = 1,
) -> list[Chunk]:
    """Return the next step: at most `batch` tokens, empty only where nothing is pending.

    `pending` is in order of arrival. Every decoding sequence gets its token first. What is left goes to prompts, at
    most `prefill_limit` tokens while any sequence decodes, and `prompt_limit` while none does. The oldest prompt gets
    half of that, so it always comes to its end; the other half goes to the shortest, so that a short question need not
    wait for a long document. Those that are scored get `scored_limit` tokens at most, all together.
    """
    chunks = [Chunk(item.sequence, 1, True) for item in pending if item.is_decoding and item.tokens][:batch]
    room = batch - len(chunks)
    if chunks:
        room = min(room, prefill_limit)
    elif prompt_limit is not None:
        room = min(room, prompt_limit)
    prompts = [item for item in pending if not item.is_decoding and item.tokens]
    if not prompts or room <= 0:
        return chunks
    shares = dict.fromkeys((item.sequence for item in prompts), 0)
    oldest = prompts[0]
    by_length = sorted(prompts, key=lambda item: item.tokens)
    for item, bound in [(oldest, (room + 1) // 2), *((item, room) for item in by_length)]:
        share = min(item.tokens - shares[item.sequence], bound, room)
        if item.is_scored:
            share = min(share, scored_limit)
            scored_limit -= share
        shares[item.sequence] += share
        room -= share
    chunks += [
        Chunk(item.sequence, shares[item.sequence], item.is_whole and shares[item.sequence] == item.tokens)
        for item in prompts
        if shares[item.sequence]
    ]
    return chunks
