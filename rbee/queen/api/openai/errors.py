"""Translates errors into OpenAI's (PURE).

Sources: openai/openai-openapi, `ErrorResponse`; openai/openai-python, _base_client.py, which asks again after 408, 409,
429 and from 500 on, unless `x-should-retry` says otherwise. Agents know a context that is too full by words, in which
the worker says it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from rbee.errors import (
    AllSlotsBusyError,
    ChecksumMismatchError,
    DownloadFailedError,
    DrainingError,
    InsufficientDiskError,
    InvalidApiKeyError,
    InvalidConfigurationError,
    InvalidRequestError,
    LoadingTimeoutError,
    MethodNotAllowedError,
    MissingApiKeyError,
    ModelLoadFailedError,
    ModelNotFoundError,
    NodeNotFoundError,
    OutOfMemoryError,
    PayloadTooLargeError,
    RouteNotFoundError,
    SpawnFailedError,
    SshFailedError,
    StorageError,
    VersionMismatchError,
)
from rbee.narrower_errors import KeyRefusedError, PromptTooLongError, UnsupportedFieldError
from rbee.wire.dialects.openai_answer import OpenAIError, OpenAIErrorBody

if TYPE_CHECKING:
    from rbee.errors import RbeeError

RETRY_SECONDS: Final = 5
"""After which a client asks again where the queue is full, or a daemon ends; above 120 s SDKs do not."""
_VAIN: Final = (
    ChecksumMismatchError,
    DownloadFailedError,
    InsufficientDiskError,
    InvalidConfigurationError,
    LoadingTimeoutError,
    ModelLoadFailedError,
    OutOfMemoryError,
    SpawnFailedError,
    SshFailedError,
    KeyRefusedError,
    StorageError,
    VersionMismatchError,
)
"""What would fail again, after as long a time."""
_PARAMS: Final = {
    "arguments": "chat_template_kwargs",
    "choices": "n",
    "effort": "reasoning_effort",
    "format": "response_format",
    "path": None,
    "tokens": "prompt",
}
"""Fields of a worker's request that have another name here."""
_TEXT: Final = frozenset({"prompt", "tokens", "conversation"})


class Failure(NamedTuple):
    """An error as it is answered."""

    status: int
    body: OpenAIError
    headers: dict[str, str]

    def event(self) -> bytes:
        """Return it as the last event of a stream that has begun."""
        return b"data: " + msgspec.json.encode(self.body) + b"\n\n"


def failure_of(error: RbeeError, *, is_chat: bool = False) -> Failure:
    """Return an error in OpenAI's words; with `is_chat` what the worker calls a prompt are messages."""
    status = _status(error)
    headers: dict[str, str] = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, (AllSlotsBusyError, DrainingError)):
        headers["Retry-After"] = str(_retry_after(error))
    if isinstance(error, OutOfMemoryError) and error.is_passing:
        headers["Retry-After"] = str(RETRY_SECONDS)
    elif isinstance(error, _VAIN):
        headers["x-should-retry"] = "false"
    param = _param(error, is_chat=is_chat)
    body = OpenAIErrorBody(message=_message(error, param), type=_type(status), param=param, code=_code(error))
    return Failure(status, OpenAIError(error=body), headers)


def _status(error: RbeeError) -> int:
    if isinstance(error, AllSlotsBusyError):
        return 429
    if isinstance(error, (KeyRefusedError, SshFailedError)):
        return 502  # it is not the client's key, and not its request
    return 500 if error.status == 409 else error.status


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def _message(error: RbeeError, param: str | None) -> str:
    message = error.message
    if isinstance(error, InvalidRequestError) and param is not None:
        message = message.replace(f"field {error.field}:", f"field {param}:", 1)
    if isinstance(error, AllSlotsBusyError):
        return f"{message}; try again in {_retry_after(error)} s"
    if isinstance(error, MethodNotAllowedError):
        return f"{message}, but {error.allowed}"
    return message if error.hint is None else f"{message}; {error.hint}"


def _retry_after(error: RbeeError) -> int:
    seconds = error.retry_after if isinstance(error, AllSlotsBusyError) else None
    return RETRY_SECONDS if seconds is None else max(1, round(seconds))


def _param(error: RbeeError, *, is_chat: bool) -> str | None:
    if isinstance(error, (ModelNotFoundError, NodeNotFoundError)):
        return "model"
    if not isinstance(error, InvalidRequestError) or error.field is None:
        return None
    field = error.field.removeprefix("conversation.")
    name = field.partition(".")[0].partition("[")[0]
    if is_chat and name in _TEXT:
        return "messages"
    return _PARAMS.get(name, field)


def _code(error: RbeeError) -> str | None:
    match error:
        case PromptTooLongError():
            return "context_length_exceeded"
        case KeyRefusedError():
            return "server_error"
        case InvalidApiKeyError() | MissingApiKeyError():
            return "invalid_api_key"
        case ModelNotFoundError() | NodeNotFoundError():
            return "model_not_found"
        case AllSlotsBusyError():
            return "rate_limit_exceeded"
        case RouteNotFoundError():
            return "unknown_url"
        case PayloadTooLargeError():
            return "request_too_large"
        case InvalidRequestError() if error.code == InvalidRequestError.code:
            return _code_of_field(error)
        case _:
            return error.code.lower()


def _code_of_field(error: InvalidRequestError) -> str | None:
    if isinstance(error, UnsupportedFieldError):
        return "unsupported_value"
    if error.field is None:
        return None
    return "missing_required_parameter" if error.is_missing else "invalid_value"
