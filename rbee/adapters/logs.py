"""Writes what a daemon does as JSON lines, each with the correlation id of the request it belongs to."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from contextlib import suppress
from contextvars import ContextVar
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Final

from rbee.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES: Final = 10_000_000
"""A log file is rotated at this size; one older file is kept."""

correlation: ContextVar[str | None] = ContextVar("correlation", default=None)
"""The correlation id of the request that the current task works for."""

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def correlate(given: str | None) -> str:
    """Set the correlation id of this task and return it: `given` where that is a UUID, else a new one."""
    found = given.lower() if given is not None and _UUID.fullmatch(given) else str(uuid.uuid4())
    correlation.set(found)
    return found


class JsonFormatter(logging.Formatter):
    """One JSON object a line; JSON escapes control characters, so a log can never draw on a terminal."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "role": self._role,
            "message": record.getMessage(),
        }
        if (found := correlation.get()) is not None:
            line["correlation_id"] = found
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _PatientFileHandler(RotatingFileHandler):
    """Drops lines while the disk is full instead of failing what wanted to log them."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
            return
        # What could not be written is still in the stream's buffer, and would fail its closing at the next rotation.
        if (stream := self.stream) is not None:
            self.stream = None
            with suppress(OSError):
                stream.close()


def to_file(role: str, path: Path, level: int = logging.INFO) -> None:
    """Send every log record of this process to `path`. Raises StorageError where its folder cannot be made."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StorageError(f"the log folder {path.parent} cannot be made: {exc.strerror}") from exc
    _install(_PatientFileHandler(path, maxBytes=MAX_BYTES, backupCount=1, encoding="utf-8", delay=True), role, level)


def to_stderr(role: str, level: int = logging.INFO) -> None:
    """Send every log record of this process to stderr, which the parent made a file."""
    _install(logging.StreamHandler(sys.stderr), role, level)


def _install(handler: logging.Handler, role: str, level: int) -> None:
    handler.setFormatter(JsonFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # httpx logs each request at INFO, hypercorn each start; neither is about what rbee does.
    for chatty in ("httpx", "httpcore", "hypercorn.error", "quart.app", "quart.serving", "paramiko"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
