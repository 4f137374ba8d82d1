"""Conversations for tests, and chat templates rendered in this process: those of ours and of the collection."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from rbee.wire.chat.conversation import ChatMessage, Conversation, TextPart, Tool, ToolCall
from rbee.wire.chat.template import (
    ChatTemplate,
    ChatText,
    ProbeTemplate,
    RenderConversation,
    TemplateFound,
    TemplateHabits,
    TemplateRefusal,
    TemplateReply,
)
from rbee.worker.chat import mend
from rbee.worker.chat.template import Templates, answered

WEATHER = Tool(
    name="get_weather",
    description="Says the weather",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "description": "A town"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
)
CLOCK = Tool(name="get_time")
CALL = ToolCall(id="call_1", name="get_weather", arguments='{"city": "Berlin", "days": 3}')
SECOND = ToolCall(id="call_2", name="get_time", arguments="{}")


def collection() -> list[Path]:
    """Return the chat templates that come with the engine's source, which the test command fetches."""
    return sorted(Path(os.environ.get("RBEE_TEST_TEMPLATES", "/nowhere")).glob("*.jinja"))


def system(text: str) -> ChatMessage:
    return ChatMessage(role="system", content=[TextPart(text=text)])


def user(*texts: str) -> ChatMessage:
    return ChatMessage(role="user", content=[TextPart(text=text) for text in texts])


def assistant(text: str = "", *calls: ToolCall, reasoning: str | None = None) -> ChatMessage:
    content: Any = [TextPart(text=text)] if text else []
    return ChatMessage(role="assistant", content=content, tool_calls=list(calls), reasoning=reasoning)


def result(text: str, of: str | None = "call_1") -> ChatMessage:
    return ChatMessage(role="tool", content=[TextPart(text=text)], tool_call_id=of)


def talk(*messages: ChatMessage, **more: Any) -> Conversation:
    return Conversation(messages=list(messages), **more)


class Loaded:
    """A template that is rendered here, as the process for it would; for templates that mean no harm."""

    def __init__(self, source: str, tools_source: str | None = None) -> None:
        self._templates = Templates(ChatTemplate(template=source, tools_template=tools_source, begin="<s>", end="</s>"))
        found = self.ask(ProbeTemplate())
        assert isinstance(found, TemplateFound), found
        self.habits: TemplateHabits = found.habits
        self.tools_habits = found.tools_habits

    def ask(self, request: ProbeTemplate | RenderConversation) -> TemplateReply:
        data = answered(lambda: self._templates.answer(msgspec.json.encode(request)))
        return msgspec.json.decode(data, type=TemplateReply)

    def attempts(self, conversation: Conversation) -> list[ChatText | TemplateRefusal]:
        """Return what came of the conversation, until the template took it."""
        found: list[ChatText | TemplateRefusal] = []
        for variables in mend.variables(conversation, self.habits):
            reply = self.ask(RenderConversation(variables=variables))
            assert isinstance(reply, ChatText | TemplateRefusal)
            found.append(reply)
            if isinstance(reply, ChatText):
                break
        return found

    def text(self, conversation: Conversation) -> str:
        last = self.attempts(conversation)[-1]
        assert isinstance(last, ChatText), last
        return last.text


def rendered(source: str, *messages: ChatMessage, **more: Any) -> str:
    """Return a conversation as a template writes it."""
    return Loaded(source).text(talk(*messages, **more))
