"""The catalogue of errors: a class is a code, an HTTP status and a default advice.

A role raises one of these classes and renders it to the error body of its HTTP answers; the client of that role raises
the same class again (`wire.error_body`), so an error keeps its kind from the worker to the user's terminal.
Everything outside this tree is a bug and becomes an `InternalError`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

_WHOLE: Final = "$"
_REQUIRED: Final = "required"


class RbeeError(Exception):
    """Base of all errors that a user may see.

    `message` is readable, holds no secret, no absolute path and no part of a request's content, because it crosses the
    network. `details` holds JSON values for programs. `hint` says what to do about it; it is shown by the keeper.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    advice: ClassVar[str | None] = None
    told_by: ClassVar[tuple[tuple[str, str], ...]] = ()  # the details that tell it from other classes of its code
    promoted: ClassVar[tuple[str, ...]] = ()  # details that stand in the error object itself too, where so documented

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.advice
        self.details: dict[str, Any] = dict(self.told_by) | details
        self.correlation_id: str | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.code}: {self.message}>"


class InternalError(RbeeError):
    code = "INTERNAL_ERROR"


class ConnectionTimeoutError(RbeeError):
    """A daemon could not be reached in any of the attempts."""

    code = "CONNECTION_TIMEOUT"
    status = 503


class SshFailedError(RbeeError):
    """`details["reason"]` is one of timeout, auth, host_key, refused, dns, command."""

    code = "SSH_FAILED"
    status = 400


class VersionMismatchError(RbeeError):
    code = "VERSION_MISMATCH"
    status = 409


class NodeNotFoundError(RbeeError):
    code = "NODE_NOT_FOUND"
    status = 404


class InstallFailedError(RbeeError):
    """rbee could not be brought to a node; what was installed there before still works."""

    code = "INSTALL_FAILED"
    status = 502


class NodeExistsError(RbeeError):
    code = "NODE_EXISTS"
    status = 409


class ModelNotFoundError(RbeeError):
    code = "MODEL_NOT_FOUND"
    status = 404


class ModelAccessDeniedError(RbeeError):
    code = "MODEL_ACCESS_DENIED"
    status = 403


class ModelInUseError(RbeeError):
    """`details`: workers, the ids of those that have it."""

    code = "MODEL_IN_USE"
    status = 409
    advice = "`rbee workers list` shows the workers; one that is idle for some minutes ends by itself"


class DownloadFailedError(RbeeError):
    code = "DOWNLOAD_FAILED"
    status = 502


class ChecksumMismatchError(RbeeError):
    code = "CHECKSUM_MISMATCH"
    status = 502


class InsufficientDiskError(RbeeError):
    code = "INSUFFICIENT_DISK"
    status = 507


class OutOfMemoryError(RbeeError):
    """`details`: required and available (MB), resource ("ram" or "vram").

    With `held` (MB) it is what other workers take that may end: asking again may help.
    """

    code = "VRAM_EXHAUSTED"
    status = 503
    advice = "try a model with a smaller quantisation, or a smaller context"

    @property
    def is_passing(self) -> bool:
        """Whether there may be memory for it later."""
        return "held" in self.details


class BackendUnavailableError(RbeeError):
    code = "BACKEND_UNAVAILABLE"
    status = 422
    advice = "`rbee detect` lists the backends and devices of this machine"


class DeviceOutOfRangeError(RbeeError):
    code = "DEVICE_OUT_OF_RANGE"
    status = 422
    advice = "`rbee detect` lists the backends and devices of this machine"


class SpawnFailedError(RbeeError):
    code = "SPAWN_FAILED"


class SpawnTimeoutError(RbeeError):
    code = "SPAWN_TIMEOUT"
    status = 504


class LoadingTimeoutError(RbeeError):
    code = "LOADING_TIMEOUT"
    status = 504

    @classmethod
    def after(cls, seconds: float, state: str, layers: tuple[int, int] | None) -> LoadingTimeoutError:
        """Return the error, in the same words from hive, queen and keeper; `layers` is loaded and total."""
        loaded, total = layers or (None, None)
        return cls(
            f"the model was not loaded within {seconds:g} s: state {state}"
            + ("" if layers is None else f", {loaded} of {total} layers"),
            elapsed_s=seconds,
            state=state,
            layers_loaded=loaded,
            layers_total=total,
        )


