"""Messages between a worker and the process that renders its chat template."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rbee.wire.common import Message


class ChatTemplate(Message, kw_only=True):
    """A template, another one for when tools are given, and the texts of the tokens that begin and end a text."""

    template: str
    tools_template: str | None = None
    begin: str
    end: str


class ProbeTemplate(Message, tag_field="type", tag="probe", kw_only=True):
    """Asks what the template does and takes."""


class RenderPrompt(Message, tag_field="type", tag="prompt", kw_only=True):
    """Asks for a prompt, as the one message of a user."""

    prompt: str


class RenderConversation(Message, tag_field="type", tag="conversation", kw_only=True):
    """Asks for a conversation, whose messages stand in `variables`; `tools` for the template that is for those."""

    variables: dict[str, Any]
    tools: bool = False


TemplateRequest = ProbeTemplate | RenderPrompt | RenderConversation


class ChatFrame(Message, kw_only=True):
    """The text before and after a prompt; with `strips`, white space around the prompt is removed.

    With `changes` the template does something else to the prompt too, so that each has to be rendered.
    """

    before: str
    after: str
    strips: bool
    changes: bool = False


class TemplateHabits(Message, kw_only=True):
    """What a template takes and shows, as it was found out by rendering; what it does not has to be mended.

    `parts` are contents as lists of parts, in place of texts; `lists` stand for no tools in place of null. With
    `needs_system` it wants a system message, perhaps an empty one. `system` and `later_system` tell whether it shows
    one at the beginning, and one after others. With `strict_turns` it takes a user's and the model's in turn alone.

    `tools`, `calls` and `results` tell whether it shows those, and `lone_results` those without a call. `arguments` of
    calls are JSON objects, or their text; `calls_content` is what stands for no content beside calls, and with
    `content_and_calls` it shows both, with `content_and_reasoning` beside reasoning too. Without `parallel_calls` a
    message may hold one call; with `short_ids` a call's id has nine letters or digits. Calls that it does not show are
    written `calls_as` text; where it shows them and no tools, `call_example` is one.

    `reasoning` is the field of an assistant's message that it shows, if one. `thinking_off` tells whether thinking can
    be turned off by its variables, and `no_think` what does so in the system message. `efforts` are the values that its
    variables for effort take.
    """

    parts: bool = False
    lists: bool = False
    needs_system: bool = False
    system: bool = True
    later_system: bool = True
    strict_turns: bool = False
    tools: bool = True
    calls: bool = True
    results: bool = True
    lone_results: bool = True
    arguments: Literal["object", "text"] = "object"
    calls_content: Literal["empty", "null"] = "empty"
    content_and_calls: bool = True
    content_and_reasoning: bool = True
    parallel_calls: bool = True
    short_ids: bool = False
    calls_as: Literal["json", "array", "python"] = "json"
    call_example: str | None = None
    reasoning: str | None = None
    thinking_off: bool = False
    no_think: str | None = None
    efforts: dict[str, list[str]] = msgspec.field(default_factory=dict)


class TemplateFound(Message, tag_field="type", tag="found", kw_only=True):
    """What was found out about a template, and about the one for tools if there is one that can be used."""

    frame: ChatFrame
    habits: TemplateHabits
    tools_habits: TemplateHabits | None = None


class ChatText(Message, tag_field="type", tag="text", kw_only=True):
    """What was asked for, as its template renders it."""

    text: str


class TemplateRefusal(Message, tag_field="type", tag="refusal", kw_only=True):
    """Why nothing was rendered: the template refuses what it was given, in its own words, fails, or breaks limits."""

    reason: str
    kind: Literal["refuses", "fails", "limits"]


class TemplateLoaded(Message, tag_field="type", tag="loaded", kw_only=True):
    """The template is there to be rendered."""


TemplateReply = TemplateFound | ChatText | TemplateRefusal | TemplateLoaded
