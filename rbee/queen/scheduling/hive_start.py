"""The one search for a node's hive, or start of it, that runs at a time, and the requests that wait for it (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.queen.scheduling.place_request import retry_pauses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rbee.queen.scheduling.place_request import AnyRequest

SUCCESSION_SECONDS: Final = 60.0
"""For a hive that shuts down to be gone: it lets running requests end first."""


class Postponed(NamedTuple):
    """What becomes of the requests where another queen or a user starts or ends the hive just now.

    Some have waited for that long enough, and some have not been told of it yet.
    """

    refused: list[AnyRequest]
    uninformed: list[AnyRequest]


class HiveStart:
    """What is known of the hive's start; after `join` or `begin_again` has said so, one is to begin."""

    def __init__(self) -> None:
        self.again_at: float | None = None
        """When it is to be tried once more."""
        self._is_running = False
        self._patient_until: dict[AnyRequest, float] = {}
        self._informed: set[AnyRequest] = set()
        self._pauses: Iterator[float] = retry_pauses()

    @property
    def waiting(self) -> list[AnyRequest]:
        """The requests that wait for the hive."""
        return list(self._patient_until)

    def join(self, request: AnyRequest, now: float) -> bool:
        """One more request needs the hive; returns whether a start is to begin for it."""
        self._patient_until[request] = now + SUCCESSION_SECONDS
        if self._is_running or self.again_at is not None:
            return False
        self._pauses = retry_pauses()
        next(self._pauses)  # the one before the first try
        self._is_running = True
        return True

    def leave(self, request: AnyRequest) -> None:
        """A request waits no longer, if it did. The start goes on: the hive is there for the next request."""
        self._patient_until.pop(request, None)
        self._informed.discard(request)

    def end(self) -> list[AnyRequest]:
        """The start has ended, well or not; returns the requests that have waited for that."""
        self._is_running = False
        requests = self.waiting
        self._patient_until.clear()
        self._informed.clear()
        return requests

    def postpone(self, now: float) -> Postponed:
        """Another queen or a user starts or ends a hive, which does not say where it is yet: try again later."""
        self._is_running = False
        refused = [request for request, until in self._patient_until.items() if until <= now]
        for request in refused:
            self.leave(request)
        uninformed = [request for request in self._patient_until if request not in self._informed]
        self._informed.update(uninformed)
        self.again_at = now + next(self._pauses) if self._patient_until else None
        return Postponed(refused, uninformed)

    def begin_again(self, now: float) -> bool:
        """Return whether the start is to be tried once more, now."""
        if self.again_at is None or self.again_at > now:
            return False
        self.again_at = None
        self._is_running = bool(self._patient_until)
        return self._is_running