class ModelLoadFailedError(RbeeError):
    code = "MODEL_LOAD_FAILED"


class WorkerNotFoundError(RbeeError):
    code = "WORKER_NOT_FOUND"
    status = 404
    advice = "`rbee workers list` shows the workers that run"


class WorkerNotReadyError(RbeeError):
    code = "WORKER_NOT_READY"
    status = 503


class AllSlotsBusyError(RbeeError):
    code = "ALL_SLOTS_BUSY"
    status = 503
    advice = "wait for a running request to end, or use another node"
    promoted = ("slots_total", "slots_busy")

    @property
    def retry_after(self) -> float | None:
        """After how many seconds it is worth to ask again, if that is known."""
        seconds = self.details.get("retry_after_s")
        return seconds if isinstance(seconds, (int, float)) else None


class DrainingError(RbeeError):
    """The daemon is shutting down and takes no new work."""

    code = "SHUTTING_DOWN"
    status = 503


class WorkerFailedError(RbeeError):
    code = "WORKER_FAILED"


class InferenceTimeoutError(RbeeError):
    code = "INFERENCE_TIMEOUT"
    status = 504


class UnloadFailedError(RbeeError):
    code = "UNLOAD_FAILED"


class InvalidRequestError(RbeeError):
    """`details`: field (a JSON path or an option), rule, and where it helps the expected form."""

    code = "INVALID_REQUEST"
    status = 400

    @property
    def field(self) -> str | None:
        """The field that is wrong; None where that is all of the request."""
        field = self.details.get("field")
        return field if isinstance(field, str) and field != _WHOLE else None

    @property
    def is_missing(self) -> bool:
        """Whether the field has to be there, and is not."""
        return self.details.get("rule") == _REQUIRED


class InvalidConfigurationError(RbeeError):
    """A setting is wrong; the message names key, expected type and where it was read."""

    code = "INVALID_CONFIGURATION"


class PayloadTooLargeError(InvalidRequestError):
    code = "PAYLOAD_TOO_LARGE"
    status = 413


class RouteNotFoundError(InvalidRequestError):
    code = "ROUTE_NOT_FOUND"
    status = 404


class MethodNotAllowedError(InvalidRequestError):
    code = "METHOD_NOT_ALLOWED"
    status = 405

    @property
    def allowed(self) -> str:
        """The methods that the path takes."""
        return str(self.details.get("rule", ""))


class InvalidApiKeyError(RbeeError):
    code = "INVALID_API_KEY"
    status = 401


class MissingApiKeyError(RbeeError):
    code = "MISSING_API_KEY"
    status = 401


class ForbiddenError(RbeeError):
    """What was shown opens less than was asked for. `details["reason"]` is one of host, origin, administration."""

    code = "FORBIDDEN"
    status = 403


class NotFoundError(RbeeError):
    """A key, or a request, that the queen does not know."""

    code = "NOT_FOUND"
    status = 404


class PortInUseError(RbeeError):
    code = "PORT_IN_USE"


class TooManyConnectionsError(RbeeError):
    """The daemon has as many connections as it may have, from this address or in all, and none of them is idle."""

    code = "TOO_MANY_CONNECTIONS"
    status = 503
    advice = "close some, or try again once some have ended"


class AlreadyRunningError(RbeeError):
    """A daemon of this role already owns the state folder."""

    code = "ALREADY_RUNNING"
    status = 409


class StorageError(RbeeError):
    """A file or database of rbee's own could not be read or written (disk full, permissions)."""

    code = "STORAGE_FAILED"


class CancelledError(RbeeError):
    code = "CANCELLED"
    status = 499
    exit_code = 130


def _tree(base: type[RbeeError]) -> list[type[RbeeError]]:
    return [base, *(cls for sub in base.__subclasses__() for cls in _tree(sub))]


CATALOGUE: Final[dict[str, type[RbeeError]]] = {cls.code: cls for cls in _tree(RbeeError) if "code" in vars(cls)}
"""Every code that may stand in an error body, with its class."""
