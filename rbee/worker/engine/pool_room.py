"""Says for which sequences the memory has room, before any of their tokens is computed (PURE).

All sequences draw on one pool, and each may be as long as all of it. Who came first goes on; who came later and finds
no room waits until another has ended. So nobody waits for ever, and nobody is computed anew as often as others end: one
that had to give up its room is let in again only where some is left beside what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rbee.worker.engine.common_prefix import common, packed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rbee.worker.engine.sequence import EngineSequence

MARGIN: Final = 8
"""The part of the pool that has to be left for one that comes back: until that is used up, it computes."""


def has_room(sequence: EngineSequence, others: Iterable[EngineSequence], pool: int, *, comes_back: bool) -> bool:
    """Whether the tokens of `sequence` fit beside those of the sequences that came before and are in the memory.

    Those that came later give up their room where it is needed. What two have in common is there once.
    """
    older = [other for other in others if other.number < sequence.number and not other.is_parked]
    if not older:
        return True
    left = pool - (pool // MARGIN if comes_back else 0)
    held = [*sorted(older, key=lambda one: one.number), sequence]
    if sum(len(one.tokens) + 1 for one in held) <= left:
        return True
    known: list[tuple[EngineSequence, bytes]] = []
    for one in held:
        tokens = packed(one.tokens)
        shared = (common(tokens, known_tokens) for other, known_tokens in known if one.shares_with(other))
        left -= len(one.tokens) + 1 - max(shared, default=0)
        known.append((one, tokens))
    return left >= 0


def youngest(sequences: Iterable[EngineSequence]) -> EngineSequence | None:
    """Return the one that gives up its room: of those that have any, or compute, the last that came; None for one."""
    holding = [one for one in sequences if not one.is_parked and (one.cached or not one.is_waiting)]
    return max(holding, key=lambda one: one.number) if len(holding) > 1 else None
