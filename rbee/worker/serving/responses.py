"""Turns a job's events into the response to its request: an event stream, or one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio
from msgspec import UNSET

from rbee.adapters.http.sse_server import event
from rbee.errors import RbeeError
from rbee.wire.common import Narration
from rbee.wire.progress import Reading
from rbee.wire.worker import Completion, Done, EndedRequest, FullContext, Timings, Token
from rbee.worker.serving.follow import Account, RequestClock, follow, milliseconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rbee.adapters.http.sse_server import Send
    from rbee.wire.worker import StopReason
    from rbee.worker.engine.sequence import EngineEvent, JobEnded
    from rbee.worker.engine.slots import JobHandle


@dataclass(frozen=True, slots=True)
class InferenceResponse:
    """The response to one request.

    `max_tokens` are those that were asked for, if any were, and `context` is what the model has room for. A client that
    wants to be told more (`narrate`) gets events beside the text, and timings at its end. `on_ended` is told what the
    request came to.
    """

    job: JobHandle
    clock: RequestClock
    max_tokens: int | None
    context: FullContext
    narrate: bool
    note: str | None = None
    """What the user should know about how the prompt was read."""
    on_ended: Callable[[EndedRequest], None] = lambda _: None

    async def stream(self, send: Send) -> None:
        """Send the events of the stream; raises the error that ends it. Cancelling ends the job."""
        job = self.job
        index = 0

        async def show(texts: list[str]) -> None:
            nonlocal index
            # One write for all that came since the last one: a slow reader is sent fewer, larger packets.
            events = [event(Token(token=text, index=number)) for number, text in enumerate(texts, index)]
            index += len(texts)
            await send.send(b"".join(events))

        async def show_reading() -> None:
            if self.narrate:
                await send.send(self._reading(job.prompt_read))

        async def begin() -> None:
            if self.narrate and self.note is not None:
                await send.send(self._narration("chat_template", self.note))
            if self.narrate:
                tokens = f"{job.prompt_tokens} prompt token{'s' * (job.prompt_tokens != 1)}"
                # The engine may have read some already, on its own thread: to the client it begins here.
                await send.send(self._narration("inference_start", f"Reading {tokens}") + self._reading(0))

        async with job:
            ended = await self._follow(begin, show, show_reading)
        done = self._done(ended)
        last = event(done)
        if self.narrate:
            last = self._narration("inference_end", _sentence(done)) + last
        await send.send(last)

    async def whole(self) -> Completion:
        texts: list[str] = []

        async def collect(more: list[str]) -> None:
            texts.extend(more)

        async with self.job as job:
            ended = await self._follow(trio.lowlevel.checkpoint, collect, trio.lowlevel.checkpoint)
        done = self._done(ended)
        return Completion(
            request_id=job.request_id,
            text="".join(texts),
            total_tokens=done.total_tokens,
            prompt_tokens=job.prompt_tokens,
            duration_ms=done.duration_ms,
            stop_reason=done.stop_reason,
            timings=done.timings,
            context=done.context,
        )

    async def _follow(
        self,
        begin: Callable[[], Awaitable[None]],
        show: Callable[[list[str]], Awaitable[None]],
        show_reading: Callable[[], Awaitable[None]],
    ) -> JobEnded:
        """Pass on text until the end; returns that."""

        async def show_texts(events: list[EngineEvent]) -> None:
            if texts := [item.text for item in events if item.text]:
                await show(texts)

        with Account(self.job, self.clock, self.on_ended) as account:
            await begin()
            ended = await follow(self.job, self.clock, show_texts, show_reading)
            account.ended(ended)
        return ended

    def _done(self, ended: JobEnded) -> Done:
        if isinstance(ended.outcome, RbeeError):
            raise ended.outcome
        return Done(
            total_tokens=ended.tokens,
            duration_ms=milliseconds(self.clock.elapsed),
            stop_reason=ended.outcome,
            timings=self._timings(ended) if self.narrate else UNSET,
            context=self.context if self._is_full(ended.outcome) else UNSET,
        )

    def _timings(self, ended: JobEnded) -> Timings:
        return Timings(
            prompt_tokens=self.job.prompt_tokens,
            prompt_ms=milliseconds(ended.prompt_seconds),
            first_token_ms=self.clock.first_token_ms or 0.0,
            text_ms=milliseconds(ended.text_seconds),
            cached_tokens=ended.cached,
        )

    def _is_full(self, outcome: StopReason) -> bool:
        """Whether the end of the context, and not what was asked for, has ended the text."""
        return outcome == "length" and (self.max_tokens is None or self.job.limit < self.max_tokens)

    def _reading(self, tokens: int) -> bytes:
        job = self.job
        reading = Reading(tokens_read=tokens, tokens_total=job.prompt_tokens, most_tokens=job.limit)
        return event(reading, "progress")

    def _narration(self, action: str, sentence: str) -> bytes:
        narration = Narration(actor="engine", action=action, target=self.job.request_id, human=sentence)
        return event(narration, "narration")


def _sentence(done: Done) -> str:
    counted = f"{done.total_tokens} token{'s' * (done.total_tokens != 1)}"
    return f"Generated {counted} in {done.duration_ms:.0f} ms"
