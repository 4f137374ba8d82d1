"""What a node's loop is asked for and told, and how those who ask get their answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from rbee.adapters.logs.json_log import correlation
from rbee.errors import InternalError, RbeeError
from rbee.wire.hive import SpawnReply, WorkerGone, WorkerList, WorkerRow

if TYPE_CHECKING:
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.wire.common import WorkerState
    from rbee.wire.progress import Report


PAUSES: Final = (0.0, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds before an order is placed once more: the first time at once, then with more and more patience.

What its hive answers and what the event stream shows may differ for a while, and a hive that ends takes its time: who
asks without a pause asks thousands of times.
"""


class Placed(NamedTuple):
    """A worker that serves a request."""

    worker_id: str
    url: str
    state: WorkerState


class Order:
    """A request that is to be placed; `wait` is how many seconds it would wait for a slot."""

    def __init__(self, wanted: Wanted, report: Report, wait: float) -> None:
        self.wanted = wanted
        self.report = report
        self.wait = wait
        self.correlation_id = correlation.get()
        self.done = trio.Event()
        self.patience = trio.CancelScope()
        self.waits_until: float | None = None
        self.is_given_up = False
        self.successor_by: float | None = None
        self.result: Placed | RbeeError = InternalError("the queen ended")
        self._pauses = iter(PAUSES)

    def settle(self, result: Placed | RbeeError) -> None:
        self.result = result
        self.done.set()

    def next_pause(self) -> float:
        """Return how long to wait before it is placed once more."""
        return next(self._pauses, PAUSES[-1])


class Visit:
    """Someone wants to ask the node's hive something, and have it started if need be."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.correlation_id = correlation.get()
        self.done = trio.Event()
        self.result: str | RbeeError = InternalError("the queen ended")

    def settle(self, result: str | RbeeError) -> None:
        self.result = result
        self.done.set()


class GivenUp(NamedTuple):
    """Nobody waits for this order any longer."""

    order: Order


class Started(NamedTuple):
    """A start of a worker has ended, well or not."""

    wanted: Wanted
    result: SpawnReply | RbeeError


Message = Order | Visit | GivenUp | Started | WorkerList | WorkerRow | WorkerGone | None
"""What a node's inbox holds; None stands for a hive whose event stream was lost."""
