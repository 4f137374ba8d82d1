"""Answers of OpenAI's chat completions, completions, models and errors.

Source: openai/openai-openapi, `CreateChatCompletionResponse`, `CreateChatCompletionStreamResponse`,
`CreateCompletionResponse`, `Model`, `Error`. What is required there is always written, null too; what is UNSET is not.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

FinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class OpenAIChance(msgspec.Struct, kw_only=True):
    """The logarithm of a token's probability; `bytes` are the token's, which may be a part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None


class OpenAITokenLogprob(OpenAIChance, kw_only=True):
    top_logprobs: list[OpenAIChance]


class OpenAILogprobs(msgspec.Struct, kw_only=True):
    content: list[OpenAITokenLogprob] | None
    refusal: None = None


class OpenAIFunctionText(msgspec.Struct, kw_only=True):
    """A call, or a piece of one; the name stands in the first piece alone."""

    name: str | UnsetType = UNSET
    arguments: str


class OpenAICall(msgspec.Struct, kw_only=True):
    id: str
    type: Literal["function"] = "function"
    function: OpenAIFunctionText


class OpenAICallPiece(msgspec.Struct, kw_only=True):
    """Clients join the strings of all pieces: what is said twice would stand there twice."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: OpenAIFunctionText


class OpenAIAnswerMessage(msgspec.Struct, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[OpenAICall] | UnsetType = UNSET
    function_call: OpenAIFunctionText | UnsetType = UNSET


class OpenAIChoice(msgspec.Struct, kw_only=True):
    index: int
    message: OpenAIAnswerMessage
    logprobs: OpenAILogprobs | None
    finish_reason: FinishReason


class OpenAICachedTokens(msgspec.Struct, kw_only=True):
    cached_tokens: int


class OpenAIReasoningTokens(msgspec.Struct, kw_only=True):
    reasoning_tokens: int


class OpenAIUsage(msgspec.Struct, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: OpenAICachedTokens
    completion_tokens_details: OpenAIReasoningTokens


class OpenAIChatCompletion(msgspec.Struct, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[OpenAIChoice]
    usage: OpenAIUsage


class OpenAIDelta(msgspec.Struct, kw_only=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[OpenAICallPiece] | UnsetType = UNSET
    function_call: OpenAIFunctionText | UnsetType = UNSET


class OpenAIChunkChoice(msgspec.Struct, kw_only=True):
    index: int
    delta: OpenAIDelta
    logprobs: OpenAILogprobs | None = None
    finish_reason: FinishReason | None = None


class OpenAIChatChunk(msgspec.Struct, kw_only=True):
    """`usage` is there, and null, in all but the last chunk of a stream that ends with it."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[OpenAIChunkChoice]
    usage: OpenAIUsage | UnsetType | None = UNSET


class OpenAITextLogprobs(msgspec.Struct, kw_only=True):
    """Parallel lists; `text_offset` counts characters from the beginning of the choice's text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class OpenAITextChoice(msgspec.Struct, kw_only=True):
    text: str
    index: int
    logprobs: OpenAITextLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class OpenAITextCompletion(msgspec.Struct, kw_only=True):
    """The answer, and a chunk of one that is streamed."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[OpenAITextChoice]
    usage: OpenAIUsage | UnsetType | None = UNSET


class OpenAIErrorBody(msgspec.Struct, kw_only=True):
    """All four are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct, kw_only=True):
    error: OpenAIErrorBody


class OpenAIModelMeta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """As llama.cpp's server tells of a model: sizes in bytes, `n_ctx_train` in tokens."""

    n_ctx_train: int | None = None
    n_ctx: int | None = None
    n_params: int | None = None
    n_embd: int | None = None
    n_vocab: int | None = None
    size: int | None = None


class OpenAIModelArchitecture(msgspec.Struct, kw_only=True):
    input_modalities: list[str]
    output_modalities: list[str]


class OpenAIModel(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A model; from `context_length` on what clients of other servers look for, each under its own name.

    The context is that of one request, where the model would run. `nodes` have the model on their disks, on `loaded`
    it is in memory; an alias names its reference.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int | None = None
    max_model_len: int | None = None
    context_window: int | None = None
    max_input_tokens: int | None = None
    capabilities: list[str] = msgspec.field(default_factory=list)
    architecture: OpenAIModelArchitecture | None = None
    meta: OpenAIModelMeta | None = None
    reference: str | None = None
    quantization: str | None = None
    nodes: list[str] = msgspec.field(default_factory=list)
    loaded: list[str] = msgspec.field(default_factory=list)


class OpenAIModelList(msgspec.Struct, kw_only=True):
    """`models` is what one client looks for beside `data`, and does without when it is empty."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]
    models: list[str] = msgspec.field(default_factory=list)
