"""Translates what a worker answers into the chunks of a chat completion (PURE).

Source of the sequence: openai/openai-openapi, `CreateChatCompletionStreamResponse`; of what may stand in a chunk once
only: openai/openai-python, lib/streaming/_deltas.py, which joins the strings of all chunks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import UNSET

from rbee.queen.api.openai.parts import cut_off, frame, logprobs_of, usage_of
from rbee.wire.chat.answer import (
    AnswerEnded,
    ChoiceEnded,
    PromptRead,
    ReasoningDelta,
    TextDelta,
    ToolCallBegan,
    ToolCallDelta,
)
from rbee.wire.dialects.openai_answer import (
    OpenAICallPiece,
    OpenAIChatChunk,
    OpenAIChunkChoice,
    OpenAIDelta,
    OpenAIFunctionText,
)

if TYPE_CHECKING:
    from rbee.queen.api.openai.chat import ChatCall
    from rbee.queen.api.openai.parts import Head
    from rbee.wire.chat.answer import AnswerEvent
    from rbee.wire.dialects.openai_answer import FinishReason, OpenAILogprobs

ReasoningField = Literal["reasoning_content", "reasoning"]
"""Under which name an answer has what the model thinks: never under both, or some clients show it twice."""


def finish_reason(ended: ChoiceEnded, *, has_called: bool, are_functions: bool) -> FinishReason:
    """Return the reason in OpenAI's words: an answer that is cut off stays so, whatever it calls."""
    if ended.reason == "length" or not (has_called or ended.reason == "tool_calls"):
        return ended.reason
    return "function_call" if are_functions else "tool_calls"


class ChatStream:
    """The chunks of one answer; the role comes first, once for each choice, in their order."""

    def __init__(self, head: Head, call: ChatCall, reasoning_field: ReasoningField = "reasoning_content") -> None:
        self._head = head
        self._call = call
        self._reasoning_field = reasoning_field
        self._usage = None if call.include_usage else UNSET
        self._has_begun = False
        self._calling: set[int] = set()
        self.is_complete = False

    def on_event(self, event: AnswerEvent, prompt: int = 0) -> bytes:  # noqa: ARG002 (there is one)
        """Return the chunks that an event becomes, as events of the stream; none where it says nothing."""
        if isinstance(event, PromptRead):
            return b""
        begin = b"" if self._has_begun else self._begin()
        return begin + self._rest(event)

    def check_complete(self) -> None:
        """Raise WorkerFailedError where the answer ended before it was whole."""
        if not self.is_complete:
            raise cut_off()

    def _begin(self) -> bytes:
        self._has_begun = True
        return b"".join(
            self._chunk(choice, OpenAIDelta(role="assistant", content="")) for choice in range(self._call.choices)
        )

    def _rest(self, event: AnswerEvent) -> bytes:
        match event:
            case TextDelta():
                if not (event.text or event.logprobs):
                    return b""
                return self._chunk(event.choice, OpenAIDelta(content=event.text), logprobs_of(event.logprobs))
            case ReasoningDelta():
                if not (event.text and self._call.shows_reasoning):
                    return b""
                delta = OpenAIDelta()
                setattr(delta, self._reasoning_field, event.text)
                return self._chunk(event.choice, delta)
            case ToolCallBegan():
                return self._began(event)
            case ToolCallDelta():
                return self._arguments(event)
            case ChoiceEnded():
                has_called = event.choice in self._calling
                reason = finish_reason(event, has_called=has_called, are_functions=self._call.are_functions)
                return self._chunk(event.choice, OpenAIDelta(), reason=reason)
            case AnswerEnded():
                self.is_complete = True
                if not self._call.include_usage:
                    return b""
                return frame(self._with([], usage_of(event.usage)))
            case _:
                return b""

    def _began(self, event: ToolCallBegan) -> bytes:
        self._calling.add(event.choice)
        function = OpenAIFunctionText(name=event.name, arguments="")
        if self._call.are_functions:
            return self._chunk(event.choice, OpenAIDelta(function_call=function)) if event.index == 0 else b""
        piece = OpenAICallPiece(index=event.index, id=event.id, type="function", function=function)
        return self._chunk(event.choice, OpenAIDelta(tool_calls=[piece]))

    def _arguments(self, event: ToolCallDelta) -> bytes:
        if not event.arguments:
            return b""
        function = OpenAIFunctionText(arguments=event.arguments)
        if self._call.are_functions:
            return self._chunk(event.choice, OpenAIDelta(function_call=function)) if event.index == 0 else b""
        return self._chunk(
            event.choice, OpenAIDelta(tool_calls=[OpenAICallPiece(index=event.index, function=function)])
        )

    def _chunk(
        self,
        choice: int,
        delta: OpenAIDelta,
        logprobs: OpenAILogprobs | None = None,
        reason: FinishReason | None = None,
    ) -> bytes:
        found = OpenAIChunkChoice(index=choice, delta=delta, logprobs=logprobs, finish_reason=reason)
        return frame(self._with([found], self._usage))

    def _with(self, choices: list[OpenAIChunkChoice], usage: object) -> OpenAIChatChunk:
        head = self._head
        return OpenAIChatChunk(
            id=head.id,
            created=head.created,
            model=head.model,
            choices=choices,
            usage=usage,  # type: ignore[arg-type]  # one of the three that it may be
        )
