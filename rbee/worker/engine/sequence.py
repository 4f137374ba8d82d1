"""Engine-side state of one generation: its job, its tokens so far, its events (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.worker.engine import batching
from rbee.worker.engine.backend import BatchPart
from rbee.worker.engine.detokenizer import Detokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rbee.errors import RbeeError
    from rbee.wire.chat.answer import TokenLogprob
    from rbee.wire.common import Sampling
    from rbee.wire.worker import StopReason
    from rbee.worker.engine.backend import Constraint, Sampler
    from rbee.worker.engine.draft import Drafter
    from rbee.worker.engine.state_store import StoredPart


class Job(NamedTuple):
    """A generation to run in `slot`: at most `limit` tokens after those of the prompt. No two have one `number`."""

    number: int
    slot: int
    prompt: list[int]
    options: Sampling
    limit: int
    constraint: Constraint | None = None
    shows_control: bool = False
    """Whether the names of control tokens are part of the text: a tool call may begin with one."""
    scored: int = 0
    """Of how many tokens at the end of the prompt it is told how probable they were."""
    salt: bytes = b""
    """Only jobs with the same salt use what one another has computed."""
    uses_cache: bool = True


class TextEvent(NamedTuple):
    """Text that a job has grown by; `tokens` counts all that it has generated so far."""

    number: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


class JobEnded(NamedTuple):
    """A job's last event, perhaps with text; its sequence is out of the memory by now."""

    number: int
    text: str
    tokens: int
    outcome: StopReason | RbeeError
    prompt_seconds: float = 0.0
    """From its beginning to its first token."""
    text_seconds: float = 0.0
    """From its first token to its last."""
    logprobs: tuple[TokenLogprob, ...] = ()
    cached: int = 0
    """Tokens of the prompt that had been computed before."""


EngineEvent = TextEvent | JobEnded


class EngineSequence:
    """A job that the engine runs, or has preempted.

    `tokens` holds the prompt and what was generated; the back-end's memory holds the first `cached` of them. So a
    sequence that was taken out of the memory is simply one with nothing cached.
    """

    def __init__(self, job: Job, sampler: Sampler, now: float) -> None:
        self.number = job.number
        self.slot = job.slot
        self.tokens = list(job.prompt)
        self.cached = 0
        self.decoding = 0
        """Tokens in the decode that runs."""
        self.prompt_length = len(job.prompt)
        self.limit = job.limit
        self.sampler = sampler
        self.text = Detokenizer(job.options.stop or ())
        self.shows_control = job.shows_control
        self._scored = self.prompt_length - job.scored
        """The tokens of the prompt of which it is known how probable they were, or of which nobody asks that."""
        self.salt = job.salt
        self.uses_cache = job.uses_cache
        self.reused = 0
        """Tokens of the prompt that were in the memory, or saved, before any was computed."""
        self.exact = 0
        """Tokens, from the first, that were computed step by step as a request that is alone computes them."""
        self.leader: EngineSequence | None = None
        """The sequence that this one waits for, until that has `follow_length` tokens in the memory."""
        self.follow_length = 0
        self.parts: Iterator[StoredPart] | None = None
        """Saved states that are to be put back before it goes on."""
        self.marks: set[int] = set()
        """Lengths at which a state is saved that cannot be cut later."""
        self.drafter: Drafter | None = None
        """Guesses what comes next, once the first token is there."""
        self.guessed: Sequence[int] = ()
        """Tokens that are computed behind the one that is due, in case they are what comes next."""
        self.is_parked = False
        """Whether it waits for another sequence to end, since the memory has no room for both."""
        self.has_output = False
        self.logprobs: list[TokenLogprob] = []
        """Of the tokens that no event has told of yet."""
        self.is_seeded = job.options.seed is not None
        """Whether the same request is to yield the same text."""
        self.began = self.first_token = self.last_token = now
        """When the engine took the job, and sampled its first and its last token so far."""

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_length

    @property
    def reusable(self) -> int:
        """The most tokens that may be taken over: the logits of the others are wanted."""
        return (len(self.tokens) if self.is_scored else self._scored) - 1

    @property
    def is_waiting(self) -> bool:
        """Whether it is to get tokens that it does not compute itself."""
        return self.leader is not None or self.parts is not None

    def shares_with(self, other: EngineSequence) -> bool:
        """Whether one of the two may use what the other has computed."""
        return self.uses_cache and other.uses_cache and self.salt == other.salt

    def follow(self, leader: EngineSequence, length: int) -> None:
        """Wait until `leader` has `length` tokens in the memory."""
        self.leader, self.follow_length = leader, length
        leader.marks.add(length)

    def may_guess(self, most: int) -> int:
        """Return how many of `most` tokens may be guessed: none beyond the last that is wanted."""
        # What a seed repeats must not hang on what guessing is measured to gain.
        return 0 if self.is_seeded else min(most, self.limit - self.generated - 1)

    def took_over(self, length: int, exact: int) -> None:
        """The memory holds `length` of its tokens, which others have computed."""
        self.cached, self.exact = length, exact
        if not self.generated:
            self.reused = length

    def lost(self, length: int = 0) -> None:
        """The memory holds only `length` of its tokens any more."""
        self.cached, self.exact = length, min(length, self.exact)

    def sampled(self, now: float) -> None:
        """A token was sampled, which may be the end of the text."""
        if not self.generated:
            self.first_token = now
        self.last_token = now

    def ended(self, outcome: StopReason | RbeeError, text: str) -> JobEnded:
        """Return the last event."""
        prompt, written = self.first_token - self.began, self.last_token - self.first_token
        logprobs = self.take_logprobs()
        return JobEnded(self.number, text, self.generated, outcome, prompt, written, logprobs, self.reused)

    def take_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Return how probable the tokens since the last event were."""
        taken = tuple(self.logprobs)
        self.logprobs.clear()
        return taken

    def pending(self) -> batching.Pending:
        """Return what the memory does not hold yet, for the planner."""
        count = len(self.tokens) - self.cached
        is_decoding = count == 1 and self.generated > 0
        marked = min((mark - self.cached for mark in self.marks if mark > self.cached), default=count)
        return batching.Pending(
            self.slot, min(count, marked), is_decoding, is_scored=not self.is_scored, is_whole=marked >= count
        )

    def part(self, chunk: batching.Chunk) -> BatchPart:
        """Return the tokens of a planned chunk."""
        tokens = self.tokens[self.cached : self.cached + chunk.tokens]
        wants_all = not self.is_scored or bool(self.guessed)
        return BatchPart(self.slot, [*tokens, *self.guessed], self.cached, chunk.is_last, wants_all)

    @property
    def is_scored(self) -> bool:
        """Whether nothing is left to be said of how probable the prompt was."""
        return self._scored >= self.prompt_length

    def score(self, chunk: batching.Chunk, row: int) -> None:
        """Note how probable each token of the prompt was that follows one of this chunk; `row` is that of its last.

        A chunk may come again, where the sequence was taken out of the memory meanwhile.
        """
        end = self.cached + chunk.tokens
        for at in range(max(self._scored, self.cached + 1), min(end + 1, self.prompt_length)):
            if (logprob := self.sampler.scored(row - (end - at), self.tokens[at])) is not None:
                self.logprobs.append(logprob)
            self._scored = at + 1
