"""Turns a job's events into the response to its request: an event stream, or one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from rbee.adapters.http.sse_server import event
from rbee.errors import InferenceTimeoutError, RbeeError
from rbee.wire.common import Narration
from rbee.wire.worker import Completion, Done, Token
from rbee.worker.engine.sequence import JobEnded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rbee.adapters.http.sse_server import Send
    from rbee.worker.engine.slots import JobHandle


@dataclass(frozen=True, slots=True)
class InferenceResponse:
    """The response to one request, which was taken at `started` (trio's clock) and may last `seconds`."""

    job: JobHandle
    started: float
    seconds: float

    async def stream(self, send: Send, *, narrate: bool) -> None:
        """Send the events of the stream; raises the error that ends it. Cancelling ends the job."""
        job = self.job
        index = 0

        async def show(texts: list[str]) -> None:
            nonlocal index
            # One write for all that came since the last one: a slow reader is sent fewer, larger packets.
            events = [event(Token(token=text, index=number)) for number, text in enumerate(texts, index)]
            index += len(texts)
            await send.send(b"".join(events))

        async with job:
            if narrate:
                await send.send(
                    self._narration(
                        "inference_start", f"Reading {job.prompt_tokens} prompt token{'s' * (job.prompt_tokens != 1)}"
                    )
                )
            with self._limited() as limit:
                ended = await self._follow(show)
            if limit.cancelled_caught:
                raise self._timed_out()
        done = self._done(ended)
        last = event(done)
        if narrate:
            rate = done.total_tokens / max(done.duration_ms / 1e3, 1e-6)
            counted = f"{done.total_tokens} token{'s' * (done.total_tokens != 1)}"
            sentence = f"Generated {counted} in {done.duration_ms:.0f} ms ({rate:.1f} tokens/s)"
            last = self._narration("inference_end", sentence) + last
        await send.send(last)

    async def whole(self) -> Completion:
        texts: list[str] = []

        async def collect(more: list[str]) -> None:
            texts.extend(more)

        async with self.job as job:
            with self._limited() as limit:
                ended = await self._follow(collect)
            if limit.cancelled_caught:
                raise self._timed_out()
        done = self._done(ended)
        return Completion(
            request_id=job.request_id,
            text="".join(texts),
            total_tokens=done.total_tokens,
            prompt_tokens=job.prompt_tokens,
            duration_ms=done.duration_ms,
            stop_reason=done.stop_reason,
        )

    async def _follow(self, show: Callable[[list[str]], Awaitable[None]]) -> JobEnded:
        """Pass on text until the end."""
        while True:
            events = await self.job.next()
            if texts := [item.text for item in events if item.text]:
                await show(texts)
            if isinstance(last := events[-1], JobEnded):
                return last

    def _limited(self) -> trio.CancelScope:
        return trio.CancelScope(deadline=self.started + self.seconds)

    def _timed_out(self) -> InferenceTimeoutError:
        tokens = self.job.tokens
        return InferenceTimeoutError(
            f"the inference did not end within {self.seconds:g} s ({tokens} tokens so far)",
            elapsed=round(trio.current_time() - self.started, 3),
            tokens=tokens,
        )

    def _done(self, ended: JobEnded) -> Done:
        if isinstance(ended.outcome, RbeeError):
            raise ended.outcome
        return Done(
            total_tokens=ended.tokens,
            duration_ms=round((trio.current_time() - self.started) * 1e3, 2),
            stop_reason=ended.outcome,
        )

    def _narration(self, action: str, sentence: str) -> bytes:
        narration = Narration(actor="engine", action=action, target=self.job.request_id, human=sentence)
        return event(narration, "narration")
