"""Finds what was computed of a prompt's beginning, by requests that ended or still run, so that it is used again.

What a request has computed stays in the context once it ends, as a copy that shares the request's cells and costs no
room of its own. The least recently used copies go as soon as a decode finds no room. A request takes over as much of
the longest one as it has in common with it; where one that runs is about to compute more of that, it waits for it.
What has left the context, or was computed before the worker began, comes from the store (`prefix_store`).

Everything here runs in the engine's thread.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from rbee.worker.engine.backend import NoRoomError, SavedState, StateMismatchError
from rbee.worker.engine.common_prefix import TOKEN_BYTES, common, packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Collection

    from rbee.worker.engine.backend import Backend
    from rbee.worker.engine.sequence import EngineSequence
    from rbee.worker.engine.state_store import StateStore

log = logging.getLogger(__name__)

LEAST: Final = 8
"""Tokens below which nothing is kept or looked for: computing them costs about what one token costs."""
WORTH_WAITING: Final = 32
"""So many tokens more must another request be about to compute, or the store hold, to be preferred."""
SAVE_SECONDS: Final = 0.1
"""The longest that running requests wait for states that are saved or restored, in one step."""
REWOUND: Final = 8
"""The state of a model that cannot be cut is also saved so many tokens before the end of a prompt: a template may end
it with words that it leaves out of the history later."""
SEEN: Final = 64
"""The newest prompts of such a model that are remembered: where two part, the state is worth saving the next time."""


class _Kept:
    """A copy of what a sequence had in the memory, for others that begin alike."""

    def __init__(self, sequence: int, salt: bytes, tokens: bytes, exact: int) -> None:
        self.sequence = sequence
        self.salt = salt
        self.tokens = tokens
        self.exact = exact
        self.unsaved: list[tuple[int, int]] | None = None
        """The ranges that the store wants; None until it is asked."""


class PrefixCache:
    """What there is of earlier prompts, for the sequences of one engine."""

    def __init__(self, backend: Backend, store: StateStore | None = None) -> None:
        self._backend = backend
        self._store = store
        self._free = list(reversed(backend.spare))
        self._kept: list[_Kept] = []  # the most recently used last
        self._unsaved: deque[_Kept] = deque()
        self._seen: deque[tuple[bytes, bytes]] = deque(maxlen=SEEN)

    def begin(self, sequence: EngineSequence, running: Collection[EngineSequence]) -> None:
        """Give a sequence without any tokens in the memory those that are known, or let it wait for them."""
        sequence.leader = sequence.parts = None
        if not sequence.generated:
            sequence.reused = 0
        limit = sequence.reusable
        if not sequence.uses_cache or limit < LEAST:
            return
        tokens = packed(sequence.tokens[:limit])
        source, length, exact = self._in_memory(sequence, tokens, running)
        leader, later = self._about_to_be(sequence, tokens, running)
        stored = 0
        if self._store is not None and not sequence.is_seeded:
            stored = self._store.longest(sequence.salt, unpacked(tokens))
        # One that restores the same is worth waiting for too: both would take room of their own for it.
        known = length if leader is not None and leader.parts is not None and later >= stored else max(length, stored)
        if leader is not None and later >= known + WORTH_WAITING:
            sequence.follow(leader, later)
            return
        if source is not None and length >= LEAST and self._backend.copy(source, sequence.slot, length):
            sequence.took_over(length, exact)
        if self._store is not None and stored >= sequence.cached + WORTH_WAITING:
            sequence.parts = self._store.parts(sequence.salt, unpacked(tokens), stored)
        if not self._backend.can_cut:
            self._mark(sequence, tokens)

    def _in_memory(
        self, sequence: EngineSequence, tokens: bytes, running: Collection[EngineSequence]
    ) -> tuple[int | None, int, int]:
        """Return the sequence that holds most of the tokens, how many, and how many of them are exact."""
        best: tuple[int | None, int, int] = (None, 0, 0)
        hit = None
        for kept in self._kept:
            if kept.salt == sequence.salt:
                length = self._usable(sequence, common(kept.tokens, tokens), kept.exact)
                if length >= max(best[1], 1):
                    best, hit = (kept.sequence, length, min(length, kept.exact)), kept
        for other in running:
            if other is not sequence and other.cached and other.shares_with(sequence):
                held = packed(other.tokens[: other.cached])
                length = self._usable(sequence, common(held, tokens), other.exact)
                if not self._backend.can_cut and length < other.cached:
                    continue
                if length > best[1]:
                    best, hit = (other.slot, length, min(length, other.exact)), None
        if hit is not None:
            self._touch(hit)
        return best

    def _usable(self, sequence: EngineSequence, length: int, exact: int) -> int:
        """Return how many tokens a sequence may take over of those that it has in common.

        The same request with a seed has to yield the same text. A prompt that is read in other pieces has other last
        bits, so such a request takes only whole steps, which were computed as it would have computed them.
        """
        if not sequence.is_seeded:
            return length
        step = self._backend.prompt_step
        return min(length, exact) // step * step

    def _about_to_be(
        self, sequence: EngineSequence, tokens: bytes, running: Collection[EngineSequence]
    ) -> tuple[EngineSequence | None, int]:
        """Return the request that will have most of the tokens in the memory, and how many.

        Only earlier ones count, so no two wait for each other.
        """
        best: tuple[EngineSequence | None, int] = (None, 0)
        if sequence.is_seeded:
            return best
        for other in running:
            # One that is scored is read in small steps.
            is_ahead = other.number < sequence.number and not other.is_parked and other.is_scored
            if is_ahead and other.shares_with(sequence):
                length = common(packed(other.tokens), tokens)
                if other.cached < length > best[1]:
                    best = (other, length)
        return best

    def advance(self, sequence: EngineSequence, running: Collection[EngineSequence], deadline: float) -> None:
        """Go on with what a sequence waits for: another one's tokens, or the store's, until `deadline`."""
        if (leader := sequence.leader) is not None:
            if leader in running and not leader.is_parked:
                if leader.cached < sequence.follow_length:
                    return
                sequence.leader = None
                if self._backend.copy(leader.slot, sequence.slot, sequence.follow_length):
                    sequence.took_over(sequence.follow_length, min(sequence.follow_length, leader.exact))
                    return
            self.begin(sequence, running)
        if sequence.parts is not None:
            self._restore(sequence, deadline)

    def _restore(self, sequence: EngineSequence, deadline: float) -> None:
        assert sequence.parts is not None
        while time.perf_counter() < deadline:
            if (part := next(sequence.parts, None)) is None:
                break
            if part.end <= sequence.cached:
                continue
            if part.start < sequence.cached and self._backend.remove(sequence.slot, part.start):
                sequence.lost(part.start)
            state = SavedState(self._backend.origin, part.start, part.end, part.data)
            try:
                self._put_back(sequence, state, deadline)
            except (NoRoomError, StateMismatchError, ValueError) as exc:
                log.debug("a saved prefix is not used: %r", exc)
                sequence.lost(0 if part.start == 0 else sequence.cached)
                break
            sequence.took_over(part.end, 0)
        else:
            return
        sequence.parts = None

    def _put_back(self, sequence: EngineSequence, state: SavedState, deadline: float) -> None:
        while True:
            try:
                self._backend.restore(sequence.slot, state)
            except NoRoomError:
                if not self.make_room(deadline):
                    raise
            else:
                return

    def keep(self, sequence: EngineSequence) -> None:
        """Keep what the memory has of a sequence that is about to leave it."""
        if not sequence.uses_cache or sequence.cached < LEAST or sequence.leader is not None:
            return
        if not self._backend.spare:
            self.save_whole(sequence)
            return
        tokens = packed(sequence.tokens[: sequence.cached])
        for kept in [kept for kept in self._kept if kept.salt == sequence.salt]:
            length = common(kept.tokens, tokens) * TOKEN_BYTES
            if length == len(tokens) and kept.exact >= sequence.exact:
                self._touch(kept)  # it has all of this
                return
            if length == len(kept.tokens):
                self._drop(kept)
        if not self._free:
            self.make_room(time.perf_counter() + SAVE_SECONDS)
        spare = self._free.pop()
        if not self._backend.copy(sequence.slot, spare, sequence.cached):
            self._free.append(spare)
            return
        kept = _Kept(spare, sequence.salt, tokens, sequence.exact)
        self._kept.append(kept)
        if self._store is not None:
            self._unsaved.append(kept)

    def save_whole(self, sequence: EngineSequence) -> None:
        """Save the state of a sequence whose model keeps only that after the last token."""
        tokens = unpacked(packed(sequence.tokens[: sequence.cached]))
        if not sequence.uses_cache or self._store is None or not self._store.takes_more:
            return
        if self._store.missing(sequence.salt, tokens):
            self._store.put(sequence.salt, tokens, 0, len(tokens), bytes(self._backend.save(sequence.slot).data))

    def _mark(self, sequence: EngineSequence, tokens: bytes) -> None:
        """Choose where the state of a sequence is saved while its prompt is read."""
        shared = [common(seen, tokens) for salt, seen in self._seen if salt == sequence.salt]
        marks = {max(shared, default=0), sequence.prompt_length - REWOUND}
        sequence.marks |= {mark for mark in marks if LEAST <= mark < sequence.prompt_length}
        self._seen.append((sequence.salt, tokens))

    def make_room(self, deadline: float) -> bool:
        """Give up the copy that was used least recently, saved until `deadline`; returns False where there is none."""
        if not self._kept:
            return False
        oldest = self._kept[0]
        while oldest in self._unsaved and self.can_save and time.perf_counter() < deadline:
            if not self._save_part(oldest):
                break
        self._drop(oldest)
        return True

    def _touch(self, kept: _Kept) -> None:
        self._kept.remove(kept)
        self._kept.append(kept)

    def _drop(self, kept: _Kept) -> None:
        self._kept.remove(kept)
        if kept in self._unsaved:
            self._unsaved.remove(kept)
        self._backend.remove(kept.sequence)
        self._free.append(kept.sequence)

    @property
    def has_unsaved(self) -> bool:
        """Whether the store has not got all that it wants."""
        return bool(self._unsaved)

    @property
    def can_save(self) -> bool:
        """Whether there is something that the store wants, and takes now."""
        return bool(self._unsaved) and self._store is not None and self._store.takes_more

    def save_some(self) -> None:
        """Give the store one part of what it wants; a few milliseconds."""
        if self.can_save and not self._save_part(self._unsaved[0]):
            self._unsaved.popleft()

    def _save_part(self, kept: _Kept) -> bool:
        """Save one part of what is kept; returns False where the store has all of it."""
        if self._store is None:
            return False
        tokens = unpacked(kept.tokens)
        if kept.unsaved is None:
            kept.unsaved = self._store.missing(kept.salt, tokens)[::-1]
        if not kept.unsaved:
            return False
        start, end = kept.unsaved.pop()
        self._store.put(kept.salt, tokens, start, end, bytes(self._backend.save(kept.sequence, start, end).data))
        return True

    def close(self, seconds: float) -> None:
        """Save for so long what the store has not got yet, the most recently used first."""
        deadline = time.perf_counter() + seconds
        while self.can_save and time.perf_counter() < deadline:
            if not self._save_part(self._unsaved[-1]):
                self._unsaved.pop()
