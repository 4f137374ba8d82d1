"""Counts what the answers of a chat took (PURE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import UNSET

from rbee.keeper.inference.summary import says_speed
from rbee.keeper.output import render

if TYPE_CHECKING:
    from rbee.wire.chat.answer import Usage
    from rbee.wire.worker import Done


@dataclass
class Totals:
    """Tokens and times of all answers, and what the last one left in the context."""

    answers: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompt_ms: float = 0.0
    tokens: int = 0
    reasoning_tokens: int = 0
    text_ms: float = 0.0
    in_context: int = 0

    def add(self, done: Done, usage: Usage | None) -> None:
        """Add an answer."""
        self.answers += 1
        self.tokens += done.total_tokens
        if usage is not None:
            self.cached_tokens += usage.cached_tokens
            self.reasoning_tokens += usage.reasoning_tokens
        if (timings := done.timings) is not UNSET:
            self.prompt_tokens += timings.prompt_tokens
            self.prompt_ms += timings.prompt_ms
            self.text_ms += timings.text_ms
            self.in_context = timings.prompt_tokens + done.total_tokens

    def lines(self, model: str, questions: int) -> str:
        """Return what `/stats` shows."""
        read = self.prompt_tokens - self.cached_tokens
        rows = [
            f"model: {model}",
            f"conversation: {render.plural(questions, 'question')}, {render.plural(self.in_context, 'token')}",
            f"answers: {self.answers}",
            f"prompts: {render.plural(self.prompt_tokens, 'token')}, {self.cached_tokens} of them cached"
            + _speed(read, self.prompt_ms, ", the others at " if self.cached_tokens else ", ")
            * says_speed(read, self.cached_tokens),
            # The first token of each comes of reading the prompt.
            f"text: {render.plural(self.tokens, 'token')}" + _speed(self.tokens - self.answers, self.text_ms),
        ]
        if self.reasoning_tokens:
            rows.append(f"thinking: {render.plural(self.reasoning_tokens, 'token')} of those")
        return "\n".join(rows)


def _speed(count: int, milliseconds: float, before: str = ", ") -> str:
    return f"{before}{count / milliseconds * 1e3:.1f} tokens/s" if count > 0 and milliseconds > 0 else ""
