"""The parts that OpenAI's answers are made of: heads, usage, probabilities (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from rbee.errors import WorkerFailedError
from rbee.wire.chat.answer import Usage
from rbee.wire.dialects.openai_answer import (
    OpenAICachedTokens,
    OpenAIChance,
    OpenAILogprobs,
    OpenAIReasoningTokens,
    OpenAITokenLogprob,
    OpenAIUsage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.chat.answer import TokenChance, TokenLogprob

LAST: Final = b"data: [DONE]\n\n"
"""Ends a stream, but none that has failed."""
IMPOSSIBLE: Final = -9999.0
"""OpenAI's number for what has no probability to speak of."""


class Head(NamedTuple):
    """What all chunks of an answer have in common: `model` is the name that was asked for, `created` Unix seconds."""

    id: str
    created: int
    model: str


def frame(chunk: msgspec.Struct) -> bytes:
    """Return a chunk as an event of a stream."""
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def cut_off() -> WorkerFailedError:
    """Return the error of an answer that ended before it was whole."""
    return WorkerFailedError("the worker ended the answer before it was complete")


def usage_of(usage: Usage) -> OpenAIUsage:
    return OpenAIUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=OpenAICachedTokens(cached_tokens=usage.cached_tokens),
        completion_tokens_details=OpenAIReasoningTokens(reasoning_tokens=usage.reasoning_tokens),
    )


def sum_of(usages: Sequence[Usage]) -> Usage:
    """Return what several generations took together."""
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
    )


def token_text(chance: TokenChance) -> str:
    """Return a token as text; a part of a character becomes a replacement character."""
    return chance.data.decode("utf-8", "replace")


def _number(chance: TokenChance) -> float:
    return IMPOSSIBLE if chance.logprob is None else chance.logprob


def logprobs_of(logprobs: Sequence[TokenLogprob]) -> OpenAILogprobs | None:
    return OpenAILogprobs(content=[_token(logprob) for logprob in logprobs]) if logprobs else None


def _token(logprob: TokenLogprob) -> OpenAITokenLogprob:
    chosen = logprob.chosen
    return OpenAITokenLogprob(
        token=token_text(chosen),
        logprob=_number(chosen),
        bytes=list(chosen.data),
        top_logprobs=[
            OpenAIChance(token=token_text(one), logprob=_number(one), bytes=list(one.data)) for one in logprob.top
        ],
    )
