"""One start of a worker: the requests that wait for it, how far it is, and whether it is still wanted (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.wire.common import Narration
from rbee.wire.progress import Downloading, Retrying, Verifying

if TYPE_CHECKING:
    from rbee.queen.scheduling.place_request import PlaceRequest
    from rbee.wire.progress import ProgressEvent


class SharedStart:
    """One start; it is to be cancelled once it `is_unwanted`.

    A worker that starts is there for the next request, whichever gives up meanwhile. A download is not worth that: it
    may take hours, and what has come of it stays on the node.
    """

    def __init__(self, first: PlaceRequest) -> None:
        self.waiting = [first]
        self.last: ProgressEvent | None = None
        """How far it is, which a request that joins is told at once."""

    def leave(self, waiter: PlaceRequest) -> None:
        """A request waits no longer, if it did."""
        if waiter in self.waiting:
            self.waiting.remove(waiter)

    def on_progress(self, event: ProgressEvent) -> None:
        """The hive has reported something."""
        if not isinstance(event, Narration):
            self.last = event

    @property
    def is_unwanted(self) -> bool:
        """Whether it is a download that no request waits for."""
        return not self.waiting and isinstance(self.last, Downloading | Retrying | Verifying)
