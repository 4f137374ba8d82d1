"""How a conversation goes on: what a worker answers, and what every dialect is translated from.

In this order: PromptRead, then for each choice its deltas and a ChoiceEnded, then AnswerEnded. An error takes the place
of what would follow.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

from rbee.wire.common import Message


class TokenChance(Message, kw_only=True, omit_defaults=True):
    """The logarithm of a token's probability; `data` are the token's bytes, which may be a part of a character.

    The first token of a prompt that is echoed follows nothing, and has no probability.
    """

    token: int
    data: bytes
    logprob: float | None


class TokenLogprob(Message, kw_only=True, omit_defaults=True):
    """A token that was chosen, and the likeliest ones at its place, the likeliest first."""

    chosen: TokenChance
    top: list[TokenChance] = msgspec.field(default_factory=list)


class PromptRead(Message, tag_field="type", tag="prompt", kw_only=True):
    """The prompt's tokens are read; `cached` of them were known from an earlier request."""

    tokens: int
    cached: int = 0


class TextDelta(Message, tag_field="type", tag="text", kw_only=True, omit_defaults=True):
    """The answer goes on: whole characters, without what belongs to a stop string or a tool call."""

    choice: int = 0
    text: str = ""
    logprobs: list[TokenLogprob] = msgspec.field(default_factory=list)


class ReasoningDelta(Message, tag_field="type", tag="reasoning", kw_only=True, omit_defaults=True):
    """What the model thinks before it answers goes on."""

    choice: int = 0
    text: str


class ToolCallBegan(Message, tag_field="type", tag="tool_call", kw_only=True, omit_defaults=True):
    """The model calls a tool; `index` counts the calls of a choice from 0. Its arguments follow."""

    choice: int = 0
    index: int
    id: str
    name: str


class ToolCallDelta(Message, tag_field="type", tag="arguments", kw_only=True, omit_defaults=True):
    """The arguments of a call go on; all pieces of a call together are the text of a JSON object."""

    choice: int = 0
    index: int
    arguments: str


class ChoiceEnded(Message, tag_field="type", tag="choice_ended", kw_only=True, omit_defaults=True):
    """A choice is complete. `stop` is the end of the model's text or a stop string, which `stop_string` names then;
    `length` that no more tokens were wanted, or that the context is full; `tool_calls` that it waits for tools."""

    choice: int = 0
    reason: Literal["stop", "length", "tool_calls"]
    stop_string: str | None = None


class Usage(Message, kw_only=True):
    """How many tokens were read and written in all; `cached` and `reasoning` are some of those."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class AnswerEnded(Message, tag_field="type", tag="answer_ended", kw_only=True, omit_defaults=True):
    """The last event: what it took. Times are in milliseconds, as those of `wire.worker.Timings`."""

    usage: Usage
    duration_ms: float
    prompt_ms: float = 0.0
    first_token_ms: float = 0.0
    text_ms: float = 0.0
    context_tokens: int | None = None
    """How many tokens the context holds, where its end was the reason."""


AnswerEvent = PromptRead | TextDelta | ReasoningDelta | ToolCallBegan | ToolCallDelta | ChoiceEnded | AnswerEnded
ANSWER_EVENT_TYPES: Final = frozenset(str(kind.__struct_config__.tag) for kind in get_args(AnswerEvent))
