"""Decides whether a request whose worker has failed is tried once more, unseen by its client (PURE)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rbee.errors import DrainingError, OutOfMemoryError, SpawnFailedError, WorkerFailedError, WorkerNotReadyError
from rbee.wire.error_body import from_body

AGAIN: Final = (WorkerFailedError, SpawnFailedError, OutOfMemoryError, DrainingError, WorkerNotReadyError)
"""What another worker may not suffer: it died or ended, its node was lost, or there was no memory for it.

A model that cannot be loaded, and a request that is wrong, fail anywhere.
"""


class _Head(msgspec.Struct):
    """What tells the events of a worker's stream apart."""

    type: str = ""
    error: dict[str, Any] | None = None


class SecondTry:
    """The one second try of a request: before its answer has begun, and once."""

    def __init__(self) -> None:
        self._is_left = True
        self._has_begun = False
        self._prompt_was_read = False

    @property
    def is_left(self) -> bool:
        """Whether a failure now would not be its end."""
        return self._is_left and not self._has_begun

    def passes_on(self, name: str, data: str) -> bool:
        """An event of the worker's stream has come; returns whether the client gets it, which has had its like else.

        Raises the error that it holds, where that is no reason to give up.
        """
        if self._has_begun or name != "message":
            return True  # an event with a name reports progress
        head = _head(data)
        if head.error is not None:
            error = from_body({"error": head.error})
            if error is not None and self._covers(error):
                raise error
            return True
        if head.type != "prompt":
            self._has_begun = True
            return True
        is_first, self._prompt_was_read = not self._prompt_was_read, True
        return is_first

    def take(self, error: Exception) -> bool:
        """Return whether a request that has failed so is tried once more; the next time it is not."""
        is_taken = self._covers(error)
        if is_taken:
            self._is_left = False
        return is_taken

    def _covers(self, error: Exception) -> bool:
        return self.is_left and isinstance(error, AGAIN)


def _head(data: str) -> _Head:
    try:
        return msgspec.json.decode(data, type=_Head)
    except (msgspec.MsgspecError, RecursionError):
        return _Head()  # its reader refuses it
