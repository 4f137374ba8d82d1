"""Turns the jobs of a request into the stream of its answer, as `wire.chat.answer` has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from rbee.adapters.http.sse_server import event
from rbee.errors import CancelledError, RbeeError
from rbee.wire.chat import answer as wire
from rbee.wire.common import Narration
from rbee.wire.progress import Reading
from rbee.worker.serving.follow import Account, follow, milliseconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rbee.adapters.http.sse_server import Send
    from rbee.wire.worker import EndedRequest, FullContext, StopReason
    from rbee.worker.engine.sequence import EngineEvent, JobEnded
    from rbee.worker.engine.slots import JobHandle
    from rbee.worker.serving.echo import EchoedPrompt
    from rbee.worker.serving.follow import RequestClock


class AnswerParser(Protocol):
    """Reads what a model writes for one choice; see `worker.output`."""

    @property
    def calls(self) -> int:
        """How many tools it calls."""

    @property
    def channel(self) -> str:
        """What is being read: `text`, `reasoning` or `call`."""

    @property
    def stop_string(self) -> str | None:
        """The stop string that has ended the text."""

    @property
    def is_done(self) -> bool:
        """Whether nothing that follows belongs to the answer."""

    def feed(self, text: str) -> Sequence[wire.AnswerEvent]:
        """Take more of the text; return what it adds to the answer."""

    def finish(self) -> Sequence[wire.AnswerEvent]:
        """The text has ended; return what was held back."""


@dataclass(frozen=True, slots=True)
class AnswerStream:
    """The answer to one request of `choices` choices, one after the other; `next_job` gets one by number.

    `max_tokens` are those that were asked for, if any were, and `context` is what the model has room for. A client that
    wants to be told more (`narrate`) gets events beside the answer. `on_ended` is told what the request came to.
    """

    job: JobHandle
    clock: RequestClock
    new_parser: Callable[[int], AnswerParser]
    choices: int
    next_job: Callable[[int], Awaitable[JobHandle]]
    max_tokens: int | None
    context: FullContext
    narrate: bool
    echo: EchoedPrompt
    """What stands before each choice's own text."""
    note: str | None = None
    """What the user should know about how the prompt was read."""
    on_ended: Callable[[EndedRequest], None] = lambda _: None

    async def stream(self, send: Send) -> None:
        """Send the events of the stream; raises the error that ends it. Cancelling ends the job."""
        job, totals = self.job, _Totals()
        with Account(job, self.clock, self.on_ended) as account:
            await send.send(self._beginning(job))
            for number in range(self.choices):
                if number:
                    job = await self.next_job(number)
                choice = _Choice(number, self.new_parser(number), send, self.echo)
                await choice.begin()
                async with job:
                    ended = await self._follow(job, choice, send)
                outcome = choice.outcome_of(ended)
                account.ended(ended._replace(outcome=outcome))
                await choice.end(outcome)
                totals.add(ended, choice)
        await send.send(event(self._end(totals)))

    async def _follow(self, job: JobHandle, choice: _Choice, send: Send) -> JobEnded:
        async def show_reading() -> None:
            if self.narrate:
                await send.send(self._reading(job))

        async def show(events: list[EngineEvent]) -> None:
            await choice.take(events)
            if choice.is_done:
                await job.cancel()

        return await follow(job, self.clock, show, show_reading)

    def _beginning(self, job: JobHandle) -> bytes:
        first = event(wire.PromptRead(tokens=job.prompt_tokens))
        if not self.narrate:
            return first
        noted = b"" if self.note is None else self._narration("chat_template", self.note)
        tokens = f"{job.prompt_tokens} prompt token{'s' * (job.prompt_tokens != 1)}"
        return noted + self._narration("inference_start", f"Reading {tokens}") + self._reading(job) + first

    def _end(self, totals: _Totals) -> wire.AnswerEnded:
        is_full = totals.is_cut and (self.max_tokens is None or self.job.limit < self.max_tokens)
        return wire.AnswerEnded(
            usage=wire.Usage(
                prompt_tokens=self.job.prompt_tokens,
                completion_tokens=totals.tokens,
                cached_tokens=totals.cached,
                reasoning_tokens=totals.reasoning,
            ),
            duration_ms=milliseconds(self.clock.elapsed),
            prompt_ms=milliseconds(totals.prompt_seconds),
            first_token_ms=self.clock.first_token_ms or 0.0,
            text_ms=milliseconds(totals.text_seconds),
            context_tokens=self.context.tokens if is_full else None,
        )

    def _reading(self, job: JobHandle) -> bytes:
        reading = Reading(tokens_read=job.prompt_read, tokens_total=job.prompt_tokens, most_tokens=job.limit)
        return event(reading, "progress")

    def _narration(self, action: str, sentence: str) -> bytes:
        narration = Narration(actor="engine", action=action, target=self.job.request_id, human=sentence)
        return event(narration, "narration")


