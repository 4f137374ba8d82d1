"""The queen's messages about requests: what came of each, never what was asked or answered."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from rbee.wire.common import Message, Request

REQUESTS: Final = "/v2/requests"
STORY: Final = "/v2/requests/{request_id}"
MAX_LISTED: Final = 10_000


class RequestQuery(Request, kw_only=True):
    """How many of the last requests are wanted, and whether those that follow are too."""

    lines: Annotated[int, msgspec.Meta(ge=0, le=MAX_LISTED)] = 50
    follow: bool = False


class RequestInfo(Message, kw_only=True):
    """A request for text; times are in milliseconds from its arrival, `began_unix` in Unix seconds.

    `caller` is the name of its key, or `local`, `token` or `open`; null where it was refused. `end` is the reason for
    which its text ended, the code of an error, or another word; null while it runs.
    """

    id: str
    caller: str | None
    address: str
    route: str
    began_unix: float
    status: int = 200
    model: str | None = None
    node: str | None = None
    worker: str | None = None
    relayed: bool | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    tokens: int | None = None
    queue_ms: int | None = None
    first_token_ms: int | None = None
    total_ms: int | None = None
    end: str | None = None


class RequestList(Message, kw_only=True):
    """The last requests, the oldest first, those that run too."""

    requests: list[RequestInfo]


class RequestStep(Message, kw_only=True):
    """What happened to a request so many milliseconds after its arrival."""

    ms: int
    human: str


class RequestStory(Message, kw_only=True):
    """What is known of one request."""

    request: RequestInfo
    steps: list[RequestStep] = msgspec.field(default_factory=list)
    state: Literal["running", "ended"] = "ended"
