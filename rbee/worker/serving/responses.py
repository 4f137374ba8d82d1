"""Turns a job's events into the response to its request: an event stream, or one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio
from msgspec import UNSET

from rbee.adapters.http.sse_server import event
from rbee.errors import InferenceTimeoutError, RbeeError
from rbee.wire.common import Narration
from rbee.wire.progress import Reading
from rbee.wire.worker import Completion, Done, EndedRequest, FullContext, Timings, Token
from rbee.worker.engine.sequence import JobEnded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rbee.adapters.http.sse_server import Send
    from rbee.wire.worker import StopReason
    from rbee.worker.engine.slots import JobHandle

READING_SECONDS: Final = 0.5
"""Between two reports of how much of a prompt is read; also between two looks whether the engine still lives."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A response may last `total` seconds, or any time where that is 0, and the engine be silent for `silence`."""

    total: float
    silence: float


@dataclass(frozen=True, slots=True)
class InferenceResponse:
    """The response to one request, which was taken at `started` (trio's clock).

    `max_tokens` are those that were asked for, if any were, and `context` is what the model has room for. A client that
    wants to be told more (`narrate`) gets events beside the text, and timings at its end. `on_ended` is told what the
    request came to.
    """

    job: JobHandle
    started: float
    limits: Limits
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
            ended, first = await self._follow(begin, show, show_reading)
        done = self._done(ended, first)
        last = event(done)
        if self.narrate:
            last = self._narration("inference_end", _sentence(done)) + last
        await send.send(last)

    async def whole(self) -> Completion:
        texts: list[str] = []

        async def collect(more: list[str]) -> None:
            texts.extend(more)

        async with self.job as job:
            ended, first = await self._follow(trio.lowlevel.checkpoint, collect, trio.lowlevel.checkpoint)
        done = self._done(ended, first)
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
    ) -> tuple[JobEnded, float]:
        """Pass on text until the end; returns that, and when the first token had come (trio's clock)."""
        end = "CANCELLED"  # the client has gone, where nothing else was the reason
        ended, firsts = None, list[float]()
        try:
            await begin()
            ended = await self._follow_to_end(show, show_reading, firsts)
            end = ended.outcome.code if isinstance(ended.outcome, RbeeError) else ended.outcome
        except RbeeError as exc:
            end = exc.code
            raise
        finally:
            self.on_ended(
                EndedRequest(
                    request_id=self.job.request_id,
                    prompt_tokens=self.job.prompt_tokens,
                    total_tokens=self.job.tokens if ended is None else ended.tokens,
                    first_token_ms=_milliseconds(firsts[0] - self.started) if firsts else None,
                    duration_ms=_milliseconds(trio.current_time() - self.started),
                    end=end,
                )
            )
        return ended, firsts[0]

    async def _follow_to_end(
        self,
        show: Callable[[list[str]], Awaitable[None]],
        show_reading: Callable[[], Awaitable[None]],
        firsts: list[float],
    ) -> JobEnded:
        job = self.job
        # Counted in looks, and not by the clock: of a worker that was stopped for a while (SIGSTOP) it has gone on.
        silent, progress = 0.0, -1.0
        with trio.CancelScope(deadline=self.started + (self.limits.total or float("inf"))):
            while True:
                with trio.move_on_after(READING_SECONDS) as pause:
                    events = await job.next()
                if pause.cancelled_caught:
                    silent = silent + READING_SECONDS if job.progress == progress else 0.0
                    progress = job.progress
                    if silent >= self.limits.silence:
                        raise self._timed_out(f"nothing came of the engine for {self.limits.silence:g} s")
                    if not firsts:
                        await show_reading()
                    continue
                silent = 0.0
                if not firsts:
                    firsts.append(trio.current_time())
                if texts := [item.text for item in events if item.text]:
                    await show(texts)
                if isinstance(last := events[-1], JobEnded):
                    return last
        raise self._timed_out(f"the inference did not end within {self.limits.total:g} s")

    def _timed_out(self, what: str) -> InferenceTimeoutError:
        tokens = self.job.tokens
        return InferenceTimeoutError(
            f"{what} ({tokens} tokens so far)", elapsed=round(trio.current_time() - self.started, 3), tokens=tokens
        )

    def _done(self, ended: JobEnded, first: float) -> Done:
        if isinstance(ended.outcome, RbeeError):
            raise ended.outcome
        return Done(
            total_tokens=ended.tokens,
            duration_ms=_milliseconds(trio.current_time() - self.started),
            stop_reason=ended.outcome,
            timings=self._timings(ended, first) if self.narrate else UNSET,
            context=self.context if self._is_full(ended.outcome) else UNSET,
        )

    def _timings(self, ended: JobEnded, first: float) -> Timings:
        return Timings(
            prompt_tokens=self.job.prompt_tokens,
            prompt_ms=_milliseconds(ended.prompt_seconds),
            first_token_ms=_milliseconds(first - self.started),
            text_ms=_milliseconds(ended.text_seconds),
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


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 2)
