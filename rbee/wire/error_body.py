"""The `{"error": …}` object of an error: what a role sends, and what the client of that role raises again."""

from __future__ import annotations

from typing import Any, Final

from rbee.errors import (
    CATALOGUE,
    DrainingError,
    InternalError,
    InvalidApiKeyError,
    InvalidRequestError,
    ModelLoadFailedError,
    RbeeError,
    SshFailedError,
)
from rbee.narrower_errors import (
    HOST_KEY,
    NAN,
    UNKNOWN_FIELD,
    UNSUPPORTED,
    HostKeyError,
    KeyRefusedError,
    NoNumbersError,
    PromptTooLongError,
    TooManyTokensError,
    UnknownFieldError,
    UnsupportedFieldError,
    UnsupportedModelError,
    WorkerDrainingError,
)

_TEXTS: Final = ("node", "host", "url", "id", "log", "hive", "location", "worker_id", "reason", "field", "rule")
_TYPES: Final[dict[str, type]] = dict.fromkeys(_TEXTS, str) | dict.fromkeys(("attempts", "last_lines", "workers"), list)
"""What details have in all errors of ours; another daemon's may have anything."""


def to_body(error: RbeeError, correlation_id: str | None = None) -> dict[str, Any]:
    """Return the `{"error": …}` object of `error`; the hint travels in it for the keeper."""
    body: dict[str, Any] = {"code": error.code, "message": error.message, "details": error.details}
    body |= {name: error.details[name] for name in error.promoted if name in error.details}
    if error.hint is not None:
        body["hint"] = error.hint
    if (correlation_id := correlation_id or error.correlation_id) is not None:
        body["correlation_id"] = correlation_id
    return {"error": body}


def from_body(body: object) -> RbeeError | None:
    """Return the error that `body` describes, of the class its code names, or None when it describes none.

    The other side may be broken or hostile, so every part is checked and an unknown code becomes an `InternalError`.
    """
    if not isinstance(body, dict) or not isinstance(inner := body.get("error"), dict):
        return None
    code, message, details, hint, correlation_id = (
        inner.get(key) for key in ("code", "message", "details", "hint", "correlation_id")
    )
    if not isinstance(code, str) or not isinstance(message, str):
        return None
    found = details.items() if isinstance(details, dict) else ()
    details = {name: value for name, value in found if isinstance(value, _TYPES.get(name, object))}
    error = _class_of(code, details)(message if message.strip() else code, hint=hint if isinstance(hint, str) else None)
    error.details = details
    if isinstance(correlation_id, str):
        error.correlation_id = correlation_id
    return error


def _class_of(code: str, details: dict[str, Any]) -> type[RbeeError]:
    """Return the class of an error that was received; details distinguish the classes that share a code."""
    if code == DrainingError.code and "worker_id" in details:
        return WorkerDrainingError
    if code == SshFailedError.code and details.get("reason") == HOST_KEY:
        return HostKeyError
    if code == ModelLoadFailedError.code and details.get("reason") == UNSUPPORTED:
        return UnsupportedModelError
    if code == ModelLoadFailedError.code and details.get("reason") == NAN:
        return NoNumbersError
    if code == InvalidApiKeyError.code and "host" in details:
        return KeyRefusedError
    if code == InvalidRequestError.code:
        return _class_of_request(details)
    return CATALOGUE.get(code, InternalError)


def _class_of_request(details: dict[str, Any]) -> type[InvalidRequestError]:
    if details.get("reason") == UNSUPPORTED:
        return UnsupportedFieldError
    if details.get("rule") == UNKNOWN_FIELD:
        return UnknownFieldError
    has_context = _is_count(details.get("context"))
    if has_context and details.get("field") == "max_tokens":
        return TooManyTokensError
    return PromptTooLongError if has_context and _is_count(details.get("tokens")) else InvalidRequestError


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0
