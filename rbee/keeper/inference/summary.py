"""Says in one line what an answer came from, how fast it came, and which limit has ended it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from rbee.keeper.output import render

if TYPE_CHECKING:
    from rbee.wire.queen import TaskHandle, TaskRequest
    from rbee.wire.worker import Done


LEAST_READ: Final = 16
"""Tokens that are left of a prompt for its speed to be told: one alone takes as long as one of the answer."""
_NAMED: Final = 30
"""Characters of a text that is repeated in the line."""


def last_line(task: TaskRequest, handle: TaskHandle, done: Done) -> str:
    """Return the line that follows an answer."""
    timings = None if done.timings is UNSET else done.timings
    # The first token comes of reading the prompt; the others take their time one by one.
    speed = "" if timings is None else _speed(done.total_tokens - 1, timings.text_ms)
    parts = [f"Generated {render.plural(done.total_tokens, 'token')}{speed} with {_short(task.model)} on {handle.node}"]
    if timings is not None:
        cached = timings.cached_tokens
        known = f" ({cached} cached)" if cached else ""
        read = timings.prompt_tokens - cached
        speed = _speed(read, timings.prompt_ms) if says_speed(read, cached) else ""
        prompt = f"{render.plural(timings.prompt_tokens, 'token')}{known}{speed}"
        parts.append(f"prompt: {prompt}, first token after {timings.first_token_ms / 1e3:.2f} s")
    if limit := _limit(task, done):
        parts.append(limit)
    return "; ".join(parts)


def _short(model: str | None) -> str | None:
    """Return a model as people know it: the path of a file would take two lines of a terminal after each answer."""
    return model.rpartition("/")[2] if model is not None and model.startswith("file:") else model


def to_json(task: TaskRequest, handle: TaskHandle, text: str, done: Done) -> dict[str, object]:
    """Return what `--json` prints; a worker of an earlier version leaves out how its time was spent."""
    timings = None if done.timings is UNSET else done.timings
    return {
        "request_id": task.request_id,
        "model": task.model,
        "node": handle.node,
        "worker_id": handle.worker_id,
        "text": text,
        "total_tokens": done.total_tokens,
        "duration_ms": done.duration_ms,
        "stop_reason": done.stop_reason,
        "context_full": done.context is not UNSET,
        "prompt_tokens": None if timings is None else timings.prompt_tokens,
        "cached_tokens": None if timings is None else timings.cached_tokens,
        "prompt_ms": None if timings is None else timings.prompt_ms,
        "first_token_ms": None if timings is None else timings.first_token_ms,
        "text_ms": None if timings is None else timings.text_ms,
    }


def says_speed(read: int, cached: int) -> bool:
    """Whether so many tokens of a prompt, of which others were cached, say how fast a prompt is read."""
    return not cached or read >= LEAST_READ


def _speed(count: int, milliseconds: float) -> str:
    return f" at {count / milliseconds * 1e3:.1f} tokens/s" if count > 0 and milliseconds > 0 else ""


def _limit(task: TaskRequest, done: Done) -> str:
    if done.stop_reason == "stop" and task.stop:
        is_named = len(task.stop) == 1 and len(task.stop[0]) <= _NAMED
        what = f"--stop {json.dumps(task.stop[0], ensure_ascii=False)}" if is_named else "a --stop text"
        return f"stopped at {what}"
    if done.stop_reason != "length":
        return ""
    if (context := done.context) is not UNSET:
        full = f"stopped: the context of {context.tokens} tokens is full"
        more = f" (`context` under [worker] may be up to {context.trained_tokens})"
        return full + more * (context.trained_tokens > context.tokens)
    if task.max_tokens is not UNSET:
        return f"stopped at --max-tokens {task.max_tokens}"
    return "stopped by its worker, which is of an earlier version; --max-tokens N asks for more"
