"""The messages and tools of a request to OpenAI's chat completions.

Source: openai/openai-openapi, `ChatCompletionRequestMessage`, `ChatCompletionTool`, `ChatCompletionToolChoiceOption`;
`reasoning_content` and `reasoning` are what other servers name a model's thoughts.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from rbee.wire.chat.conversation import MAX_MESSAGES, MAX_TOOLS
from rbee.wire.dialects.foreign import Foreign


class OpenAIImageUrl(Foreign, kw_only=True):
    """A picture: `data:image/…;base64,…`; an address of the network is refused."""

    url: str
    detail: str | None = None


class OpenAIPart(Foreign, kw_only=True):
    """A part of a message; `type` says which of the other fields is set."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: OpenAIImageUrl | str | None = None


class OpenAICalledFunction(Foreign, kw_only=True):
    """The function that was called; `arguments` is the text of a JSON object, which some clients send as one."""

    name: str
    arguments: str | dict[str, Any] | None = None


class OpenAIToolCall(Foreign, kw_only=True):
    id: str | None = None
    type: str | None = None
    function: OpenAICalledFunction | None = None


class OpenAIMessage(Foreign, kw_only=True):
    """What one has said; which fields it has depends on the role."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[OpenAIPart] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[OpenAIToolCall] | None = None
    function_call: OpenAICalledFunction | None = None
    tool_call_id: str | None = None


class OpenAIFunction(Foreign, kw_only=True):
    """A function that the model may call; `parameters` is the JSON schema of its arguments."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class OpenAITool(Foreign, kw_only=True):
    type: str
    function: OpenAIFunction | None = None


class OpenAINamedFunction(Foreign, kw_only=True):
    name: str


class OpenAINamedTool(Foreign, kw_only=True):
    type: str | None = None
    function: OpenAINamedFunction | None = None


class OpenAIAllowedTools(Foreign, kw_only=True):
    mode: Literal["auto", "required"]
    tools: list[OpenAINamedTool]


class OpenAIToolChoice(Foreign, kw_only=True):
    """Names the function to call, or those that may be called."""

    type: str
    function: OpenAINamedFunction | None = None
    allowed_tools: OpenAIAllowedTools | None = None


OpenAIMessages = Annotated[list[OpenAIMessage], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]
OpenAITools = Annotated[list[OpenAITool], msgspec.Meta(max_length=MAX_TOOLS)]
OpenAIFunctions = Annotated[list[OpenAIFunction], msgspec.Meta(max_length=MAX_TOOLS)]
