"""What a thread has opened, so that nothing of it stays open where the thread is abandoned."""

from __future__ import annotations

import threading
from typing import Protocol


class AbandonedError(Exception):
    """Nobody waits for this thread any more."""


class Closable(Protocol):
    """Something that stays open until it is closed."""

    def close(self) -> object:
        """Close it, without waiting."""
        ...


class Opened:
    """What a thread has opened; whoever waits for that thread closes it.

    A thread that was abandoned goes on until its next step: what it opens after `close` is closed at once.
    """

    def __init__(self) -> None:
        self.resources: list[Closable] = []
        self._lock = threading.Lock()
        self._is_closed = False

    def add(self, resource: Closable) -> None:
        """Remember what was opened. Raises AbandonedError, with the resource closed, where nobody waits any more."""
        with self._lock:
            if not self._is_closed:
                self.resources.append(resource)
                return
        resource.close()
        raise AbandonedError

    def close(self) -> None:
        """Close all of it, what was opened last first."""
        with self._lock:
            self._is_closed = True
        for resource in reversed(self.resources):
            resource.close()
