"""A generation as the engine sees it: what it is to do, what it has come to, and what it tells of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.worker.engine import batching
from rbee.worker.engine.detokenizer import TextAssembler
from rbee.worker.llama.sampling import Sampler

if TYPE_CHECKING:
    from rbee.errors import RbeeError
    from rbee.wire.common import Sampling
    from rbee.wire.worker import StopReason


class Work(NamedTuple):
    """A generation to run in `slot`: at most `limit` tokens after those of the prompt. `number` is its own for ever."""

    number: int
    slot: int
    prompt: list[int]
    options: Sampling
    limit: int


class Piece(NamedTuple):
    """Text that the sequence of that work has grown by; `tokens` counts all that were generated so far."""

    number: int
    text: str
    tokens: int


class Ended(NamedTuple):
    """The last news of a work, whose sequence is out of the context by now; `reason` is None after a failure."""

    number: int
    text: str
    tokens: int
    reason: StopReason | None
    error: RbeeError | None = None


News = Piece | Ended


class Sequence:
    """What the engine thread knows of a running generation.

    `tokens` holds the prompt and what was generated; the context holds the first `cached` of them. So a sequence whose
    cells were given up is simply one with nothing cached.
    """

    def __init__(self, work: Work, vocabulary: int) -> None:
        self.number = work.number
        self.slot = work.slot
        self.tokens = work.prompt
        self.cached = 0
        self.prompt_length = len(work.prompt)
        self.limit = work.limit
        self.sampler = Sampler(work.options, vocabulary)
        self.text = TextAssembler(work.options.stop or ())
        self.is_parked = False
        self.has_spoken = False

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    def pending(self) -> batching.Pending:
        count = len(self.tokens) - self.cached
        return batching.Pending(self.slot, count, count == 1 and self.generated > 0)
