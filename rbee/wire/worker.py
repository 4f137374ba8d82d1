"""The worker's HTTP messages."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from rbee.wire.chat.conversation import Conversation  # noqa: TC001 (msgspec reads annotations at run time)
from rbee.wire.common import Amount, Count, MaxTokens, Message, Prompt, Sampling, Uuid, check_url

HEALTH: Final = "/v1/health"
READY: Final = "/v1/ready"
LOADING_PROGRESS: Final = "/v1/loading/progress"
INFERENCE: Final = "/v1/inference"
SHUTDOWN: Final = "/v1/admin/shutdown"
ONLY_IF_IDLE: Final = "only_if_idle"
"""In the query of a shutdown that a worker with a request refuses."""
EVENTS: Final = "/v1/events"
REQUEST_ID_HEADER: Final = "X-Request-Id"

CONTEXT_LENGTH_EXCEEDED: Final = "context_length_exceeded"
"""The `kind` in the details of the error for a prompt that the context cannot hold, with `tokens` and `context`."""

StopReason = Literal["eos", "length", "stop"]


class GenerationSpec(Sampling, kw_only=True):
    """What is to be generated: how a prompt, its tokens, or a conversation goes on; one of the three is given.

    `max_tokens` is bounded by the model's context too; the worker checks that once the model is loaded. Without it
    the model ends its text, or the end of the context does. `choices` are so many answers to the same prompt. With
    `echo` the prompt stands before what follows it; `suffix` is what comes after the text that is wanted.

    With `cache` false nothing that was computed before is used, and nothing of it is kept. With `typed` the answer
    is a stream of `wire.chat.answer.AnswerEvent`, as it always is to a conversation.
    """

    prompt: Prompt | msgspec.UnsetType = msgspec.UNSET
    tokens: (
        Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1, max_length=1_000_000)]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    conversation: Conversation | msgspec.UnsetType = msgspec.UNSET
    max_tokens: MaxTokens | msgspec.UnsetType = msgspec.UNSET
    choices: Annotated[int, msgspec.Meta(ge=1, le=128)] | msgspec.UnsetType = msgspec.UNSET
    echo: bool | msgspec.UnsetType = msgspec.UNSET
    suffix: str | msgspec.UnsetType = msgspec.UNSET
    typed: bool | msgspec.UnsetType = msgspec.UNSET
    cache: bool | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        given = [name for name in ("prompt", "tokens", "conversation") if getattr(self, name) is not msgspec.UNSET]
        if not given:
            raise ValueError("Object missing required field `prompt`")  # in msgspec's words, which wire.decode reads
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")

    @property
    def is_typed(self) -> bool:
        return self.typed is True or self.conversation is not msgspec.UNSET


class InferenceRequest(GenerationSpec, kw_only=True):
    """With `narrate` the stream carries events named `narration` beside the tokens."""

    stream: bool = True
    request_id: Uuid | None = None
    narrate: bool = False


class Reader(Message, kw_only=True):
    """What a relay says of the client that it reads a generation for: `silent` when that takes nothing any more."""

    silent: bool


class Token(Message, kw_only=True):
    """A piece of text, whole characters only, from one or more tokens; `index` counts from 0."""

    token: str
    index: Count


class Timings(Message, kw_only=True):
    """What an answer took: to read the prompt's tokens (`prompt_ms`), and to write those after its first (`text_ms`).

    `first_token_ms` is counted from when the request was taken: it may have waited for others first. `cached_tokens` of
    the prompt had been computed before.
    """

    prompt_tokens: Count
    prompt_ms: Amount
    first_token_ms: Amount
    text_ms: Amount
    cached_tokens: Count = 0


class FullContext(Message, kw_only=True):
    """The context that was full: how many tokens it holds, and how many the model was trained with."""

    tokens: Count
    trained_tokens: Count


class Done(Message, kw_only=True):
    """The end of a generation: all generated tokens, and the time since the request was taken.

    `context` is there where its end was the reason. A worker of an earlier version says neither that nor `timings`.
    """

    done: Literal[True] = True
    total_tokens: Count
    duration_ms: Amount
    stop_reason: StopReason
    timings: Timings | msgspec.UnsetType = msgspec.UNSET
    context: FullContext | msgspec.UnsetType = msgspec.UNSET


class Completion(Message, kw_only=True):
    """The answer to a request with `stream: false`; `timings` and `context` are those of Done."""

    request_id: str
    text: str
    total_tokens: Count
    prompt_tokens: Count
    duration_ms: Amount
    stop_reason: StopReason
    timings: Timings | msgspec.UnsetType = msgspec.UNSET
    context: FullContext | msgspec.UnsetType = msgspec.UNSET


class Readiness(Message, kw_only=True, omit_defaults=True):
    """The answer of `/v1/ready`; the absolute `progress_url` is there while the model loads."""

    ready: bool
    state: Literal["loading", "idle", "busy", "draining", "failed"]
    progress_url: str | None = None
    model_loaded: bool = False
    error: dict[str, object] | None = None

    def __post_init__(self) -> None:
        if self.progress_url is not None:
            check_url(self.progress_url)


class LoadingProgress(Message, kw_only=True):
    """How far the model is on its way into the device's memory (MB of 10^6 bytes; RAM on a CPU)."""

    stage: Literal["loading_to_vram"] = "loading_to_vram"
    layers_loaded: Count
    layers_total: Count
    vram_mb: Amount


class LoadingEnded(Message, kw_only=True):
    stage: Literal["ready"] = "ready"


class EndedRequest(Message, kw_only=True):
    """What a request came to at a worker, without any of its text; of `cached_tokens` of its prompt nothing was read.

    `end` is the reason for which the text ended, or the code of an error; CANCELLED where the client has gone.
    Times are counted from when the request was taken. `worker_id` is added by the hive.
    """

    request_id: str
    worker_id: str | msgspec.UnsetType = msgspec.UNSET
    prompt_tokens: Count = 0
    cached_tokens: Count = 0
    total_tokens: Count = 0
    first_token_ms: Amount | None = None
    duration_ms: Amount
    end: str

    @property
    def is_refusal(self) -> bool:
        """Whether the worker did not take the request: whose it is may try once more, there or elsewhere."""
        return self.prompt_tokens == 0 and self.total_tokens == 0


class WorkerStatus(Message, kw_only=True, omit_defaults=True):
    """An event of the worker's `/v1/events`, which its hive holds: what is, then every change.

    `ended` are the requests that have ended since the event before.
    """

    state: Literal["loading", "idle", "busy", "draining", "failed"]
    slots_total: Count
    slots_available: Count
    layers_loaded: Count = 0
    layers_total: Count = 0
    error: dict[str, object] | None = None
    keep_s: Amount | None = None
    """Seconds without a request that it is to stay, where one has said so."""
    ended: list[EndedRequest] = msgspec.field(default_factory=list)
