"""Follows requests from their arrival until their end, so that they can be cancelled by name."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import trio

from rbee.errors import CancelledError, DrainingError, InvalidRequestError
from rbee.queen.requests.second_try import SecondTry
from rbee.wire.events import SwarmTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rbee.errors import RbeeError
    from rbee.wire.queen import TaskHandle

MAX_ENDED_REQUESTS: Final = 1000
"""Ended requests that are still known by name; their worker may be generating for them."""


class AssignedWorker(NamedTuple):
    """The worker that has a request, at the URL at which the queen reaches it."""

    url: str
    key: str
    node: str
    worker_id: str


@dataclass(slots=True)
class TrackedRequest:
    """One request; `worker` is there once it is placed. `on_change` gets each of its states."""

    request_id: str
    on_change: Callable[[SwarmTask], None]
    caller: str
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    cause: RbeeError = field(default_factory=lambda: CancelledError("the request was cancelled"))
    running: bool = True
    worker: AssignedWorker | None = None
    second_try: SecondTry = field(default_factory=SecondTry)
    was_placed: bool = False
    """Whether it comes again, after a worker had it in vain."""

    def placed(self, handle: TaskHandle, url: str) -> None:
        """A worker has it, which the queen reaches at `url`."""
        self.worker = AssignedWorker(url, handle.api_key, handle.node, handle.worker_id)
        self._publish("placed", handle.node, handle.worker_id)

    def begin(self) -> None:
        """It waits for a worker."""
        self._publish("waiting", None, None)

    def end(self) -> None:
        """The queen has done what it was asked for."""
        self.running = False
        self._publish("ended", None, None)

    def _publish(self, state: Literal["waiting", "placed", "ended"], node: str | None, worker_id: str | None) -> None:
        self.on_change(SwarmTask(request_id=self.request_id, state=state, node=node, worker_id=worker_id))


class RequestTracker:
    """The requests of this queen by id; `on_change` gets each state of each."""

    def __init__(self, on_change: Callable[[SwarmTask], None] = lambda _: None) -> None:
        self._on_change = on_change
        self._requests: OrderedDict[str, TrackedRequest] = OrderedDict()

    @property
    def running(self) -> int:
        """How many have not ended."""
        return sum(request.running for request in self._requests.values())

    @contextmanager
    def track(self, request_id: str, caller: str) -> Iterator[TrackedRequest]:
        """Run a request's work in the block; `cancel` makes it raise CancelledError, and `end` DrainingError.

        `caller` is whose it is (`CallerIdentity.caller`), for `end_of`. Raises InvalidRequestError when a request of
        this id runs already.
        """
        if (known := self._requests.get(request_id)) is not None and known.running:
            raise InvalidRequestError(
                "field request_id: a request with this id is running", field="request_id", rule="unique"
            )
        was_placed = known is not None and known.worker is not None
        request = self._requests[request_id] = TrackedRequest(
            request_id, self._on_change, caller, was_placed=was_placed
        )
        self._requests.move_to_end(request_id)
        self._trim()
        request.begin()
        try:
            with request.scope:
                yield request
        finally:
            request.end()
        if request.scope.cancelled_caught:
            raise request.cause

    def worker_of(self, request_id: str) -> AssignedWorker | None:
        """Return the worker that has the request, or had it; None where none has, or the request is not known."""
        found = self._requests.get(request_id)
        return None if found is None else found.worker

    def cancel(self, request_id: str) -> AssignedWorker | None:
        """Stop placing the request; returns the worker that has it, if one has."""
        if (request := self._requests.get(request_id)) is None:
            return None
        request.scope.cancel()
        return request.worker

    def end_of(self, caller: str, cause: RbeeError) -> int:
        """Stop what runs for a caller, in the middle of answers too: it raises `cause`. Returns how many there were."""
        found = [request for request in self._requests.values() if request.running and request.caller == caller]
        for request in found:
            request.cause = cause
            request.scope.cancel()
        return len(found)

    def end(self) -> None:
        """Stop every request that still runs: what it waits for has ended, and the queen does too."""
        for request in self._requests.values():
            if request.running:
                request.cause = DrainingError("the queen is shutting down")
                request.scope.cancel()

    def _trim(self) -> None:
        excess = len(self._requests) - MAX_ENDED_REQUESTS
        for request_id in list(islice(self._requests, max(0, excess))):
            if not self._requests[request_id].running:
                del self._requests[request_id]
