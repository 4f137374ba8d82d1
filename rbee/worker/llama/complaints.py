"""Keeps llama.cpp's last warnings and errors, to say why something failed: its functions return only that it did."""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger("llama.cpp")

_LEVELS: Final = {3: logging.WARNING, 4: logging.ERROR}
"""`enum ggml_log_level` (ggml.h); the levels below are about things that are well."""
_CONTINUED: Final = 5
_NO_CONCERN: Final = ("possible training context overflow",)
"""It compares the pool of all sequences with the context of one."""
_FOLDERS: Final = re.compile(r"(?<![^\s'\"(:=])/(?:[^/\s'\":]+/)+")
"""The folders of an absolute path: of a model, or of a source file where the engine was built. Nobody's business."""
_MAX_BYTES: Final = 2000
"""A line may quote the model file, which may have been made to fill a disk."""


class _Muting(threading.local):
    condition: Callable[[], bool] | None = None


class Complaints:
    """The complaints of one process: llama.cpp has one log for all models and contexts."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=20)
        self._level = 0
        self._lock = threading.Lock()
        self._muting = _Muting()

    def take(self, level: int, text: bytes) -> None:
        """Keep and log a line that llama.cpp wrote; called in the thread that is in llama.cpp."""
        if level != _CONTINUED:
            self._level = level
        if (severity := _LEVELS.get(self._level)) is None:
            return
        if self._muting.condition is not None and self._muting.condition():
            return
        line = tidy(text)
        if line and not line.endswith(_NO_CONCERN):
            with self._lock:
                self._lines.append(line)
            log.log(severity, "%s", line)

    @contextmanager
    def muted_while(self, condition: Callable[[], bool]) -> Iterator[None]:
        """Drop what this thread's calls complain about while `condition` holds.

        llama.cpp complains about a decode that is aborted like about any other failure.
        """
        self._muting.condition = condition
        try:
            yield
        finally:
            self._muting.condition = None

    def clear(self) -> None:
        with self._lock:
            self._lines.clear()

    def lines(self) -> list[str]:
        with self._lock:
            return list(self._lines)


def tidy(text: bytes) -> str:
    """Return a line of llama.cpp as text, without the folders of paths."""
    return _FOLDERS.sub("", text[:_MAX_BYTES].decode("utf-8", "replace")).strip()
