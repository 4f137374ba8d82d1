"""Writes what a daemon does as JSON lines, each with the correlation id of the request it belongs to."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from rbee.adapters.files import full_disk, private
from rbee.adapters.logs.rotating_file import LogFile

if TYPE_CHECKING:
    from pathlib import Path

correlation: ContextVar[str | None] = ContextVar("correlation", default=None)
"""The correlation id of the request that the current task works for."""

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def correlate(given: str | None) -> str:
    """Set the correlation id of this task and return it: `given` where that is a UUID, else a new one."""
    found = given.lower() if given is not None and _UUID.fullmatch(given) else str(uuid.uuid4())
    correlation.set(found)
    return found


class JsonFormatter(logging.Formatter):
    """One JSON object a line; JSON escapes control characters, so a log cannot control a terminal."""

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


def to_file(role: str, path: Path, max_bytes: int, level: int = logging.INFO) -> None:
    """Send every log record of this process to `path`, and stderr too where it leads there already (see LogFile).

    Raises StorageError where the folder cannot be made.
    """
    try:
        private.make_private(path.parent)
    except OSError as exc:
        raise full_disk.refused(f"the log folder {path.parent} cannot be made", exc) from exc
    _install(LogFile(path, max_bytes), role, level)


def to_stderr(role: str, level: int = logging.INFO) -> None:
    """Send every log record of this process to stderr."""
    _install(logging.StreamHandler(sys.stderr), role, level)


def _install(handler: logging.Handler, role: str, level: int) -> None:
    handler.setFormatter(JsonFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # httpx logs each request at INFO, hypercorn each start; neither is about what rbee does.
    for chatty in ("httpx", "httpcore", "hypercorn.error", "quart.app", "quart.serving"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It logs a traceback for each connection that fails, beside the exception that it raises.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
