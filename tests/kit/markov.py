"""A back-end without llama.cpp: the Markov chain of tests.kit.models, with a memory that checks how it is used."""

from __future__ import annotations

import threading
import zlib
from array import array
from typing import TYPE_CHECKING

from rbee.errors import InvalidRequestError
from rbee.wire.chat.answer import TokenChance, TokenLogprob
from rbee.worker.engine.backend import DecodeAbortedError, NoRoomError, SavedState, StateMismatchError
from tests.kit import models

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rbee.wire.common import Sampling
    from rbee.worker.engine.backend import BatchPart, Constraint


class MarkovVocabulary:
    """A token for each byte, as in the models of tests.kit.models."""

    chat_template = tools_template = None
    begin_text = "<s>"
    tokens = models.SPACE + 1
    end_text = "</s>"

    def tokenize(self, text: str, *, begin: bool = True, control: bool = False) -> list[int]:
        return [models.BEGIN] * begin + [models.byte(value) for value in text.encode()]

    def control_tokens(self) -> dict[str, int]:
        return {}

    def piece(self, token: int, *, control: bool = False) -> bytes:
        return b" " if token == models.SPACE else bytes([token - models.FIRST_BYTE])

    def is_end(self, token: int) -> bool:
        return token == models.END

    def infill_tokens(self) -> tuple[int, int, int] | None:
        return None

    def end_tokens(self) -> list[int]:
        return [models.END]

    def constrained(self, grammar: str) -> Constraint:
        raise InvalidRequestError("this model keeps to no grammar", field="format", rule="left out")


class MarkovSampler:
    """The token that the chain names."""

    logprob = None

    def __init__(self, backend: MarkovBackend) -> None:
        self._backend = backend
        self._is_open = True
        backend.samplers += 1

    def sample(self, row: int) -> int:
        assert self._is_open
        return self._backend.rows[row]

    def scored(self, row: int, token: int) -> TokenLogprob:
        """Certain where the chain names this token."""
        is_named = self._backend.rows[row] == token
        return TokenLogprob(chosen=TokenChance(token=token, data=b"", logprob=0.0 if is_named else -1.0))

    def close(self) -> None:
        assert self._is_open
        self._is_open = False
        self._backend.samplers -= 1


class MarkovBackend:
    """An `engine.backend.Backend` of `room` tokens for all sequences together.

    It computes nothing, and asserts that positions follow each other, that a batch is no larger than allowed, and that
    one thread uses it. `before_decode` runs before each decode, with the number of decodes so far.
    """

    trained_length = 2048

    def __init__(
        self,
        *,
        slots: int = 3,
        length: int = 512,
        batch: int = 64,
        room: int | None = None,
        can_cut: bool = True,
        spare: int = 0,
        before_decode: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.vocabulary = MarkovVocabulary()
        self.follows = models.chain()
        self.slots = slots
        self.length = length
        self.batch = batch
        self.threads = 2
        self.prompt_step = batch
        self.scored_step = 5
        self.decoding_threads = self.threads
        self.pool = self.room = slots * length if room is None else room
        self.can_cut = can_cut
        self.before_decode = before_decode
        self.spare = range(slots, slots + spare)
        self.origin = b"markov"
        self.memory: list[list[int]] = [[] for _ in range(slots + spare)]
        self.rows: dict[int, int] = {}
        """What follows the tokens of the last batch whose logits were wanted, by row."""
        self.share = 0.0
        """How much of a decode is said to be computed while it runs."""
        self.samplers = 0
        self.computed = 0
        """Tokens that were decoded."""
        self.decodes = self.restores = 0
        self._is_aborted = threading.Event()

    def next_of(self, tokens: Sequence[int]) -> int:
        """Return the token that follows these."""
        return self.follows[tokens[-1]]

    def new_sampler(self, options: Sampling, constraint: Constraint | None = None) -> MarkovSampler:
        return MarkovSampler(self)

    def set_threads(self, count: int) -> None:
        assert 1 <= count <= self.threads
        self.decoding_threads = count

    def decode(self, parts: Sequence[BatchPart]) -> list[int]:
        self.decodes += 1
        self.before_decode(self.decodes)
        assert 0 < sum(len(part.tokens) for part in parts) <= self.batch
        assert len({part.sequence for part in parts}) == len(parts)
        assert sum(len(part.tokens) - 1 for part in parts if part.wants_all) < self.scored_step
        if self._is_aborted.is_set():
            for part in parts:  # a beginning of each may be there
                self._append(part, len(part.tokens) // 2)
            raise DecodeAbortedError
        if sum(len(part.tokens) for part in parts) + sum(map(len, self.memory)) > self.room:
            raise NoRoomError
        rows, row = [], -1
        self.rows = {}
        for part in parts:
            self._append(part, len(part.tokens))
            row += len(part.tokens)
            rows.append(row)
            wanted = len(part.tokens) if part.wants_all else int(part.wants_logits)
            held = self.memory[part.sequence]
            self.rows |= {row - back: self.next_of(held[: len(held) - back]) for back in range(wanted)}
        return rows

    def _append(self, part: BatchPart, count: int) -> None:
        held = self.memory[part.sequence]
        assert part.position == len(held)
        assert len(held) + len(part.tokens) <= self.length
        held += part.tokens[:count]
        self.computed += count

    def decoded(self) -> float:
        return self.share

    def abort(self) -> None:
        self._is_aborted.set()

    def clear_abort(self) -> None:
        self._is_aborted.clear()

    def copy(self, source: int, target: int, length: int) -> bool:
        self.memory[target] = self.memory[source][:length]
        return True

    def remove(self, sequence: int, start: int = 0) -> bool:
        if start and not self.can_cut:
            return False
        del self.memory[sequence][start:]
        return True

    def save(self, sequence: int, start: int = 0, end: int | None = None) -> SavedState:
        held = self.memory[sequence]
        end = len(held) if end is None else end
        assert self.can_cut or (start, end) == (0, len(held))
        return SavedState(self.origin, start, end, b"".join(token.to_bytes(2, "little") for token in held[start:end]))

    def restore(self, sequence: int, state: SavedState) -> None:
        if state.origin != self.origin:
            raise StateMismatchError
        self.restores += 1
        assert state.start in (0, len(self.memory[sequence]))
        self.remove(sequence, state.start)
        if sum(map(len, self.memory)) + state.end - state.start > self.room:
            raise NoRoomError
        pairs = zip(state.data[::2], state.data[1::2], strict=True)
        self.memory[sequence] += [low + 256 * high for low, high in pairs]


class HistoryBackend(MarkovBackend):
    """A back-end in which each token follows from all earlier ones: who takes over what is not his writes nonsense."""

    def next_of(self, tokens: Sequence[int]) -> int:
        return history_next(tokens)


def history_next(tokens: Sequence[int]) -> int:
    """Return the letter that follows these tokens; the text ends after one of a hundred."""
    value = zlib.crc32(array("i", tokens).tobytes())
    return models.END if value % 100 == 0 else models.byte(ord("A") + value % 26)
