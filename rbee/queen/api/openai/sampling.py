"""Reads how tokens are to be chosen from a request (PURE)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rbee.queen.api.refusal import refused
from rbee.wire.dialects.openai_request import NO_LIMIT

if TYPE_CHECKING:
    from rbee.wire.dialects.openai_request import OpenAISampling

TEMPERATURE: Final = 1.0
"""OpenAI's default; those of the other samplers are the engine's."""
LEAST_TOP_P: Final = 1e-6
"""Stands for 0, with which the likeliest token alone is left."""
SEEDS: Final = 2**32 - 1
"""The engine's seeds are 32 bits wide, and the last number stands for none."""
MAX_STOPS: Final = 16
MAX_STOP: Final = 256
MAX_TOKEN: Final = 2**31 - 1
LEAST_CONTEXT: Final = 16
MAX_BIASES: Final = 4096
"""Tokens with a bias: the engine changes them one by one at each step, while all its other answers wait."""


def sampling_of(request: OpenAISampling) -> dict[str, Any]:
    """Return the fields of a GenerationSpec that both requests have; raises InvalidRequestError."""
    found: dict[str, Any] = {
        "temperature": TEMPERATURE if request.temperature is None else request.temperature,
        "top_p": None if request.top_p is None else max(request.top_p, LEAST_TOP_P),
        "top_k": None if request.top_k is None else max(request.top_k, 0),  # -1 is vLLM's word for all of them
        "min_p": request.min_p,
        "repeat_penalty": request.repetition_penalty if request.repeat_penalty is None else request.repeat_penalty,
        "seed": None if request.seed is None else request.seed % SEEDS,
        "stop": _stops(request.stop),
    }
    if request.frequency_penalty is not None:
        found["frequency_penalty"] = request.frequency_penalty
    if request.presence_penalty is not None:
        found["presence_penalty"] = request.presence_penalty
    if request.logit_bias:
        if len(request.logit_bias) > MAX_BIASES:
            raise refused("logit_bias", f"at most {MAX_BIASES} tokens")
        found["logit_bias"] = {_token(key): bias for key, bias in request.logit_bias.items()}
    if request.n is not None and request.n > 1:
        found["choices"] = request.n
    if request.cache is False or request.cache_prompt is False:
        found["cache"] = False
    return found


def context_of(request: OpenAISampling) -> int | None:
    """Return the tokens that a request may come to, where it says so as clients of Ollama do."""
    asked = request.num_ctx or (request.options.num_ctx if request.options is not None else None)
    return max(math.ceil(asked), LEAST_CONTEXT) if asked else None


def limit_of(**limits: int | None) -> int | msgspec.UnsetType:
    """Return the least of the limits on tokens that a request gives, by the names of their fields; UNSET: none.

    Raises InvalidRequestError.
    """
    for field, limit in limits.items():
        if limit == 0:
            raise refused(field, f"at least 1, or {NO_LIMIT} for no limit")
    given = [limit for limit in limits.values() if limit is not None and limit != NO_LIMIT]
    return min(given, default=msgspec.UNSET)


def _stops(stop: str | list[str] | None) -> list[str] | None:
    stops = [stop] if isinstance(stop, str) else stop or []
    stops = [text for text in stops if text]  # some clients send an empty one for none
    if len(stops) > MAX_STOPS:
        raise refused("stop", f"at most {MAX_STOPS} strings")
    if any(len(text) > MAX_STOP for text in stops):
        raise refused("stop", f"at most {MAX_STOP} characters each")
    return stops or None


def _token(key: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) <= 10 and int(key) <= MAX_TOKEN):
        raise refused("logit_bias", "its keys are numbers of tokens in the model's vocabulary")
    return int(key)
