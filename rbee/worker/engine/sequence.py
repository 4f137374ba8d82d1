"""Engine-side state of one generation: its job, its tokens so far, its events (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.worker.engine import batching
from rbee.worker.engine.backend import BatchPart
from rbee.worker.engine.detokenizer import Detokenizer

if TYPE_CHECKING:
    from rbee.errors import RbeeError
    from rbee.wire.chat.answer import TokenLogprob
    from rbee.wire.common import Sampling
    from rbee.wire.worker import StopReason
    from rbee.worker.engine.backend import Constraint, Sampler


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

    def sampled(self, now: float) -> None:
        """A token was sampled, which may be the end of the text."""
        if not self.generated:
            self.first_token = now
        self.last_token = now

    def ended(self, outcome: StopReason | RbeeError, text: str) -> JobEnded:
        """Return the last event."""
        prompt, written = self.first_token - self.began, self.last_token - self.first_token
        return JobEnded(self.number, text, self.generated, outcome, prompt, written, self.take_logprobs())

    def take_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Return how probable the tokens since the last event were."""
        taken = tuple(self.logprobs)
        self.logprobs.clear()
        return taken

    def pending(self) -> batching.Pending:
        """Return what the memory does not hold yet, for the planner."""
        count = len(self.tokens) - self.cached
        return batching.Pending(self.slot, count, count == 1 and self.generated > 0, not self.is_scored)

    def part(self, chunk: batching.Chunk) -> BatchPart:
        """Return the tokens of a planned chunk."""
        tokens = self.tokens[self.cached : self.cached + chunk.tokens]
        return BatchPart(self.slot, tokens, self.cached, chunk.is_last, not self.is_scored)

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
