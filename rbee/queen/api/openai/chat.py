"""Translates a request to OpenAI's chat completions into what a worker is asked for (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from msgspec import UNSET

from rbee.queen.api.openai.formats import format_of
from rbee.queen.api.openai.messages import messages_of
from rbee.queen.api.openai.sampling import limit_of, sampling_of
from rbee.queen.api.openai.tools import tools_of
from rbee.queen.api.refusal import check_depth, refused, unsupported
from rbee.wire.chat.conversation import Conversation
from rbee.wire.worker import GenerationSpec

if TYPE_CHECKING:
    from rbee.wire.chat.conversation import ChatMessage
    from rbee.wire.dialects.openai_request import OpenAIChatRequest

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

_EFFORTS: Final[dict[str, Effort]] = {
    "none": "none",
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
    "ultra": "max",
}


class ChatCall(NamedTuple):
    """What is asked for, of which model, and in which form the answer goes back.

    `are_functions`: calls are written as they were before there were tools. `shows_reasoning`: what the model thinks
    is a part of the answer.
    """

    model: str
    spec: GenerationSpec
    is_stream: bool = False
    include_usage: bool = False
    are_functions: bool = False
    shows_reasoning: bool = True

    @property
    def choices(self) -> int:
        return self.spec.choices or 1


def chat_call(request: OpenAIChatRequest, *, sees: bool = False) -> ChatCall:
    """Return what a request asks for; raises InvalidRequestError that names the field.

    With `sees` there are models that can look at pictures.
    """
    if any(modality != "text" for modality in request.modalities or []):
        raise unsupported("modalities", "text is all that is answered here")
    messages = messages_of(request.messages, sees=sees)
    tools = tools_of(request)
    conversation = Conversation(
        messages=messages,
        tools=tools.tools,
        tool_choice=tools.choice,
        parallel_tool_calls=not tools.is_single,
        format=format_of(request),
        effort=_effort(request),
        arguments=_arguments(request),
        continues=_continues(request, messages),
    )
    spec = GenerationSpec(
        conversation=conversation,
        max_tokens=limit_of(max_completion_tokens=request.max_completion_tokens, max_tokens=request.max_tokens),
        logprobs=_logprobs(request),
        **sampling_of(request),
    )
    reasoning = request.reasoning
    return ChatCall(
        model=request.model or "",
        spec=spec,
        is_stream=bool(request.stream),
        include_usage=request.stream_options is not None and bool(request.stream_options.include_usage),
        are_functions=tools.are_functions,
        shows_reasoning=request.include_reasoning is not False and not (reasoning is not None and reasoning.exclude),
    )


def _logprobs(request: OpenAIChatRequest) -> Any:
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise refused("top_logprobs", "needs logprobs to be true")
    return UNSET


def _effort(request: OpenAIChatRequest) -> Effort | None:
    reasoning = request.reasoning
    if request.reasoning_effort is not None:
        return _known_effort(request.reasoning_effort, "reasoning_effort")
    if reasoning is not None and reasoning.effort is not None:
        return _known_effort(reasoning.effort, "reasoning.effort")
    is_off = reasoning is not None and reasoning.enabled is False
    is_off = is_off or (request.thinking is not None and request.thinking.type == "disabled")
    return "none" if is_off else None


def _known_effort(asked: str, field: str) -> Effort:
    if (found := _EFFORTS.get(asked)) is None:
        raise refused(field, f"one of {', '.join(_EFFORTS)}")
    return found


def _arguments(request: OpenAIChatRequest) -> dict[str, Any]:
    """Return what the template is given; to have thinking switched on is a variable of most that know the switch."""
    found = dict(request.chat_template_kwargs or {})
    check_depth(found, "chat_template_kwargs")
    if request.thinking is not None and request.thinking.type == "enabled":
        found.setdefault("enable_thinking", True)
    return found


def _continues(request: OpenAIChatRequest, messages: list[ChatMessage]) -> bool:
    """Whether the last message is the beginning of the answer, as llama.cpp's server has it too."""
    last = messages[-1]
    is_begun = last.role == "assistant" and not last.tool_calls and bool(last.content)
    if request.continue_final_message and not is_begun:
        raise refused("continue_final_message", "needs a last message of the assistant, with text and without calls")
    return is_begun and request.continue_final_message is not False
