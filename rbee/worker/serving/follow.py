"""Follows a job to its end: passes on its events, and gives up one whose engine does nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import trio

from rbee.errors import InferenceTimeoutError, RbeeError
from rbee.wire.worker import EndedRequest
from rbee.worker.engine.sequence import JobEnded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rbee.worker.engine.sequence import EngineEvent
    from rbee.worker.engine.slots import JobHandle

READING_SECONDS: Final = 0.5
"""Between two reports of how much of a prompt is read; also between two looks whether the engine still lives."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A response may last `total` seconds, or any time where that is 0, and the engine be silent for `silence`."""

    total: float
    silence: float


@dataclass(slots=True)
class RequestClock:
    """When a request was taken and had its first token (trio's clock), and within what limits it has to end."""

    started: float
    limits: Limits
    first: float | None = None
    deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = self.started + (self.limits.total or float("inf"))

    @property
    def elapsed(self) -> float:
        """Seconds since the request was taken."""
        return trio.current_time() - self.started

    @property
    def first_token_ms(self) -> float | None:
        """How long the first token took."""
        return None if self.first is None else milliseconds(self.first - self.started)


async def follow(
    job: JobHandle,
    clock: RequestClock,
    show: Callable[[list[EngineEvent]], Awaitable[object]],
    show_reading: Callable[[], Awaitable[object]],
) -> JobEnded:
    """Pass on a job's events until its end, which is the last of them; `show_reading` is called until there is one.

    Raises InferenceTimeoutError where a limit of the clock is reached.
    """
    # Counted in looks, and not by the clock: of a worker that was stopped for a while (SIGSTOP) it has gone on.
    silent, progress = 0.0, -1.0
    with trio.CancelScope(deadline=clock.deadline):
        while True:
            with trio.move_on_after(READING_SECONDS) as pause:
                events = await job.next()
            if pause.cancelled_caught:
                silent = silent + READING_SECONDS if job.progress == progress else 0.0
                progress = job.progress
                if silent >= clock.limits.silence:
                    raise _timed_out(job, clock, f"nothing came of the engine for {clock.limits.silence:g} s")
                if clock.first is None:
                    await show_reading()
                continue
            silent = 0.0
            if clock.first is None:
                clock.first = trio.current_time()
            await show(events)
            if isinstance(last := events[-1], JobEnded):
                return last
    raise _timed_out(job, clock, f"the inference did not end within {clock.limits.total:g} s")


def _timed_out(job: JobHandle, clock: RequestClock, what: str) -> InferenceTimeoutError:
    tokens = job.tokens
    return InferenceTimeoutError(f"{what} ({tokens} tokens so far)", elapsed=round(clock.elapsed, 3), tokens=tokens)


@dataclass(slots=True)
class Account:
    """Tells `on_ended` what a request came to, whichever way it ends: a context manager around all of it."""

    job: JobHandle
    clock: RequestClock
    on_ended: Callable[[EndedRequest], None]
    tokens: int = 0
    """All that were generated."""
    cached: int = 0
    """Tokens of the prompt that the first job did not compute."""
    end: str = "CANCELLED"
    """The client has gone, where nothing else was the reason."""

    def __enter__(self) -> Self:
        return self

    def ended(self, job_ended: JobEnded) -> None:
        """A job of the request has ended."""
        if self.end == "CANCELLED":
            self.cached = job_ended.cached
        self.tokens += job_ended.tokens
        self.end = job_ended.outcome.code if isinstance(job_ended.outcome, RbeeError) else job_ended.outcome

    def __exit__(self, _kind: object, value: BaseException | None, _trace: object) -> None:
        if isinstance(value, RbeeError):
            self.end = value.code
        self.on_ended(
            EndedRequest(
                request_id=self.job.request_id,
                prompt_tokens=self.job.prompt_tokens,
                cached_tokens=self.cached,
                total_tokens=max(self.tokens, self.job.tokens),
                first_token_ms=self.clock.first_token_ms,
                duration_ms=milliseconds(self.clock.elapsed),
                end=self.end,
            )
        )


def milliseconds(seconds: float) -> float:
    """Return seconds as milliseconds, to a hundredth."""
    return round(seconds * 1e3, 2)
