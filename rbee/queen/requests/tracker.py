"""Follows requests from their arrival until their end, so that they can be cancelled by name."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import trio

from rbee.errors import CancelledError, DrainingError, InvalidRequestError
from rbee.wire.events import SwarmTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rbee.errors import RbeeError
    from rbee.wire.queen import TaskHandle

REMEMBERED: Final = 1000
"""Ended requests that are still known by name; their worker may be generating for them."""


@dataclass(slots=True)
class Task:
    """One request; `worker` is (URL, key) once it is placed. `told` hears what becomes of it."""

    request_id: str
    told: Callable[[SwarmTask], None]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    cause: RbeeError = field(default_factory=lambda: CancelledError("the request was cancelled"))
    running: bool = True
    worker: tuple[str, str] | None = None

    def placed(self, handle: TaskHandle, url: str) -> None:
        """A worker has it, which the queen reaches at `url`."""
        self.worker = (url, handle.api_key)
        self._tell("placed", handle.node, handle.worker_id)

    def begin(self) -> None:
        """It waits for a worker."""
        self._tell("waiting", None, None)

    def end(self) -> None:
        """The queen has done what she was asked for."""
        self.running = False
        self._tell("ended", None, None)

    def _tell(self, state: Literal["waiting", "placed", "ended"], node: str | None, worker_id: str | None) -> None:
        self.told(SwarmTask(request_id=self.request_id, state=state, node=node, worker_id=worker_id))


class Tasks:
    """The requests of this queen by id; `told` hears what becomes of each."""

    def __init__(self, told: Callable[[SwarmTask], None] = lambda _: None) -> None:
        self._told = told
        self._tasks: OrderedDict[str, Task] = OrderedDict()

    @property
    def running(self) -> int:
        """How many have not ended."""
        return sum(task.running for task in self._tasks.values())

    @contextmanager
    def track(self, request_id: str) -> Iterator[Task]:
        """Run a request's work in the block; `cancel` makes it raise CancelledError, and `end` DrainingError.

        Raises InvalidRequestError when a request of this id runs already.
        """
        if (known := self._tasks.get(request_id)) is not None and known.running:
            raise InvalidRequestError(
                "field request_id: a request with this id is running", field="request_id", rule="unique"
            )
        task = self._tasks[request_id] = Task(request_id, self._told)
        self._tasks.move_to_end(request_id)
        self._trim()
        task.begin()
        try:
            with task.scope:
                yield task
        finally:
            task.end()
        if task.scope.cancelled_caught:
            raise task.cause

    def cancel(self, request_id: str) -> tuple[str, str] | None:
        """Stop placing the request; returns the worker that has it, if one has."""
        if (task := self._tasks.get(request_id)) is None:
            return None
        task.scope.cancel()
        return task.worker

    def end(self) -> None:
        """Stop every request that still runs: what it waits for has ended, and the queen does too."""
        for task in self._tasks.values():
            if task.running:
                task.cause = DrainingError("the queen is shutting down")
                task.scope.cancel()

    def _trim(self) -> None:
        for request_id in list(self._tasks)[:-REMEMBERED]:
            if not self._tasks[request_id].running:
                del self._tasks[request_id]
