"""Translates what a worker answers into one chat completion (PURE)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import UNSET

from rbee.queen.api.openai.chat_stream import finish_reason
from rbee.queen.api.openai.parts import cut_off, logprobs_of, usage_of
from rbee.wire.chat.answer import AnswerEnded, ChoiceEnded, ReasoningDelta, TextDelta, ToolCallBegan, ToolCallDelta
from rbee.wire.dialects.openai_answer import (
    OpenAIAnswerMessage,
    OpenAICall,
    OpenAIChatCompletion,
    OpenAIChoice,
    OpenAIFunctionText,
)

if TYPE_CHECKING:
    from rbee.queen.api.openai.chat import ChatCall
    from rbee.queen.api.openai.chat_stream import ReasoningField
    from rbee.queen.api.openai.parts import Head
    from rbee.wire.chat.answer import AnswerEvent, TokenLogprob, Usage


@dataclass
class _Choice:
    """What has come of one choice."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    calls: dict[int, ToolCallBegan] = field(default_factory=dict)
    arguments: dict[int, list[str]] = field(default_factory=dict)
    ended: ChoiceEnded | None = None


class ChatAnswer:
    """Collects the events of one answer."""

    def __init__(self, head: Head, call: ChatCall, reasoning_field: ReasoningField = "reasoning_content") -> None:
        self._head = head
        self._call = call
        self._reasoning_field = reasoning_field
        self._choices = [_Choice() for _ in range(call.choices)]
        self._usage: Usage | None = None

    def on_event(self, event: AnswerEvent, prompt: int = 0) -> None:  # noqa: ARG002 (there is one)
        """Take the next event."""
        match event:
            case TextDelta():
                choice = self._choices[event.choice]
                choice.text.append(event.text)
                choice.logprobs += event.logprobs
            case ReasoningDelta():
                self._choices[event.choice].reasoning.append(event.text)
            case ToolCallBegan():
                self._choices[event.choice].calls[event.index] = event
            case ToolCallDelta():
                self._choices[event.choice].arguments.setdefault(event.index, []).append(event.arguments)
            case ChoiceEnded():
                self._choices[event.choice].ended = event
            case AnswerEnded():
                self._usage = event.usage

    def result(self) -> OpenAIChatCompletion:
        """Return the answer; raises WorkerFailedError where it ended before it was whole."""
        if self._usage is None:
            raise cut_off()
        return OpenAIChatCompletion(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            choices=[self._choice(index, choice) for index, choice in enumerate(self._choices)],
            usage=usage_of(self._usage),
        )

    def _choice(self, index: int, choice: _Choice) -> OpenAIChoice:
        if choice.ended is None:
            raise cut_off()
        text = "".join(choice.text)
        calls = [self._called(choice, number) for number in sorted(choice.calls)]
        message = OpenAIAnswerMessage(content=text if text or not calls else None)
        reasoning = "".join(choice.reasoning)
        if reasoning and self._call.shows_reasoning:
            setattr(message, self._reasoning_field, reasoning)
        are_functions = self._call.are_functions
        message.tool_calls = calls if calls and not are_functions else UNSET
        message.function_call = calls[0].function if calls and are_functions else UNSET
        return OpenAIChoice(
            index=index,
            message=message,
            logprobs=logprobs_of(choice.logprobs),
            finish_reason=finish_reason(choice.ended, has_called=bool(calls), are_functions=are_functions),
        )

    @staticmethod
    def _called(choice: _Choice, number: int) -> OpenAICall:
        began = choice.calls[number]
        arguments = "".join(choice.arguments.get(number, ()))
        return OpenAICall(id=began.id, function=OpenAIFunctionText(name=began.name, arguments=arguments))
