"""Looks at answers that refuse something."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import httpx

SECRET: Final = "hunter2"
"""Stands in what clients send, and in nothing that they are answered."""


def refused(response: httpx.Response, status: int | None = None) -> dict[str, Any]:
    """Check that an answer is an error object that blames the request and repeats nothing of it."""
    assert 400 <= response.status_code < 500, response.text
    assert status is None or response.status_code == status, response.text
    assert SECRET not in response.text
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert error["correlation_id"] == response.headers["X-Correlation-Id"]
    assert str(uuid.UUID(error["correlation_id"])) == error["correlation_id"]
    return error
