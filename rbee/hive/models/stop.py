"""Ends blocking work from another thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rbee.errors import DownloadFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class StopSignal:
    """Set by one thread, checked by another, where it also calls what ends the work in progress."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._enders: list[Callable[[], None]] = []

    def stop(self) -> None:
        """End the work soon; called from any thread."""
        with self._lock:
            self._stopped.set()
            for end in reversed(self._enders):
                end()

    def check(self) -> None:
        """Raise DownloadFailedError once stopped."""
        if self._stopped.is_set():
            raise DownloadFailedError("the download was given up")

    def sleep(self, seconds: float) -> None:
        """Wait, or raise DownloadFailedError as soon as stopped."""
        self._stopped.wait(seconds)
        self.check()

    @contextmanager
    def calling(self, end: Callable[[], None]) -> Iterator[None]:
        """Have `stop` call `end` as long as the block lasts. Raises DownloadFailedError if stopped already."""
        with self._lock:
            self.check()
            self._enders.append(end)
        try:
            yield
        finally:
            with self._lock:
                self._enders.remove(end)
