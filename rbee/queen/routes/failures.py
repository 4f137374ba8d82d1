"""Answers errors in the shape that the clients of each path know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quart import current_app, g, request

from rbee.adapters.http.app import answer, failure
from rbee.errors import RouteNotFoundError
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
        if f"{OPENAI[:-1]}{request.path}" in _paths():
            error.hint = "the base URL of OpenAI's API ends in /v1"
        return failure(error)
    if isinstance(error, RouteNotFoundError):
        error.hint = f"there are {', '.join(_paths())}"
    g.failed = error
    found = failure_of(error, is_chat=request.path == CHAT)
    response = answer(found.body, found.status)
    response.headers.update(found.headers)
    return response


def _paths() -> list[str]:
    """Return the paths for OpenAI's clients that have no parameters."""
    rules = current_app.url_map.iter_rules()
    return sorted({rule.rule for rule in rules if rule.rule.startswith(OPENAI) and not rule.arguments})
