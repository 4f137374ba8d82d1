"""Answers errors in the shape that the clients of each path know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quart import g, request

from rbee.adapters.http.app import answer, failure
from rbee.queen.api.openai.errors import failure_of
from rbee.wire.dialects.openai_request import CHAT

if TYPE_CHECKING:
    from quart import Response

    from rbee.errors import RbeeError

OPENAI: Final = "/v1/"
"""How OpenAI's paths begin."""


def render(error: RbeeError) -> Response:
    """Return the answer to the current request for an error."""
    if not request.path.startswith(OPENAI):
        return failure(error)
    g.failed = error
    found = failure_of(error, is_chat=request.path == CHAT)
    response = answer(found.body, found.status)
    response.headers.update(found.headers)
    return response
