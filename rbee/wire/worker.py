"""The worker's HTTP messages."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from rbee.wire.common import Message, Prompt, Sampling, Uuid

HEALTH: Final = "/v1/health"
READY: Final = "/v1/ready"
LOADING_PROGRESS: Final = "/v1/loading/progress"
INFERENCE: Final = "/v1/inference"
SHUTDOWN: Final = "/v1/admin/shutdown"
EVENTS: Final = "/v1/events"
REQUEST_ID_HEADER: Final = "X-Request-Id"

StopReason = Literal["eos", "length", "stop"]


class InferenceRequest(Sampling, kw_only=True):
    """`max_tokens` is bounded by the model's context too; the worker checks that once the model is loaded.

    With `narrate` the stream carries events named `narration` beside the tokens.
    """

    prompt: Prompt
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 20
    stream: bool = True
    request_id: Uuid | None = None
    narrate: bool = False


class Reader(Message, kw_only=True):
    """What a relay says of the client that it reads a generation for: `silent` when that takes nothing any more."""

    silent: bool


class Token(Message, kw_only=True):
    """A piece of text, whole characters only, from one or more tokens; `index` counts from 0."""

    token: str
    index: int


class Done(Message, kw_only=True):
    """The end of a generation: all generated tokens, and the time since the request was taken."""

    done: Literal[True] = True
    total_tokens: int
    duration_ms: float
    stop_reason: StopReason


class Completion(Message, kw_only=True):
    """The answer to a request with `stream: false`."""

    request_id: str
    text: str
    total_tokens: int
    prompt_tokens: int
    duration_ms: float
    stop_reason: StopReason


class Readiness(Message, kw_only=True, omit_defaults=True):
    """The answer of `/v1/ready`; the absolute `progress_url` is there while the model loads."""

    ready: bool
    state: Literal["loading", "idle", "busy", "draining", "failed"]
    progress_url: str | None = None
    model_loaded: bool = False
    error: dict[str, object] | None = None


class LoadingProgress(Message, kw_only=True):
    """How far the model is on its way into the device's memory (MB of 10^6 bytes; RAM on a CPU)."""

    stage: Literal["loading_to_vram"] = "loading_to_vram"
    layers_loaded: int
    layers_total: int
    vram_mb: float


class LoadingEnded(Message, kw_only=True):
    stage: Literal["ready"] = "ready"


class WorkerStatus(Message, kw_only=True, omit_defaults=True):
    """An event of the worker's `/v1/events`, which its hive holds: what is, then every change."""

    state: Literal["loading", "idle", "busy", "draining", "failed"]
    slots_total: int
    slots_available: int
    layers_loaded: int = 0
    layers_total: int = 0
    error: dict[str, object] | None = None