@dataclass(slots=True)
class _Totals:
    """What all choices took together."""

    tokens: int = 0
    reasoning: int = 0
    cached: int = 0
    """Tokens of the prompt that the first choice did not compute: the others find all of it."""
    prompt_seconds: float = 0.0
    text_seconds: float = 0.0
    is_cut: bool = False
    """Whether one of them ended for want of tokens."""

    def add(self, ended: JobEnded, choice: _Choice) -> None:
        self.tokens += ended.tokens
        self.reasoning += choice.reasoning_tokens
        if choice.number == 0:
            self.cached = ended.cached
        self.prompt_seconds += ended.prompt_seconds
        self.text_seconds += ended.text_seconds
        self.is_cut |= ended.outcome == "length"


@dataclass(slots=True)
class _Choice:
    """One of the answers, while it is written."""

    number: int
    parser: AnswerParser
    _send: Send
    _echo: EchoedPrompt
    reasoning_tokens: int = 0
    _tokens: int = 0
    _has_to_echo: bool = False
    _logprobs: list[wire.TokenLogprob] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        return self.parser.is_done

    async def begin(self) -> None:
        """Send what stands before the choice, unless the engine has to say more of it, which its first event does."""
        self._has_to_echo = self._echo.scored > 0
        if not self._has_to_echo:
            await self.send(*self._echo.pieces(self.number))

    async def take(self, events: list[EngineEvent]) -> None:
        """Send what these events add to the answer."""
        pieces: list[wire.AnswerEvent] = []
        for one in events:
            logprobs = one.logprobs
            if self._has_to_echo:
                scored = self._echo.scored
                pieces += self._echo.pieces(self.number, logprobs[:scored])
                logprobs = logprobs[scored:]
                self._has_to_echo = False
            pieces += self.parser.feed(one.text)
            if self.parser.channel == "reasoning":
                self.reasoning_tokens += one.tokens - self._tokens
            elif self.parser.channel == "text":
                self._logprobs += logprobs
            self._tokens = one.tokens
        await self.send(*pieces)

    def outcome_of(self, ended: JobEnded) -> StopReason | RbeeError:
        """Return what ended the choice: a job whose answer was complete has been cancelled for that, or ran on."""
        is_ours = isinstance(ended.outcome, (CancelledError, str))
        return "stop" if self.is_done and is_ours else ended.outcome

    async def end(self, outcome: StopReason | RbeeError) -> None:
        """Send the end. Raises the error that there is in its place."""
        if isinstance(outcome, RbeeError):
            raise outcome
        await self.send(*self.parser.finish())
        if self._logprobs:
            await self.send(wire.TextDelta(choice=self.number))
        reason: Literal["stop", "length", "tool_calls"] = "length" if outcome == "length" else "stop"
        if self.parser.calls and reason == "stop":
            reason = "tool_calls"
        ended = wire.ChoiceEnded(choice=self.number, reason=reason, stop_string=self.parser.stop_string)
        await self.send(ended)

    async def send(self, *pieces: wire.AnswerEvent) -> None:
        """Send these events in one write; a piece of text takes the probabilities along that are not sent yet."""
        sent = []
        for piece in pieces:
            if isinstance(piece, wire.TextDelta) and self._logprobs and not piece.logprobs:
                piece.logprobs, self._logprobs = self._logprobs, []
            sent.append(event(piece))
        if sent:
            await self._send.send(b"".join(sent))
