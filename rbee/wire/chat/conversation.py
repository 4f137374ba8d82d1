"""A conversation: what every dialect is translated into, and what a worker continues.

The queen translates; keeper and worker know no dialect. What looks like a control token in a text is text.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from rbee.wire.common import Request, ShortText

MAX_MESSAGES: Final = 10_000
MAX_TOOLS: Final = 1024

Role = Literal["system", "user", "assistant", "tool"]
"""Who speaks: the one who sets the task, the user, the model, or a tool that the model has called."""


class TextPart(Request, tag_field="type", tag="text", kw_only=True):
    """Text of a message."""

    text: str


class ImagePart(Request, tag_field="type", tag="image", kw_only=True):
    """A picture of a message: the bytes of a file of this media type."""

    media_type: ShortText
    data: bytes


Part = TextPart | ImagePart


class ToolCall(Request, kw_only=True):
    """A call that the model has made; `arguments` is the text of a JSON object, as the model has written it."""

    id: str
    name: str
    arguments: str


class ChatMessage(Request, kw_only=True, omit_defaults=True):
    """What one has said; the fields from `reasoning` on are the assistant's, the last two a tool's.

    `tool_call_id` names the call that a tool's message answers, and `name` the tool or the speaker where that is known.
    """

    role: Role
    content: list[Part] = msgspec.field(default_factory=list)
    name: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] = msgspec.field(default_factory=list)
    tool_call_id: str | None = None

    def text(self) -> str:
        """Return the parts that are text, one after the other."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


class Tool(Request, kw_only=True, omit_defaults=True):
    """A function that the model may call; `parameters` is the JSON schema of its arguments.

    With `strict` a call's arguments are valid whenever the model calls it.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    description: str = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    strict: bool = False


class ToolChoice(Request, kw_only=True, omit_defaults=True):
    """Whether the model may, must not or has to call a tool; with `names` one of those alone."""

    mode: Literal["auto", "none", "required"] = "auto"
    names: list[str] = msgspec.field(default_factory=list)


class JsonObject(Request, tag_field="type", tag="json_object", kw_only=True):
    """The answer is any JSON object."""


class JsonSchema(Request, tag_field="type", tag="json_schema", kw_only=True):
    """The answer is JSON that this schema allows."""

    schema: dict[str, Any] | bool


class Regex(Request, tag_field="type", tag="regex", kw_only=True):
    """The answer matches this regular expression, as a whole."""

    pattern: str


class Grammar(Request, tag_field="type", tag="grammar", kw_only=True):
    """The answer is a text of this grammar, in llguidance's Lark or llama.cpp's GBNF."""

    syntax: Literal["lark", "gbnf"]
    text: str


OutputFormat = JsonObject | JsonSchema | Regex | Grammar


class Conversation(Request, kw_only=True, omit_defaults=True):
    """What was said so far, and how it is to go on.

    `effort` is how much the model may think before it answers: `none` turns that off, null leaves it to the model.
    `arguments` are further variables of its chat template. With `continues` the last message, an assistant's, is
    continued.
    """

    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[list[Tool], msgspec.Meta(max_length=MAX_TOOLS)] = msgspec.field(default_factory=list)
    tool_choice: ToolChoice = msgspec.field(default_factory=ToolChoice)
    parallel_tool_calls: bool = True
    format: OutputFormat | None = None
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    continues: bool = False
