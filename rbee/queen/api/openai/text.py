"""Translates a request to OpenAI's completions into what workers are asked for (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rbee.queen.api.openai.sampling import MAX_TOKEN, limit_of, sampling_of
from rbee.queen.api.refusal import refused, unsupported
from rbee.wire.dialects.openai_request import MAX_CHOICES, MAX_PROMPTS
from rbee.wire.worker import GenerationSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rbee.wire.dialects.openai_request import OpenAITextRequest

MAX_TOKENS: Final = 16
"""OpenAI's default for this request alone."""
MAX_LENGTH: Final = 1_000_000
"""Characters of a prompt, or its tokens."""
MAX_ECHOED: Final = 262_144
"""Characters, or tokens, of several prompts that one answer repeats with their probabilities.

Each token takes about 1 kB of the queen's memory until the last one is there; a stream keeps none.
"""


class TextCall(NamedTuple):
    """What is asked for, one generation for each prompt, and in which form the answer goes back."""

    model: str
    specs: list[GenerationSpec]
    choices: int = 1
    is_stream: bool = False
    include_usage: bool = False


def text_call(request: OpenAITextRequest) -> TextCall:
    """Return what a request asks for; raises InvalidRequestError that names the field."""
    choices = request.n or 1
    if request.best_of and request.best_of != choices:
        raise unsupported("best_of", "the same number as n: no more are written than are answered")
    limit = MAX_TOKENS if request.max_tokens is None else limit_of(max_tokens=request.max_tokens)
    common = sampling_of(request) | {"typed": True, "max_tokens": limit}
    if request.echo:
        common["echo"] = True
    if request.suffix:
        common["suffix"] = request.suffix
    if request.logprobs is not None:
        common["logprobs"] = request.logprobs
    prompts = _prompts(request.prompt)
    repeated = len(prompts) * choices
    if repeated > max(MAX_PROMPTS, MAX_CHOICES):
        raise refused("n", f"at most {MAX_PROMPTS} choices for all prompts together")
    if request.suffix and any("tokens" in prompt for prompt in prompts):
        raise unsupported("suffix", "only beside a prompt that is text")
    if repeated > 1 and request.echo and request.logprobs is not None and not request.stream:
        length = sum(len(prompt.get("tokens") or prompt["prompt"]) for prompt in prompts) * choices
        if length > MAX_ECHOED:
            rule = f"beside echo, for at most {MAX_ECHOED} characters or tokens of all prompts and choices together"
            raise refused("logprobs", rule, hint="a stream has no such limit, nor has one prompt")
    return TextCall(
        model=request.model or "",
        specs=[GenerationSpec(**common, **prompt) for prompt in prompts],
        choices=choices,
        is_stream=bool(request.stream),
        include_usage=request.stream_options is not None and bool(request.stream_options.include_usage),
    )


def _prompts(prompt: str | list[Any]) -> list[dict[str, Any]]:
    """Return each prompt as the fields of a GenerationSpec."""
    if isinstance(prompt, str):
        return [_text(prompt, "prompt")]
    if isinstance(prompt[0], int):
        return [_tokens(prompt, "prompt")]
    if len(prompt) > MAX_PROMPTS:
        raise refused("prompt", f"at most {MAX_PROMPTS} prompts")
    if isinstance(prompt[0], str):
        return [_text(text, f"prompt[{index}]") for index, text in enumerate(prompt)]
    return [_tokens(tokens, f"prompt[{index}]") for index, tokens in enumerate(prompt)]


def _text(text: object, field: str) -> dict[str, Any]:
    if not isinstance(text, str):
        raise refused(field, "text, as the first one")
    if not 1 <= len(text) <= MAX_LENGTH:
        raise refused(field, f"1 to {MAX_LENGTH} characters")
    if "\0" in text:
        raise refused(field, "text without NUL")
    return {"prompt": text, "raw": True}


def _tokens(tokens: object, field: str) -> dict[str, Any]:
    if not isinstance(tokens, list):
        raise refused(field, "a list of tokens, as the first one")
    if not 1 <= len(tokens) <= MAX_LENGTH or not _are_tokens(tokens):
        raise refused(field, f"1 to {MAX_LENGTH} numbers of tokens in the model's vocabulary")
    return {"tokens": tokens}


def _are_tokens(tokens: Sequence[object]) -> bool:
    return all(isinstance(token, int) and 0 <= token <= MAX_TOKEN for token in tokens)
