"""Messages and addresses that every daemon speaks, with the limits that hold for all of them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec

API_VERSION: Final = "v1"
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""A request body above this is answered with 413."""
CORRELATION_HEADER: Final = "X-Correlation-Id"
CHALLENGE_HEADER: Final = "X-Rbee-Challenge"
"""Asks a daemon, beside its health, for a proof that it knows the swarm's token."""
EVENT_STREAM: Final = "text/event-stream"
DONE: Final = "[DONE]"
"""The data of the last event of every stream."""

_UUID: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z"
_SHORT: Final = r"^[^\x00-\x1f\x7f]+\Z"
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z"
_TEXT: Final = r"^[^\x00]*\Z"
_SHA256: Final = r"^[0-9a-f]{64}\Z"
_HTTP: Final = r"^http://[^\x00-\x20\x7f]+\Z"
RULES: Final = {
    _UUID: "a UUID in lower case",
    _SHORT: "text without control characters",
    _NAME: "a letter or digit, then up to 62 letters, digits, dots, dashes or underscores",
    _TEXT: "text without NUL",
    _SHA256: "64 hexadecimal digits in lower case",
    _HTTP: "a URL that begins with http://",
}
"""The patterns in words."""

Uuid = Annotated[str, msgspec.Meta(pattern=_UUID)]
"""A UUID in its canonical lower-case text form (RFC 9562, section 4)."""
ShortText = Annotated[str, msgspec.Meta(min_length=1, max_length=512, pattern=_SHORT)]
"""A name or reference: 1 to 512 characters, no control characters."""
Name = Annotated[str, msgspec.Meta(pattern=_NAME)]
"""A node, backend or similar name: a letter or digit, then up to 62 of letters, digits, `._-`."""
Prompt = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000_000, pattern=_TEXT)]
"""The text to continue: 1 to 1,000,000 characters, no NUL."""
Sha256 = Annotated[str, msgspec.Meta(pattern=_SHA256)]
"""A SHA-256 in lower-case hexadecimal digits."""
HttpUrl = Annotated[str, msgspec.Meta(max_length=512, pattern=_HTTP)]
"""The URL of a daemon."""
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
"""A number of things or bytes in an answer: one that is larger fits into no database, and into no float."""
Moment = Annotated[float, msgspec.Meta(ge=0, le=2e11)]
"""Unix seconds, before the year 9999, the last that the calendar has."""
Amount = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
"""A time, a speed or a size in an answer, which can be reckoned with."""
DeviceIndex = Annotated[int, msgspec.Meta(ge=0, le=1023)]

MaxTokens = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
"""How many tokens an answer may have at most; where it is left out, the model ends it, or the end of its context."""

KEEP_HEADER: Final = "X-Keep-Seconds"
"""How many seconds without a request the worker of this one stays; a daemon of an earlier version does not know it."""
SESSION_HEADER: Final = "X-Session-Id"
"""Which conversation, terminal or program of its caller a request belongs to: where several wait, slots go round these
for callers without an API key. Those of one go to the same worker, where that makes no answer later."""
CACHE_SALT_HEADER: Final = "X-Cache-Salt"
"""From the queen to a worker: only requests with the same salt use what one another has computed."""
PRIORITY_HEADER: Final = "Priority"
"""How urgent a request is (RFC 9218, section 4.1): of `u=6` and `u=7` nobody waits for the answer."""
FOREVER: Final = 315_360_000.0
"""Ten years: what is kept for that long is kept until it is ended."""

CacheType = Literal["f16", "q8_0", "q4_0"]
"""How the numbers of a context are kept: with 16 bits each, or with about 8 or 4."""
CACHE_TYPES: Final[tuple[CacheType, ...]] = get_args(CacheType)
WorkerState = Literal["loading", "idle", "busy", "draining", "unhealthy"]


def base_url(host: str, port: int) -> str:
    """Return the URL of a daemon; an IPv6 address stands in brackets (RFC 3986, section 3.2.2)."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def check_url(text: str) -> None:
    """Raise ValueError unless this is the URL of something at a daemon, which can be taken apart."""
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or not parts.netloc.isprintable() or parts.port == 0:
        raise ValueError(f"{text!r} is no URL at a daemon")


def check_base_url(text: str) -> None:
    """Raise ValueError unless this is the URL of a daemon, with a host and a port."""
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or parts.port is None:
        raise ValueError(f"{text!r} is not the URL of a daemon")


class Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of request bodies: an unknown field is refused, so that a misspelt option never does nothing.

    A field that earlier versions do not know is UNSET unless it is wanted, and then not sent: they take the rest.
    """


class Message(msgspec.Struct, kw_only=True, omit_defaults=False):
    """Base of answers and events: unknown fields are ignored, so that a newer daemon may say more."""


class Sampling(Request, kw_only=True):
    """How the next token is chosen. None stands for the engine's own default.

    The names are those of llama.cpp's samplers; `seed` makes a run repeatable on the same machine. `logit_bias` is
    added to the logits of tokens, by their number in the model's vocabulary. With `logprobs` the logarithms of the
    probabilities of each token and of so many of the likeliest ones are told, before anything changes them.
    """

    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.7
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, msgspec.Meta(gt=0, le=10)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)] | None = None
    stop: (
        Annotated[list[Annotated[str, msgspec.Meta(min_length=1, max_length=256)]], msgspec.Meta(max_length=16)] | None
    ) = None
    raw: bool = False
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | msgspec.UnsetType = msgspec.UNSET
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | msgspec.UnsetType = msgspec.UNSET
    logit_bias: dict[int, Annotated[float, msgspec.Meta(ge=-100, le=100)]] | msgspec.UnsetType = msgspec.UNSET
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | msgspec.UnsetType = msgspec.UNSET


class Narration(Message, kw_only=True):
    """One line of what happens: who does what to which target, and the sentence for the human."""

    actor: Literal[
        "rbee-keeper", "queen-rbee", "rbee-hive", "model-provisioner", "llm-worker-rbee", "model-loader", "engine"
    ]
    action: str
    target: str
    human: str
    correlation_id: str | None = None


class Health(Message, kw_only=True, omit_defaults=True):
    """The answer of a hive's and a worker's `/v1/health`.

    A hive names who started it, who alone may end it; its id, the same from one start to the next; and the swarm it
    belongs to, without its token. `everywhere`: it and its workers listen on every address of their machine. `proof`
    meets the request's challenge; those of the time before know none.
    """

    status: Literal["alive"]
    version: str
    api_version: str
    worker_id: str | None = None
    started_by: Literal["user", "queen"] | None = None
    hive_id: str | None = None
    swarm: str | None = None
    everywhere: bool = False
    proof: str | None = None
