"""Holds what was said in a chat, and what of it the next answer is asked for with (PURE)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rbee.wire.chat.conversation import ChatMessage, Conversation, TextPart

if TYPE_CHECKING:
    from rbee.wire.chat.conversation import Role


@dataclass
class Dialogue:
    """The messages of user and model in turn, and what the model is told beforehand.

    A question without an answer is the last message: the next question takes its place.
    """

    system: str | None = None
    messages: list[ChatMessage] = field(default_factory=list)

    @property
    def is_waiting(self) -> bool:
        """Whether the last question has no answer."""
        return bool(self.messages) and self.messages[-1].role == "user"

    @property
    def questions(self) -> int:
        return sum(message.role == "user" for message in self.messages)

    def ask(self, text: str) -> None:
        """Add a question."""
        if self.is_waiting:
            self.messages.pop()
        self.messages.append(_message("user", text))

    def answer(self, text: str, reasoning: str = "") -> None:
        """Add the answer to the last question."""
        message = _message("assistant", text)
        message.reasoning = reasoning or None
        self.messages.append(message)

    def take_back(self) -> bool:
        """Remove the last answer, so that its question can be asked again; returns whether there is one to ask."""
        if self.messages and not self.is_waiting:
            self.messages.pop()
        return self.is_waiting

    def clear(self) -> None:
        """Forget all that was said; what the model is told beforehand stays."""
        self.messages.clear()

    def conversation(self) -> Conversation:
        """Return the whole of it, to be continued by an answer."""
        first = [] if self.system is None else [_message("system", self.system)]
        return Conversation(messages=[*first, *self.messages])

    def to_markdown(self, model: str) -> str:
        """Return it as a text for people, without what the model was thinking."""
        parts = [f"# A conversation with {model}"]
        if self.system is not None:
            parts.append(f"*System:* {self.system}")
        for message in self.messages:
            parts += ["## You" if message.role == "user" else "## Model", message.text().strip()]
        return "\n\n".join(parts) + "\n"

    def to_messages(self) -> list[dict[str, str]]:
        """Return it as the messages of OpenAI's interface."""
        return [{"role": message.role, "content": message.text()} for message in self.conversation().messages]


def _message(role: Role, text: str) -> ChatMessage:
    return ChatMessage(role=role, content=[TextPart(text=text)])
