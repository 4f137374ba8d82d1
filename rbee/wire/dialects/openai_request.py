"""Requests to OpenAI's chat completions and completions.

Source: openai/openai-openapi, `CreateChatCompletionRequest` and `CreateCompletionRequest`. Fields that have no use here
are accepted where they change nothing of an answer; the last ones of each request are what users of llama.cpp, vLLM
and others send.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from rbee.wire.dialects.foreign import Foreign
from rbee.wire.dialects.openai_messages import (  # noqa: TC001 (msgspec reads annotations at run time)
    OpenAIFunctions,
    OpenAIMessages,
    OpenAINamedFunction,
    OpenAIToolChoice,
    OpenAITools,
)

CHAT: Final = "/v1/chat/completions"
TEXT: Final = "/v1/completions"
MODELS: Final = "/v1/models"
MODEL: Final = "/v1/models/{model}"
OPENAPI: Final = "/openapi.json"

MAX_CHOICES: Final = 128
MAX_PROMPTS: Final = 256

_Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
NO_LIMIT: Final = -1
"""For `max_tokens` what llama.cpp's and LM Studio's users send: until the model ends, or its context is full."""
_Context = Annotated[float, msgspec.Meta(ge=0, le=1 << 24)]
"""Tokens; some clients multiply and do not round."""
_Limit = Annotated[int, msgspec.Meta(ge=NO_LIMIT, le=2**31 - 1)]
_ModelName = Annotated[str, msgspec.Meta(max_length=512)]
_Stop = str | list[str] | None


class OpenAIStreamOptions(Foreign, kw_only=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class OpenAIOptions(Foreign, kw_only=True):
    """What clients that know Ollama send there too; its other options have names of their own here."""

    num_ctx: _Context | None = None


class OpenAISampling(Foreign, kw_only=True):
    """What both requests say of the model, and of how the next token is chosen."""

    model: _ModelName | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: _Probability | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] | None = None
    stop: _Stop = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    max_tokens: _Limit | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    logit_bias: dict[str, Annotated[float, msgspec.Meta(ge=-100, le=100)]] | None = None
    stream: bool | None = None
    stream_options: OpenAIStreamOptions | None = None
    user: str | None = None

    top_k: Annotated[int, msgspec.Meta(ge=-1, le=1_000_000)] | None = None
    min_p: _Probability | None = None
    repeat_penalty: Annotated[float, msgspec.Meta(gt=0, le=10)] | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0, le=10)] | None = None
    cache: bool | None = None
    cache_prompt: bool | None = None
    num_ctx: _Context | None = None
    options: OpenAIOptions | None = None


class OpenAIJsonSchema(Foreign, kw_only=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    description: str | None = None
    schema: dict[str, Any] | bool | None = None
    strict: bool | None = None


class OpenAIResponseFormat(Foreign, kw_only=True):
    """`schema` beside `json_object` is what llama.cpp takes."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: OpenAIJsonSchema | None = None
    schema: dict[str, Any] | bool | None = None


class OpenAIStructuredOutputs(Foreign, kw_only=True):
    """vLLM's way to say what an answer looks like; one of the four is given."""

    json: dict[str, Any] | bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class OpenAIReasoning(Foreign, kw_only=True):
    """OpenRouter's way to say how much a model may think."""

    effort: str | None = None
    enabled: bool | None = None
    exclude: bool | None = None


class OpenAIThinking(Foreign, kw_only=True):
    type: Literal["enabled", "disabled", "adaptive"]


class OpenAIChatRequest(OpenAISampling, kw_only=True):
    """A conversation to continue; without `model` the default one does."""

    messages: OpenAIMessages
    max_completion_tokens: _Limit | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    response_format: OpenAIResponseFormat | None = None
    tools: OpenAITools | None = None
    tool_choice: OpenAIToolChoice | Literal["none", "auto", "required"] | None = None
    parallel_tool_calls: bool | None = None
    functions: OpenAIFunctions | None = None
    function_call: OpenAINamedFunction | Literal["none", "auto"] | None = None
    reasoning_effort: str | None = None
    modalities: list[str] | None = None

    audio: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    verbosity: str | None = None
    web_search_options: dict[str, Any] | None = None

    reasoning: OpenAIReasoning | None = None
    thinking: OpenAIThinking | None = None
    include_reasoning: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | bool | None = None
    guided_json: dict[str, Any] | bool | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: OpenAIStructuredOutputs | None = None


class OpenAITextRequest(OpenAISampling, kw_only=True):
    """A text to continue, or several, or their tokens; no chat template is used."""

    prompt: str | Annotated[list[str | int | list[int]], msgspec.Meta(min_length=1, max_length=1_000_000)]
    suffix: str | None = None
    echo: bool | None = None
    best_of: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None
