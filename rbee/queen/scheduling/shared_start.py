"""A start of a worker: who waits for it, what they are told, and when nobody wants it any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from rbee.wire.common import Narration
from rbee.wire.download import Downloading, Retrying, Verifying

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.wire.progress import ProgressEvent, Report


class Waiting(Protocol):
    """Who waits for a worker."""

    @property
    def report(self) -> Report:
        """Tell it what happens."""
        ...


T = TypeVar("T", bound=Waiting)


class Starting(Generic[T]):
    """One start; `stop` ends it.

    A worker that starts is there for the next request, whoever gives up meanwhile. A download is not worth that: it
    may take hours, and what has come of it stays on the node.
    """

    def __init__(self, first: T, stop: Callable[[], None]) -> None:
        self.waiting = [first]
        self._stop = stop
        self._last: ProgressEvent | None = None

    def join(self, waiter: T) -> None:
        """One more waits, and is told at once how far it is."""
        self.waiting.append(waiter)
        if self._last is not None:
            waiter.report(self._last)

    def leave(self, waiter: T) -> None:
        """One waits no longer, if it did."""
        if waiter in self.waiting:
            self.waiting.remove(waiter)
            self._stop_if_unwanted()

    def report(self, message: ProgressEvent) -> None:
        """Pass on what happens."""
        if not isinstance(message, Narration):
            self._last = message
        for waiter in self.waiting:
            waiter.report(message)
        self._stop_if_unwanted()

    def _stop_if_unwanted(self) -> None:
        if not self.waiting and isinstance(self._last, Downloading | Retrying | Verifying):
            self._stop()
