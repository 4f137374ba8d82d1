"""The queen's messages about API keys, which open its routes for inference and nothing else."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from rbee.wire.common import Message, Name, Request, ShortText

KEYS: Final = "/v2/keys"
KEY: Final = "/v2/keys/{name}"
MAX_MODELS: Final = 100
MAX_SECONDS: Final = 315_360_000.0
"""Ten years."""


class KeyRequest(Request, kw_only=True):
    """A key to make. Without `models` it is for all; without `expires_s` it is good until it is revoked."""

    name: Name
    models: Annotated[list[ShortText], msgspec.Meta(max_length=MAX_MODELS)] = msgspec.field(default_factory=list)
    expires_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_SECONDS)] | None = None


class ApiKey(Message, kw_only=True):
    """What is known of a key; `shown` are its first characters, and times are Unix seconds.

    The counts are those of its requests and their tokens, of which `cached_tokens` are a part of `prompt_tokens`.
    """

    name: str
    shown: str
    models: list[str]
    created_unix: float
    expires_unix: float | None = None
    last_used_unix: float | None = None
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0


class NewKey(Message, kw_only=True):
    """A key that was made: `key` is told this once."""

    key: str
    info: ApiKey


class KeyList(Message, kw_only=True):
    keys: list[ApiKey]


class KeyRevoked(Message, kw_only=True):
    """A key is not good any more; `ended` counts the requests that it had running."""

    name: str
    ended: int
